// SPDX-License-Identifier: Apache-2.0
#include "probe/uring.hpp"

#include <fmt/format.h>
#include <liburing.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "base/clock.hpp"
#include "base/unique_fd.hpp"
#include "kern/interface.hpp"
#include "path/mapping.hpp"
#include "path/sockets/address.hpp"
#include "path/sockets/tcp.hpp"
#include "path/uring/buffers.hpp"
#include "path/uring/ring.hpp"

namespace agentnic::probe {
namespace {

constexpr int kWaitMs = 2000;  // for what happens on this machine, if at all
constexpr std::array<std::byte, 128> kBytes = {};
constexpr path::RingOptions kSmall = {.submissions = 16, .completions = 64};

std::string reason(int code) { return std::generic_category().message(code < 0 ? -code : code); }

struct Completion {
  std::int32_t result = 0;
  std::uint32_t flags = 0;
  std::uint64_t offset = 0;  ///< of a ring with large completions: where zero-copy receive put it
};

/// The next so many; fewer when no more come.
std::vector<Completion> wait_for(path::Ring& ring, std::size_t count) {
  const bool is_large = (ring.get()->flags & IORING_SETUP_CQE32) != 0;
  std::vector<Completion> done;
  const std::uint64_t until = monotonic_ns() + std::uint64_t{kWaitMs} * 1'000'000;
  while (done.size() < count && monotonic_ns() < until) {
    ring.submit(path::Wait::Block);
    ring.reap([&](const io_uring_cqe& each) {
      done.push_back({.result = each.res, .flags = each.flags, .offset = is_large ? each.big_cqe[0] : 0});
    });
  }
  return done;
}

/// The first completion that says no, or is not there; empty: `count` came, and none says no.
std::string refusal(const std::vector<Completion>& done, std::size_t count) {
  const auto refused = std::ranges::find_if(done, [](const Completion& each) { return each.result < 0; });
  if (refused != done.end()) return reason(refused->result);
  return done.size() < count ? fmt::format("{} of {} completions came", done.size(), count) : std::string();
}

bool has(std::uint32_t flags, std::uint32_t flag) { return (flags & flag) != 0; }

Result<path::Ring> start(const path::RingOptions& options) {
  path::Ring ring = ANIC_TRY(path::Ring::open(options));
  ANIC_TRY(ring.start());
  return ring;
}

Result<path::TcpListener> listen(Ground& ground) {
  ANIC_TRY(ground.loopback());
  return path::TcpListener::listen(ANIC_TRY(path::Address::parse("127.0.0.1", 0)));
}

Result<path::TcpStream> connect(const path::TcpListener& listener) {
  return path::TcpStream::connect(ANIC_TRY(path::Address::of_socket(listener.fd())));
}

struct Connection {
  path::TcpStream client;
  path::TcpStream server;
};
Result<Connection> new_connection(Ground& ground) {
  path::TcpListener listener = ANIC_TRY(listen(ground));
  path::TcpStream client = ANIC_TRY(connect(listener));
  std::optional<path::TcpStream> server;
  listener.wait(std::uint64_t{kWaitMs} * 1'000'000);
  if (listener.accept(server) != path::Accepted::One)
    return fail(Exit::Failed, "accept a connection: none came");
  return Connection{std::move(client), std::move(*server)};
}

/// Two clients, accepted by one request; the descriptor of the first connection, or why not.
Result<UniqueFd> accept_twice(path::Ring& ring, const path::TcpListener& listener) {
  io_uring_prep_multishot_accept(ring.next(0), listener.fd(), nullptr, nullptr, SOCK_CLOEXEC);
  const auto done = wait_for(ring, 2);
  std::vector<UniqueFd> accepted;
  for (const Completion& each : done) {
    if (each.result >= 0) accepted.emplace_back(each.result);
  }
  std::string why = refusal(done, 2);
  if (why.empty() && !has(done[0].flags, IORING_CQE_F_MORE)) why = "it ended with the first";
  if (!why.empty()) return fail(Exit::Unsupported, "multishot accept: " + why);
  return std::move(accepted.front());
}

/// Memory that is received into without a copy, and the ring in which it is given back.
class ZcrxMemory final {
 public:
  static Result<ZcrxMemory> map() {
    return ZcrxMemory(
        ANIC_TRY(path::Mapping::anonymous(kArea + kRefill, "map memory for zero-copy receive")));
  }

