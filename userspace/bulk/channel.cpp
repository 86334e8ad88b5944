// SPDX-License-Identifier: Apache-2.0
#include "bulk/channel.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <utility>

#include "base/clock.hpp"
#include "base/stop.hpp"

namespace agentnic::bulk {
namespace {

constexpr int kBusyMs = 3'600'000;          // that a peer may need for a file
constexpr std::size_t kUnprovedMost = 128;  // bytes of a message of a stranger
constexpr std::uint64_t kStopCheckNs = kStopCheckMs * 1'000'000ULL;

}  // namespace

Channel::Channel(path::TcpStream stream, std::string peer, int timeout_ms)
    : stream_(std::move(stream)),
      peer_(std::move(peer)),
      timeout_ms_(timeout_ms),
      trust_by_ns_(monotonic_ns() + static_cast<std::uint64_t>(timeout_ms) * 1'000'000ULL) {
  ::signal(SIGPIPE, SIG_IGN);  // sendfile() and splice() have no MSG_NOSIGNAL
  ::fcntl(stream_.fd(), F_SETFL, ::fcntl(stream_.fd(), F_GETFL) | O_NONBLOCK);
}

void Channel::trust(int timeout_ms) noexcept {
  timeout_ms_ = timeout_ms;
  trust_by_ns_ = 0;
  const int on = 1;
  const int idle_s = std::max(1, timeout_ms / 2000);
  const int every_s = std::max(1, timeout_ms / 8000);
  const int times = 4;
  ::setsockopt(stream_.fd(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
  ::setsockopt(stream_.fd(), IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
  ::setsockopt(stream_.fd(), IPPROTO_TCP, TCP_KEEPINTVL, &every_s, sizeof(every_s));
  ::setsockopt(stream_.fd(), IPPROTO_TCP, TCP_KEEPCNT, &times, sizeof(times));
}

std::unexpected<Error> Channel::gone(const char* doing) const {
  return fail(Exit::Failed, fmt::format("{} {}: the connection is gone", doing, peer_));
}

Status Channel::wait(bool readable, bool writable, int limit_ms) {
  const std::uint64_t end_ns =
      trust_by_ns_ != 0 ? trust_by_ns_ : monotonic_ns() + static_cast<std::uint64_t>(limit_ms) * 1'000'000ULL;
  const auto events = static_cast<short>((readable ? POLLIN : 0) | (writable ? POLLOUT : 0));
  while (true) {
    if (stop_requested()) return fail(Exit::Failed, "stopped");
    const bool is_late = monotonic_ns() > end_ns;
    if (is_late && trust_by_ns_ != 0)  // though it says a little now and then
      return fail(Exit::Failed, fmt::format("wait for {}: no proof for {} ms", peer_, limit_ms));
    pollfd waiting{stream_.fd(), events, 0};
    if (::poll(&waiting, 1, kStopCheckMs) > 0) return {};
    if (is_late) return fail(Exit::Failed, fmt::format("wait for {}: nothing for {} ms", peer_, limit_ms));
  }
}

Status Channel::send_all(std::span<const std::byte> bytes, bool more) {
  while (!bytes.empty()) {
    if (stop_requested()) return fail(Exit::Failed, "stopped");
    const ssize_t sent =
        ::send(stream_.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT | (more ? MSG_MORE : 0));
    if (sent > 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(sent));
    } else if (errno == EAGAIN || errno == EINTR || errno == ENOBUFS) {
      ANIC_TRY(wait(false, true));
    } else {
      return gone("send to");
    }
  }
  return {};
}

Result<std::size_t> Channel::receive_some(std::span<std::byte> bytes) {
  while (true) {
    if (stop_requested()) return fail(Exit::Failed, "stopped");
    const path::Moved got = stream_.receive(bytes);
    if (got.bytes > 0) return got.bytes;
    if (got.state != path::StreamState::Open) return gone("receive from");
    ANIC_TRY(wait(true, false));
  }
}

Status Channel::receive_all(std::span<std::byte> bytes) {
  while (!bytes.empty()) bytes = bytes.subspan(ANIC_TRY(receive_some(bytes)));
  return {};
}

bool Channel::readable() const noexcept {
  pollfd waiting{stream_.fd(), POLLIN, 0};
  return peeked_ || ::poll(&waiting, 1, 0) > 0;
}

Status Channel::send_frame(Kind kind, std::span<const std::byte> payload) {
  if (payload.size() > kPayloadMost)
    return fail(Exit::BadInput,
                fmt::format("what is asked for takes {} bytes, more than a message can have", payload.size()),
                "ask for a folder");
  const auto header = header_bytes({.kind = kind, .length = payload.size()});
  Bytes frame(header.begin(), header.end());
  frame.insert(frame.end(), payload.begin(), payload.end());
  if (ours_) {
    const Mac mac = mac_of(*ours_, sent_++, header, payload);
    frame.insert(frame.end(), mac.begin(), mac.end());
  }
  return send_all(frame);
}

Result<Header> Channel::peek() {
  if (!peeked_) {
    if (trust_by_ns_ == 0 && !readable()) ANIC_TRY(wait(true, false, std::max(timeout_ms_, kBusyMs)));
    ANIC_TRY(receive_all(header_));
    peeked_ = ANIC_TRY(parse_header(header_));
    const bool may_refuse = is_client_ && peeked_->kind == Kind::Refused;
    if (trust_by_ns_ != 0 && peeked_->length > kUnprovedMost && !may_refuse)
      return fail(Exit::BadInput, fmt::format("{} says too much for a stranger", peer_));
    if (peeked_->kind == Kind::Data && !theirs_)
      return fail(Exit::BadInput, fmt::format("{} sends content before it was asked to", peer_));
  }
  return *peeked_;
}

Result<Frame> Channel::receive() {
  const Header header = ANIC_TRY(peek());
  if (header.kind == Kind::Data)
    return fail(Exit::BadInput, fmt::format("{} sends content where none belongs", peer_));
  peeked_.reset();
  Frame frame{.kind = header.kind, .payload = Bytes(header.length)};
  ANIC_TRY(receive_all(frame.payload));
  if (theirs_) {
    Mac mac{};
    ANIC_TRY(receive_all(mac));
    if (!same_mac(mac, mac_of(*theirs_, received_++, header_, frame.payload)))
      return fail(Exit::Failed,
                  fmt::format("a message of {} has a wrong MAC: it was changed on its way", peer_));
  }
  return frame;
}

Result<Bytes> Channel::expect_frame(Kind kind) {
  Frame frame = ANIC_TRY(receive());
  if (frame.kind == kind) return std::move(frame.payload);
  if (frame.kind == Kind::Refused) {
    const Reason reason = ANIC_TRY(decode<Reason>(frame.payload));
    return fail(Exit::Failed, fmt::format("{} refuses: {}", peer_, reason.reason));
  }
  return fail(Exit::BadInput, fmt::format("{} sends message {} where {} belongs", peer_,
                                          static_cast<int>(frame.kind), static_cast<int>(kind)));
}

void Channel::refuse(const std::string& reason) {
  if (owes_content_) return;  // it would be taken for content
  timeout_ms_ = kStopCheckMs;
  if (!send(Kind::Refused, Reason{.reason = reason})) return;
  // With something unread, close() would send a reset, which may overtake the reason.
  stream_.end();
  std::array<std::byte, 4096> rest{};
  const std::uint64_t end_ns = monotonic_ns() + kStopCheckNs;
  while (monotonic_ns() < end_ns && stream_.receive(rest).state == path::StreamState::Open)
    stream_.wait(true, false, kStopCheckNs);
}

Status Channel::begin_data(std::size_t length) {
  owes_content_ = true;
  return send_all(header_bytes({.kind = Kind::Data, .length = length}), true);
}

std::size_t Channel::take_data() noexcept { return std::exchange(peeked_, std::nullopt)->length; }

Status Channel::prove_as_client(const Secret& secret) {
  is_client_ = true;
  const Hello ours = ANIC_TRY(make_hello());
  ANIC_TRY(send(Kind::Hello, ours));
  const Hello theirs = ANIC_TRY(expect<Hello>(Kind::Hello));
  const SessionKeys keys = secret.keys(ours, theirs);
  return prove(keys.client, keys.server);
}

Status Channel::prove_as_server(const Secret& secret) {
  const Hello theirs = ANIC_TRY(expect<Hello>(Kind::Hello));
  const Hello ours = ANIC_TRY(make_hello());
  ANIC_TRY(send(Kind::Hello, ours));
  const SessionKeys keys = secret.keys(theirs, ours);
  return prove(keys.server, keys.client);
}

/// The client goes first: who does not know the secret gets no MAC of the server to guess by.
Status Channel::prove(const MacKey& ours, const MacKey& theirs) {
  if (is_client_) {
    ours_ = ours;
    ANIC_TRY(send_frame(Kind::Proof, {}));
    if (ANIC_TRY(peek()).kind == Kind::Refused) ANIC_TRY(expect_frame(Kind::Proof));  // says why
  }
  theirs_ = theirs;
  const auto proof = expect_frame(Kind::Proof);
  if (!proof) {
    theirs_.reset();
    return fail(Exit::Failed, fmt::format("{} does not know the secret", peer_));
  }
  if (!is_client_) {
    ours_ = ours;
    ANIC_TRY(send_frame(Kind::Proof, {}));
  }
  return {};
}

}  // namespace agentnic::bulk
