// SPDX-License-Identifier: Apache-2.0
#include "bulk/rdma_plane.hpp"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <utility>

#include "base/clock.hpp"
#include "base/file.hpp"
#include "base/stop.hpp"

namespace agentnic::bulk {
namespace {

constexpr std::uint64_t kReceive = 1ULL << 32U;  // ids of receives; below it, those of writes and credits

constexpr int kConnectMs = 5000;  // of rdma_cm, each step

Outcome broken(std::uint64_t bytes, std::string why) {
  return {.ending = Ending::Plane, .bytes = bytes, .why = std::move(why)};
}

}  // namespace

Result<std::unique_ptr<RdmaPlane>> RdmaPlane::open(const Channel& channel, const RdmaOptions& options,
                                                   bool receives) {
  const path::Address local = ANIC_TRY(path::Address::of_socket(channel.fd()));
  path::RdmaDevice device = ANIC_TRY(path::RdmaDevice::open(local, options.device));
  // Nobody writes to memory of who sends.
  const unsigned remote = receives ? static_cast<unsigned>(IBV_ACCESS_REMOTE_WRITE) : 0U;
  path::RdmaMemory memory = ANIC_TRY(path::RdmaMemory::open(
      device, static_cast<std::size_t>(options.slots) * options.slot_bytes, IBV_ACCESS_LOCAL_WRITE | remote));
  std::unique_ptr<RdmaPlane> made(new RdmaPlane(std::move(device), std::move(memory), options, receives));
  const auto depth = static_cast<std::uint32_t>(options.slots) + 1;
  made->pair_.emplace(
      ANIC_TRY(path::QueuePair::open(made->device_, remote, {.sends = depth, .receives = 2 * depth})));
  for (std::uint32_t i = 0; i < 2 * depth; ++i) ANIC_TRY(made->pair_->receive(kReceive + i));
  return made;
}

path::RdmaEndpoint RdmaPlane::endpoint() const {
  path::RdmaEndpoint endpoint = pair_->endpoint();
  endpoint.slots = options_.slots;
  endpoint.slot_bytes = options_.slot_bytes;
  if (receives_) {
    endpoint.address = memory_.address();
    endpoint.key = memory_.remote_key();
  }
  return endpoint;
}

Status RdmaPlane::meet(const Channel& channel, const path::RdmaEndpoint& peer) {
  // Both paths use one network, and nobody is led to a third host.
  if (peer.gid != path::gid_of(ANIC_TRY(path::Address::of_peer(channel.fd()))))
    return fail(Exit::BadInput,
                fmt::format("the peer's GID {} is not its address", path::gid_text(peer.gid)));
  if (peer.slots == 0) return fail(Exit::BadInput, "the peer has no memory for RDMA");
  peer_ = peer;
  slots_ = credits_ = std::min(options_.slots, peer.slots);
  slot_bytes_ = std::min(options_.slot_bytes, peer.slot_bytes);
  return {};
}

Status RdmaPlane::connect(const Channel& channel, const path::RdmaEndpoint& peer) {
  ANIC_TRY(meet(channel, peer));
  return pair_->connect(peer);
}

Result<std::uint16_t> RdmaPlane::listen(const Channel& channel) {
  listener_.emplace(ANIC_TRY(path::CmListener::open(ANIC_TRY(path::Address::of_socket(channel.fd())))));
  return listener_->port();
}

Status RdmaPlane::accept(const Channel& channel, const path::RdmaEndpoint& peer, const path::CmToken& token) {
  ANIC_TRY(meet(channel, peer));
  connection_.emplace(ANIC_TRY(listener_->accept(*pair_, peer.queue_pair, token, kConnectMs)));
  listener_.reset();
  return {};
}

Status RdmaPlane::connect_cm(const Channel& channel, const path::RdmaEndpoint& peer, std::uint16_t port,
                             const path::CmToken& token) {
  ANIC_TRY(meet(channel, peer));
  const path::Address local = ANIC_TRY(path::Address::of_socket(channel.fd()));
  const path::Address server = ANIC_TRY(path::Address::of_peer(channel.fd()));
  connection_.emplace(ANIC_TRY(path::CmConnection::connect(local, server.with_port(port), *pair_,
                                                           peer.queue_pair, token, kConnectMs)));
  return {};
}

path::LocalRange RdmaPlane::slot(std::uint32_t number, std::uint32_t bytes) const noexcept {
  return {.at = memory_.bytes().data() + static_cast<std::size_t>(number) * slot_bytes_,
          .bytes = bytes,
          .key = memory_.local_key()};
}

Result<std::optional<std::string>> RdmaPlane::sleep(Channel& channel, std::uint64_t since_ns, bool listens) {
  if (stop_requested()) return fail(Exit::Failed, "stopped");
  if (auto trouble = device_.trouble()) return trouble;
  if (monotonic_ns() - since_ns > static_cast<std::uint64_t>(channel.timeout_ms()) * 1'000'000ULL)
    return std::optional(fmt::format("nothing completed for {} ms", channel.timeout_ms()));
  pollfd waiting[] = {{pair_->event_fd(), POLLIN, 0}, {listens ? channel.fd() : -1, POLLIN, 0}};
  ::poll(waiting, 2, kStopCheckMs);
  pair_->take_events();
  return std::optional<std::string>();
}

Status RdmaPlane::send_one(const Range& range, std::uint64_t at, std::uint32_t bytes, Hasher& hasher) {
  const path::LocalRange from = slot(next_, bytes);
  const std::span<std::byte> content(from.at, bytes);
  if (read_at(range.fd, content, at) != content.size())
    return fail(Exit::BadInput, "it could not be read to its end: it became shorter meanwhile");
  hasher.add(content);
  ANIC_TRY(pair_->write(
      next_, from,
      {.address = peer_.address + static_cast<std::uint64_t>(next_) * slot_bytes_, .key = peer_.key}, next_));
  next_ = (next_ + 1) % slots_;
  --credits_;
  ++under_way_;
  return {};
}

Result<Outcome> RdmaPlane::send(Channel& channel, const Range& range, Hasher& hasher, Meter& meter) {
  Outcome outcome;
  std::uint64_t at = range.from;
  std::uint64_t moved_ns = monotonic_ns();
  bool armed = false;
  while ((at < range.to && outcome.ending == Ending::Whole) || under_way_ > 0) {
    const bool heard = channel.readable();
    if (heard) {
      // What is under way is waited for, unless the peer has given this path up, or is gone.
      const Kind said = ANIC_TRY(channel.peek()).kind;
      if (outcome.ending == Ending::Whole) outcome.ending = Ending::Interrupted;
      if (said == Kind::Fallback) return outcome;
    }
    bool idle = true;
    const auto completed = pair_->poll();
    if (!completed) return broken(outcome.bytes, completed.error().text());
    for (const path::Completion& one : *completed) {
      if (one.status != IBV_WC_SUCCESS) return broken(outcome.bytes, path::completion_text(one));
      if (one.received) {
        credits_ += one.immediate.value_or(0);
        if (credits_ > slots_) return broken(outcome.bytes, "the peer gives back more slots than it has");
        if (const Status again = pair_->receive(one.id); !again)
          return broken(outcome.bytes, again.error().text());
      } else {
        --under_way_;
      }
      idle = false;
    }
    if (at < range.to && outcome.ending == Ending::Whole && credits_ > 0 && under_way_ < slots_) {
      const auto bytes =
          static_cast<std::uint32_t>(meter.piece(std::min<std::uint64_t>(slot_bytes_, range.to - at)));
      ANIC_TRY(meter.pace(bytes));
      if (const Status sent = send_one(range, at, bytes, hasher); !sent) {
        if (sent.error().exit != Exit::BadInput) return broken(outcome.bytes, sent.error().text());
        outcome.ending = Ending::File;
        outcome.why = sent.error().what;
        continue;
      }
      at += bytes;
      outcome.bytes += bytes;
      meter.moved(bytes);
      idle = false;
    }
    if (!idle) {
      moved_ns = monotonic_ns();
      armed = false;
      continue;
    }
    if (!std::exchange(armed, true)) {  // and look once more
      if (const Status arm = pair_->arm(); !arm) return broken(outcome.bytes, arm.error().text());
      continue;
    }
    if (auto why = ANIC_TRY(sleep(channel, moved_ns, !heard))) return broken(outcome.bytes, *why);
    armed = false;
  }
  return outcome;
}

Status RdmaPlane::give_credits() {
  if (owed_ == 0 || under_way_ >= slots_) return {};
  ANIC_TRY(pair_->send(0, {}, std::exchange(owed_, 0U)));
  ++under_way_;
  return {};
}

Result<Outcome> RdmaPlane::receive(Channel& channel, const Range& range, Hasher& hasher, Meter& meter) {
  Outcome outcome;
  const std::uint64_t wanted = range.to - range.from;
  std::uint64_t taken = 0;
  std::uint64_t moved_ns = monotonic_ns();
  bool armed = false;
  while (taken < wanted) {
    const bool heard = channel.readable();  // before the look: what was said came after what was written
    const auto completed = pair_->poll();
    if (!completed) return broken(outcome.bytes, completed.error().text());
    for (const path::Completion& one : *completed) {
      if (one.status != IBV_WC_SUCCESS) return broken(outcome.bytes, path::completion_text(one));
      if (!one.received) {
        --under_way_;
        continue;
      }
      if (one.immediate.value_or(UINT32_MAX) >= slots_ || one.bytes > slot_bytes_ ||
          one.bytes > wanted - taken)
        return broken(outcome.bytes, "the peer writes what it was not asked to");
      // Whoever knows the key could change the slot between a digest and a write.
      const path::LocalRange place = slot(*one.immediate, one.bytes);
      copy_.assign(place.at, place.at + place.bytes);
      const std::span<const std::byte> content(copy_);
      taken += content.size();
      if (outcome.ending != Ending::File) {
        hasher.add(content);
        meter.moved(content.size());
        if (const int code = range.fd < 0 ? 0 : write_at(range.fd, content, range.from + outcome.bytes);
            code != 0) {
          outcome.ending = Ending::File;
          outcome.why = "write: " + std::generic_category().message(code);
        } else {
          outcome.bytes += content.size();
        }
      }
      ++owed_;
      if (const Status again = pair_->receive(one.id); !again)
        return broken(outcome.bytes, again.error().text());
    }
    if (owed_ > slots_ / 2 || completed->empty() || taken == wanted) {  // few messages, and none too late
      if (const Status given = give_credits(); !given) return broken(outcome.bytes, given.error().text());
    }
    if (outcome.ending == Ending::File) return outcome;
    if (!completed->empty()) {
      moved_ns = monotonic_ns();
      armed = false;
      continue;
    }
    // All was acknowledged when End was sent; the device may take a moment more to say so.
    if (heard && ANIC_TRY(channel.peek()).kind != Kind::End) {
      outcome.ending = Ending::Interrupted;
      return outcome;
    }
    if (!std::exchange(armed, true)) {
      if (const Status arm = pair_->arm(); !arm) return broken(outcome.bytes, arm.error().text());
      continue;
    }
    if (auto why = ANIC_TRY(sleep(channel, moved_ns, !heard))) return broken(outcome.bytes, *why);
    armed = false;
  }
  return outcome;
}

}  // namespace agentnic::bulk
