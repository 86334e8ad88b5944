// SPDX-License-Identifier: Apache-2.0
#include "probe/sockets.hpp"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sched.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/unique_fd.hpp"
#include "kern/hook.hpp"
#include "kern/napi_device.hpp"
#include "kern/reuseport.hpp"
#include "path/sockets/address.hpp"
#include "path/sockets/options.hpp"
#include "path/sockets/poller.hpp"
#include "path/sockets/udp.hpp"
#include "path/sockets/udp_batch.hpp"

namespace agentnic::probe {
namespace {

constexpr const char* kLocalhost = "127.0.0.1";
constexpr std::uint64_t kArrivalNs = 2'000'000'000;  // on this machine, if at all
constexpr path::BusyPoll kBusyPoll = {.us = 50};

/// Keeps the calling thread on the CPU that it is on.
class Stay final {
 public:
  static Result<Stay> here() {
    Stay made;
    cpu_set_t one;
    CPU_ZERO(&one);
    made.cpu_ = ::sched_getcpu();
    if (made.cpu_ < 0 || ::sched_getaffinity(0, sizeof(made.before_), &made.before_) != 0)
      return fail_errno(errno, "ask which CPU this is");
    CPU_SET(made.cpu_, &one);
    if (::sched_setaffinity(0, sizeof(one), &one) != 0) return fail_errno(errno, "stay on a CPU");
    made.stays_ = true;
    return made;
  }
  Stay(Stay&& other) noexcept
      : before_(other.before_), cpu_(other.cpu_), stays_(std::exchange(other.stays_, false)) {}
  Stay& operator=(Stay&&) = delete;
  Stay(const Stay&) = delete;
  Stay& operator=(const Stay&) = delete;
  ~Stay() {
    if (stays_) ::sched_setaffinity(0, sizeof(before_), &before_);
  }
  [[nodiscard]] int cpu() const noexcept { return cpu_; }

 private:
  Stay() = default;
  cpu_set_t before_{};
  int cpu_ = -1;
  bool stays_ = false;
};

/// A datagram that comes within a moment.
bool takes_one(path::UdpSocket& socket) {
  std::byte datagram[16];
  socket.wait_readable(kArrivalNs);
  return socket.receive(datagram, path::Wait::Spin).has_value();
}

/// A NAPI that polls: that of a veth with native XDP. The interface goes with the Ground.
struct PolledVeth {
  kern::Attachment attachment;
  std::uint32_t ifindex = 0;
};
Result<PolledVeth> new_polled_veth(Ground& ground) {
  const kern::Object& object = *ANIC_TRY(ground.object());
  const kern::Interface interface = ANIC_TRY(ground.new_veth());
  return PolledVeth{.attachment = ANIC_TRY(kern::attach_alone(object, interface, ANIC_MODE_NATIVE)),
                    .ifindex = interface.ifindex};
}

Result<Answer> set_on_veth(Ground& ground, anic_napi_setting setting, std::uint64_t value, const char* done) {
  const PolledVeth veth = ANIC_TRY(new_polled_veth(ground));
  policy::Napi wanted;
  wanted[setting] = value;
  if (const Status has = kern::need_napi(wanted, "set a NAPI"); !has) return no(has.error().what);
  const auto device = kern::open_napi_device(veth.ifindex);
  const auto napis = device->read();
  if (!napis) return no(napis.error().what);
  if (napis->empty()) return no("the NAPIs of a veth with native XDP are not listed");
  if (const Status set = device->set(napis->front().id, wanted); !set) return no(set.error().what);
  return yes(done);
}

}  // namespace

/// Datagrams of many flows, sent on one CPU, all come to the socket of that CPU.
Result<Answer> reuseport_program(Ground& ground) {
  constexpr std::size_t kFlows = 16;
  ANIC_TRY(ground.loopback());
  auto group = kern::ReuseportGroup::open();
  if (!group) return no(group.error().what);
  const path::SocketOptions shared{.reuse_port = true};
  const auto other = ANIC_TRY(path::UdpSocket::bind(ANIC_TRY(path::Address::parse(kLocalhost, 0)), shared));
  const path::Address port = ANIC_TRY(path::Address::of_socket(other.fd()));
  auto chosen = ANIC_TRY(path::UdpSocket::bind(port, shared));
  const Stay stay = ANIC_TRY(Stay::here());
  if (const Status added = group->add(chosen.fd(), stay.cpu()); !added) return no(added.error().what);
  std::size_t came = 0;
  for (std::size_t i = 0; i < kFlows; ++i) {
    auto sender = ANIC_TRY(path::UdpSocket::connect(port));
    if (!sender.send(std::array{std::byte{1}})) return fail_errno(errno, "send a datagram");
    if (!takes_one(chosen)) break;
    ++came;
  }
  if (came != kFlows) return no("a program was attached, but a datagram came to another socket of its port");
  return yes(fmt::format("one of two sockets was chosen by its CPU, for {} flows", kFlows));
}

Result<Answer> socket_busy_poll(Ground& /*ground*/) {
  const UniqueFd socket_fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket_fd) return fail_errno(errno, "open a UDP socket");
  const Status set = path::set_busy_poll(socket_fd.get(), kBusyPoll);
  return set ? yes("turned it on for a socket") : no(set.error().what);
}

Result<Answer> epoll_busy_poll(Ground& /*ground*/) {
  const auto poller = path::Poller::open(kBusyPoll);
  return poller ? yes("turned it on for an epoll instance") : no(poller.error().what);
}

/// Three datagrams that leave in one call and come in one message.
Result<Answer> joined_datagrams(Ground& ground) {
  constexpr int kEach = 100;
  constexpr std::size_t kCount = 3;
  ANIC_TRY(ground.loopback());
  const auto receiver = ANIC_TRY(path::UdpSocket::bind(ANIC_TRY(path::Address::parse(kLocalhost, 0))));
  auto sender = ANIC_TRY(path::UdpSocket::connect(ANIC_TRY(path::Address::of_socket(receiver.fd()))));
  if (const Status joined = path::join_datagrams(receiver); !joined) return no(joined.error().what);
  if (::setsockopt(sender.fd(), SOL_UDP, UDP_SEGMENT, &kEach, sizeof(kEach)) != 0)
    return no("have datagrams split (UDP_SEGMENT): " + std::generic_category().message(errno));
  if (!sender.send(std::array<std::byte, kCount * kEach>{}))
    return no("send three datagrams in one call: " + std::generic_category().message(errno));
  receiver.wait_readable(kArrivalNs);
  path::UdpBatch batch(kCount, 65536);
  const std::size_t messages = batch.receive(receiver, path::Wait::Spin);
  if (messages == 0) return no("three datagrams were sent in one call, and did not come");
  const path::UdpBatch::Message first = batch.message(0);
  if (first.bytes.size() != kCount * kEach || first.segment != kEach)
    return no(fmt::format("three datagrams were sent in one call, and came as {} messages", messages));
  return yes("three datagrams were sent in one call, and came in one message");
}

Result<Answer> napi_settings(Ground& ground) {
  return set_on_veth(ground, ANIC_NAPI_IRQ_SUSPEND_TIMEOUT, 20'000'000,
                     "set the time of IRQ suspension of a NAPI of a veth");
}

Result<Answer> napi_threaded(Ground& ground) {
  return set_on_veth(ground, ANIC_NAPI_THREADED, 1, "gave a NAPI of a veth a thread");
}

}  // namespace agentnic::probe