  /// The kernel's answer: 0 or a negative errno; `id` is what receives name it by.
  int add_to(path::Ring& ring, std::uint32_t ifindex, std::uint32_t flags, std::uint32_t* id = nullptr) {
    io_uring_zcrx_area_reg area{};
    area.addr = reinterpret_cast<std::uint64_t>(memory_.get());
    area.len = kArea;
    io_uring_region_desc refill{};
    refill.user_addr = area.addr + kArea;
    refill.size = kRefill;
    refill.flags = IORING_MEM_REGION_TYPE_USER;
    io_uring_zcrx_ifq_reg wanted{};
    wanted.if_idx = ifindex;
    wanted.rq_entries = kEntries;
    wanted.flags = flags;
    wanted.area_ptr = reinterpret_cast<std::uint64_t>(&area);
    wanted.region_ptr = reinterpret_cast<std::uint64_t>(&refill);
    const int code = io_uring_register_ifq(ring.get(), &wanted);
    if (id != nullptr) *id = wanted.zcrx_id;
    return code;
  }
  /// What a completion brought.
  [[nodiscard]] std::span<const std::byte> received(const Completion& done) const {
    const std::uint64_t at = done.offset & ~IORING_ZCRX_AREA_MASK;
    const auto length = static_cast<std::size_t>(std::max(done.result, 0));
    if (at > kArea || length > kArea - at) return {};
    return std::span<const std::byte>(memory_.get(), kArea).subspan(at, length);
  }

