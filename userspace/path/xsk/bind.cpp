// SPDX-License-Identifier: Apache-2.0
//
// Sockets as the kernel's own documentation makes them (Documentation/networking/af_xdp.rst): libxdp would
// keep their descriptors to itself.

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if_ether.h>
#include <linux/if_xdp.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "path/mapping.hpp"
#include "path/sockets/options.hpp"
#include "path/xsk/grant.hpp"

// Of headers that are older than the kernels that this runs on.
#ifndef XDP_USE_SG
#define XDP_USE_SG (1 << 4)
#endif
#ifndef SO_PREFER_BUSY_POLL
#define SO_PREFER_BUSY_POLL 69
#define SO_BUSY_POLL_BUDGET 70
#endif

namespace agentnic::path {
namespace {

constexpr int kBusyPauseMs = 10;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

std::size_t area_bytes(const XskShape& shape) { return std::size_t{shape.frames} * shape.frame_bytes; }

/// Of a size that nobody can change: the kernel writes where it was.
Result<UniqueFd> make_memory(const XskShape& shape, bool& huge) {
  const std::size_t bytes = area_bytes(shape);
  constexpr unsigned kFlags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  for (const bool try_huge : {true, false}) {
    if (try_huge && bytes % kHugePage != 0) continue;
    UniqueFd fd(::memfd_create("agentnic-umem", try_huge ? kFlags | MFD_HUGETLB : kFlags));
    if (!fd || ::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
      if (try_huge) continue;
      return fail_errno(errno, fmt::format("make {} bytes of memory for frames", bytes));
    }
    // Whether there are huge pages is known when they are reserved.
    void* at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    if (at == MAP_FAILED) {
      if (try_huge) continue;
      return fail_errno(errno, fmt::format("map {} bytes of memory for frames", bytes));
    }
    ::munmap(at, bytes);
    if (::fcntl(fd.get(), F_ADD_SEALS, kSeals) != 0) return fail_errno(errno, "seal the memory of frames");
    huge = try_huge;
    return fd;
  }
  return fail(Exit::Failed, "make memory for frames");
}

Status set(int fd, int level, int option, const void* value, socklen_t size, const std::string& what) {
  if (::setsockopt(fd, level, option, value, size) != 0) return fail_errno(errno, what);
  return {};
}

/// With rings, and with the memory for the first of all: the others share its own. Busy polling is asked for
/// of each one; older kernels know only from what a socket receives which device to poll, so that one that
/// sends does not, unless it is zero-copy.
Result<UniqueFd> make_socket(const XskShape& shape, std::initializer_list<int> rings, const Mapping* memory) {
  constexpr const char* kWhat = "make an AF_XDP socket";
  UniqueFd fd(::socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno(errno, kWhat, errno == EPERM ? "this takes CAP_NET_RAW: run as root" : "");
  if (memory != nullptr) {
    xdp_umem_reg area{};
    area.addr = reinterpret_cast<std::uintptr_t>(memory->get());
    area.len = memory->size();
    area.chunk_size = shape.frame_bytes;
    ANIC_TRY(set(fd.get(), SOL_XDP, XDP_UMEM_REG, &area, sizeof(area),
                 fmt::format("give the kernel {} bytes of memory for frames", area.len)));
  }
  for (const int ring : rings)
    ANIC_TRY(set(fd.get(), SOL_XDP, ring, &shape.frames, sizeof(shape.frames), kWhat));
  ANIC_TRY(set_busy_poll(
      fd.get(), {.us = shape.busy_poll_us, .budget = static_cast<std::uint16_t>(shape.busy_budget)}));
  return fd;
}

/// Before the bind: a zero-copy driver takes its first buffers there.
Result<XskRings> fill(const XskQueueGrant& one, const XskShape& shape, std::size_t number,
                      std::size_t count) {
  XskRings rings = ANIC_TRY(XskRings::map(one.socket.get(), one.transmit.get(), shape.frames));
  const std::uint32_t level = xsk_fill_level(shape, count);
  std::uint32_t index = 0;
  xsk_ring_prod__reserve(&rings.fill, level, &index);
  for (std::uint32_t i = 0; i < level; ++i)
    *xsk_ring_prod__fill_addr(&rings.fill, index + i) =
        (std::uint64_t{number} * level + i) * shape.frame_bytes;
  xsk_ring_prod__submit(&rings.fill, level);
  return rings;
}

std::uint16_t flags_of(const XskShape& shape) {
  std::uint16_t flags = XDP_USE_NEED_WAKEUP;
  if (shape.bind == XskBind::Copy) flags |= XDP_COPY;
  if (shape.bind == XskBind::ZeroCopy) flags |= XDP_ZEROCOPY;
  if (shape.multi_buffer) flags |= XDP_USE_SG;
  return flags;
}

std::unexpected<Error> refused(const XskBindOptions& options, std::uint32_t queue, int code) {
  const std::string what = fmt::format("bind an AF_XDP socket to queue {} of {}", queue, options.ifname);
  if (code == EBUSY) return fail_errno(code, what, "another AF_XDP socket owns this queue");
  if (code == EINVAL && options.shape.multi_buffer)
    return fail(Exit::Unsupported, what + ": packets of several frames were refused",
                "they take Linux 6.6, and a queue that is there");
  if (code == EINVAL) return fail_errno(code, what, "is there such a queue?");
  if (code == ENODEV || code == ENETDOWN) return fail_errno(code, what, "is the interface there, and up?");
  if (options.shape.bind == XskBind::ZeroCopy && code != EPERM)
    return fail(Exit::Unsupported,
                fmt::format("{}: zero-copy was refused: {}", what, std::generic_category().message(code)),
                "--bind copy");
  return fail_errno(code, what);
}

/// The memory is that of the socket `shared_fd`, unless that is -1. 0, or errno.
int bind_at(int fd, int shared_fd, const XskShape& shape, std::uint32_t ifindex, std::uint32_t queue) {
  sockaddr_xdp address{};
  address.sxdp_family = AF_XDP;
  address.sxdp_ifindex = ifindex;
  address.sxdp_queue_id = queue;
  address.sxdp_flags = shared_fd < 0 ? flags_of(shape) : std::uint16_t{XDP_SHARED_UMEM};
  address.sxdp_shared_umem_fd = shared_fd < 0 ? 0 : static_cast<std::uint32_t>(shared_fd);
  return ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ? 0 : errno;
}

/// Of those queues that are left, the first that nobody has.
Result<std::uint32_t> bind_to_one(int fd, int shared_fd, const XskBindOptions& options, std::uint32_t ifindex,
                                  std::vector<std::uint32_t>& left) {
  for (int tries = 0;; ++tries) {
    for (auto queue = left.begin(); queue != left.end(); ++queue) {
      const int code = bind_at(fd, shared_fd, options.shape, ifindex, *queue);
      if (code == 0) {
        const std::uint32_t found = *queue;
        left.erase(queue);
        return found;
      }
      if (code != EBUSY) return refused(options, *queue, code);
    }
    if (tries * kBusyPauseMs >= options.patience_ms || left.empty())
      return refused(options, left.empty() ? 0 : left.front(), EBUSY);
    std::this_thread::sleep_for(std::chrono::milliseconds(kBusyPauseMs));
  }
}

/// Of such a shape with as many frames as the queues need.
std::uint32_t enough_frames(XskShape shape, std::size_t queues) {
  while (xsk_fill_level(shape, queues) < kXskReceivingMin) shape.frames *= 2;
  return shape.frames;
}

/// An AF_XDP socket does not say.
std::uint32_t mtu_of(const std::string& ifname) {
  const UniqueFd any(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::memcpy(request.ifr_name, ifname.data(), std::min(ifname.size(), sizeof(request.ifr_name) - 1));
  return any && ::ioctl(any.get(), SIOCGIFMTU, &request) == 0 ? static_cast<std::uint32_t>(request.ifr_mtu)
                                                              : ETH_DATA_LEN;
}

}  // namespace

Status check_shape(const XskShape& shape, std::size_t queues) {
  if (queues == 0 || queues > kXskQueuesMax)
    return fail(Exit::BadInput, fmt::format("{} queues: 1 to {} are possible", queues, kXskQueuesMax));
  if (!std::has_single_bit(shape.frames) || shape.frames < kXskFramesMin || shape.frames > kXskFramesMax)
    return fail(Exit::BadInput, fmt::format("{} frames: powers of two from {} to {} are possible",
                                            shape.frames, kXskFramesMin, kXskFramesMax));
  if (xsk_fill_level(shape, queues) < kXskReceivingMin)
    return fail(Exit::BadInput, fmt::format("{} frames are too few for {} queues", shape.frames, queues),
                fmt::format("{} are enough", enough_frames(shape, queues)));
  if (shape.frame_bytes != 2048 && shape.frame_bytes != 4096)
    return fail(Exit::BadInput,
                fmt::format("frames of {} bytes: 2048 and 4096 are possible", shape.frame_bytes));
  if (shape.bind > XskBind::ZeroCopy) return fail(Exit::BadInput, "no such way to bind");
  if (shape.busy_poll_us > 1'000'000 || shape.busy_budget == 0 || shape.busy_budget > 1024)
    return fail(Exit::BadInput, "busy polling: at most a second, and 1 to 1024 packets at a time");
  return {};
}

Result<XskGrant> bind_xsk(const XskBindOptions& options) {
  ANIC_TRY(check_shape(options.shape, options.count));
  std::vector<std::uint32_t> left = options.queues;
  if (left.size() < options.count)
    return fail(Exit::BadInput,
                fmt::format("{} of {} queues of {}", options.count, left.size(), options.ifname));
  XskGrant made;
  made.ifname = options.ifname;
  made.ifindex = ::if_nametoindex(options.ifname.c_str());
  if (made.ifindex == 0) return fail(Exit::BadInput, fmt::format("there is no interface {}", options.ifname));
  made.shape = options.shape;
  made.memory = ANIC_TRY(make_memory(options.shape, made.huge_pages));
  const Mapping memory =
      ANIC_TRY(Mapping::map(made.memory.get(), area_bytes(options.shape), 0, "map the memory of frames"));
  for (std::size_t number = 0; number < options.count; ++number) {
    XskQueueGrant one;
    one.socket =
        ANIC_TRY(make_socket(options.shape, {XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_RX_RING},
                             number == 0 ? &memory : nullptr));
    one.transmit = ANIC_TRY(make_socket(options.shape, {XDP_TX_RING}, nullptr));
    one.rings = ANIC_TRY(fill(one, options.shape, number, options.count));
    const int shared_fd = number == 0 ? -1 : made.queues.front().socket.get();
    one.queue = ANIC_TRY(bind_to_one(one.socket.get(), shared_fd, options, made.ifindex, left));
    const int code = bind_at(one.transmit.get(), one.socket.get(), options.shape, made.ifindex, one.queue);
    if (code != 0)
      return fail_errno(code, fmt::format("bind the AF_XDP socket that sends to queue {} of {}", one.queue,
                                          options.ifname));
    xdp_options obtained{};
    socklen_t size = sizeof(obtained);
    if (::getsockopt(one.socket.get(), SOL_XDP, XDP_OPTIONS, &obtained, &size) == 0)
      one.zero_copy = (obtained.flags & XDP_OPTIONS_ZEROCOPY) != 0;
    made.queues.push_back(std::move(one));
  }
  made.mtu = mtu_of(options.ifname);
  return made;
}

Status can_hand_over() {
  const auto made =
      bind_xsk({.ifname = "lo", .queues = {0}, .shape = {.frames = kXskFramesMin, .bind = XskBind::Copy}});
  if (!made && made.error().exit == Exit::Unsupported) return fail(made.error());
  if (!made) return {};  // somebody else has that queue, say: nothing is found out here
  const XskQueueGrant& one = made->queues.front();
  const auto again = XskRings::map(one.socket.get(), one.transmit.get(), made->shape.frames);
  if (again) return {};
  return fail(Exit::Unsupported,
              "hand AF_XDP sockets over: this kernel lets nobody map the rings of a bound one",
              "it takes Linux 6.4");
}

}  // namespace agentnic::path
