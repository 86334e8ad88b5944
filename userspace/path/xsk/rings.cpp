// SPDX-License-Identifier: Apache-2.0
#include "path/xsk/rings.hpp"

#include <linux/if_xdp.h>
#include <sys/socket.h>

#include <cerrno>

namespace agentnic::path {
namespace {

template <typename Ring>
void lay(Ring& ring, std::byte* at, const xdp_ring_offset& offset, std::uint32_t entries) {
  ring.mask = entries - 1;
  ring.size = entries;
  ring.producer = reinterpret_cast<std::uint32_t*>(at + offset.producer);
  ring.consumer = reinterpret_cast<std::uint32_t*>(at + offset.consumer);
  ring.flags = reinterpret_cast<std::uint32_t*>(at + offset.flags);
  ring.ring = at + offset.desc;
  ring.cached_prod = __atomic_load_n(ring.producer, __ATOMIC_ACQUIRE);
  ring.cached_cons = __atomic_load_n(ring.consumer, __ATOMIC_ACQUIRE);
}

}  // namespace

Result<XskRings> XskRings::map(int receiving_fd, int sending_fd, std::uint32_t entries) {
  xdp_mmap_offsets offsets{};
  socklen_t size = sizeof(offsets);
  if (::getsockopt(receiving_fd, SOL_XDP, XDP_MMAP_OFFSETS, &offsets, &size) != 0)
    return fail_errno(errno, "look at the rings of an AF_XDP socket");
  if (size != sizeof(offsets)) return fail(Exit::Unsupported, "AF_XDP without need_wakeup: Linux is too old");
  constexpr const char* kWhat = "map a ring of an AF_XDP socket";
  const auto map = [&](int fd, const xdp_ring_offset& offset, std::size_t entry, std::uint64_t where) {
    return Mapping::map(fd, offset.desc + entries * entry, static_cast<std::int64_t>(where), kWhat);
  };
  XskRings made;
  made.maps_[0] = ANIC_TRY(map(receiving_fd, offsets.fr, sizeof(std::uint64_t), XDP_UMEM_PGOFF_FILL_RING));
  made.maps_[1] =
      ANIC_TRY(map(receiving_fd, offsets.cr, sizeof(std::uint64_t), XDP_UMEM_PGOFF_COMPLETION_RING));
  made.maps_[2] = ANIC_TRY(map(receiving_fd, offsets.rx, sizeof(xdp_desc), XDP_PGOFF_RX_RING));
  made.maps_[3] = ANIC_TRY(map(sending_fd, offsets.tx, sizeof(xdp_desc), XDP_PGOFF_TX_RING));
  lay(made.fill, made.maps_[0].get(), offsets.fr, entries);
  lay(made.completion, made.maps_[1].get(), offsets.cr, entries);
  lay(made.rx, made.maps_[2].get(), offsets.rx, entries);
  lay(made.tx, made.maps_[3].get(), offsets.tx, entries);
  // As libxdp has it: of rings that are produced into, the consumer's position with the length added.
  made.fill.cached_cons += entries;
  made.tx.cached_cons += entries;
  return made;
}

}  // namespace agentnic::path