 private:
  explicit ZcrxMemory(path::Mapping memory) noexcept : memory_(std::move(memory)) {}
  static constexpr std::uint32_t kEntries = 64;
  static constexpr std::size_t kArea = std::size_t{64} << 12U;
  static constexpr std::size_t kRefill = std::size_t{4} << 12U;  // head, tail and entries
  path::Mapping memory_;
};

constexpr path::RingOptions kLarge = {.submissions = 16, .completions = 64, .large_completions = true};

}  // namespace

Result<Answer> uring(Ground& ground) {
  auto ring = start(kSmall);
  if (!ring) return no(ring.error().text());
  auto buffers = path::ReceiveBuffers::open(*ring, 0, 4, kBytes.size());
  if (!buffers) return no(buffers.error().what);
  const path::TcpListener listener = ANIC_TRY(listen(ground));
  path::TcpStream client = ANIC_TRY(connect(listener));
  const path::TcpStream second = ANIC_TRY(connect(listener));
  const auto connection = accept_twice(*ring, listener);
  if (!connection) return no(connection.error().what);
  io_uring_sqe* entry = ring->next(0);
  io_uring_prep_recv_multishot(entry, connection->get(), nullptr, 0, 0);
  entry->flags |= IOSQE_BUFFER_SELECT;
  entry->buf_group = buffers->group();
  for (int i = 0; i < 2; ++i) {
    client.send(kBytes);
    const auto done = wait_for(*ring, 1);
    std::string why = refusal(done, 1);
    if (why.empty() && !has(done[0].flags, IORING_CQE_F_BUFFER)) why = "it took none of the buffers";
    if (why.empty() && !has(done[0].flags, IORING_CQE_F_MORE)) why = "it ended with the first bytes";
    if (!why.empty()) return no("multishot receive: " + why);
  }
  return yes("accepted two connections by one request, and received twice by another into provided buffers");
}

Result<Answer> uring_bundle(Ground& ground) {
  auto ring = start(kSmall);
  if (!ring) return no(ring.error().what);
  auto buffers = path::BufferRing::open(*ring, 0, 2);
  if (!buffers) return no(buffers.error().what);
  const Connection connection = ANIC_TRY(new_connection(ground));
  auto bytes = kBytes;
  for (std::uint16_t id = 0; id < 2; ++id) buffers->add(bytes, id);
  buffers->publish();
  io_uring_sqe* entry = ring->next(0);
  io_uring_prep_send_bundle(entry, connection.server.fd(), 0, 0);
  entry->flags |= IOSQE_BUFFER_SELECT;
  entry->buf_group = buffers->group();
  const auto done = wait_for(*ring, 1);
  if (const std::string why = refusal(done, 1); !why.empty()) return no("send two buffers at once: " + why);
  if (done[0].result != static_cast<int>(2 * bytes.size()))
    return no(fmt::format("sent {} bytes of two buffers of {}", done[0].result, bytes.size()));
  return yes("sent two buffers at once");
}

Result<Answer> uring_send_zerocopy(Ground& ground) {
  auto ring = start(kSmall);
  if (!ring) return no(ring.error().what);
  const Connection connection = ANIC_TRY(new_connection(ground));
  io_uring_prep_send_zc(ring->next(0), connection.server.fd(), kBytes.data(), kBytes.size(), 0,
                        IORING_SEND_ZC_REPORT_USAGE);
  // One completion for what was sent, and one when its memory is free again, whose result is a set of flags.
  auto done = wait_for(*ring, 1);
  const std::string why = refusal({done.begin(), done.begin() + (done.empty() ? 0 : 1)}, 1);
  if (!why.empty()) return no("send without a copy: " + why);
  if (done.size() < 2) std::ranges::copy(wait_for(*ring, 1), std::back_inserter(done));
  if (done.size() < 2 || !has(done[1].flags, IORING_CQE_F_NOTIF))
    return no("send without a copy: no word came of the memory");
  const bool copied = has(static_cast<std::uint32_t>(done[1].result), IORING_NOTIF_USAGE_ZC_COPIED);
  return yes(copied ? "sent, and was told that it was copied, as it is between sockets of one machine"
                    : "sent, and was told when the memory was free again");
}

Result<Answer> uring_busy_poll(Ground& /*ground*/) {
  path::RingOptions options = kSmall;
  options.busy_poll = {.us = 50};
  const auto ring = path::Ring::open(options);
  return ring ? yes("turned it on for a ring") : no(ring.error().what);
}

Result<Answer> zcrx(Ground& ground) {
  constexpr std::uint32_t kNobody = 0x7fffffff;
  ZcrxMemory memory = ANIC_TRY(ZcrxMemory::map());
  auto ring = start(kLarge);
  if (!ring) return no(ring.error().what);
  // A kernel that has it looks for the interface, and says that it is not there.
  if (const int code = memory.add_to(*ring, kNobody, 0); code != -ENODEV)
    return no("register a receive queue: " + reason(code));
  const kern::Interface veth = ANIC_TRY(ground.new_veth());
  const int code = memory.add_to(*ring, veth.ifindex, 0);
  if (code == 0) return yes("registered the receive queue of a veth");
  return yes(fmt::format("this kernel has it; the driver of a veth has not: {}", reason(code)));
}

Result<Answer> zcrx_without_device(Ground& ground) {
  ZcrxMemory memory = ANIC_TRY(ZcrxMemory::map());
  auto ring = start(kLarge);
  if (!ring) return no(ring.error().what);
  std::uint32_t id = 0;
  if (const int code = memory.add_to(*ring, 0, ZCRX_REG_NODEV, &id); code != 0)
    return no("register memory without a device: " + reason(code));
  Connection connection = ANIC_TRY(new_connection(ground));
  auto sent = kBytes;
  sent.fill(std::byte{0x5a});
  connection.client.send(sent);
  io_uring_sqe* entry = ring->next(0);
  io_uring_prep_rw(IORING_OP_RECV_ZC, entry, connection.server.fd(), nullptr, 0, 0);
  entry->ioprio |= IORING_RECV_MULTISHOT;
  entry->zcrx_ifq_idx = id;
  const auto done = wait_for(*ring, 1);
  if (const std::string why = refusal(done, 1); !why.empty())
    return no("receive into memory without a device: " + why);
  if (!std::ranges::equal(memory.received(done[0]), sent))
    return no("what was received into memory without a device is not what was sent");
  return yes(fmt::format("received {} bytes into memory that was registered", sent.size()));
}

}  // namespace agentnic::probe
