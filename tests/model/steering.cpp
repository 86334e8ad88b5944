// SPDX-License-Identifier: Apache-2.0
#include "steering.hpp"

#include <netinet/in.h>

#include <algorithm>
#include <cstring>

#include "model.hpp"

namespace agentnic::model {
namespace {

constexpr std::uint32_t kBuckets = 128;
constexpr std::uint64_t kWait = 100;
constexpr std::uint64_t kTimeNs = 1 << 20;
constexpr std::uint64_t kMargin = 1024;
constexpr std::uint64_t kQueue = 2048;
constexpr std::uint64_t kQuietTicks = 100;

/// A 64-bit word as two 32-bit ones, the lower first.
using Words = std::vector<std::uint32_t>;

void add(Words& words, const std::uint8_t* bytes, std::size_t count) {
  for (std::size_t at = 0; at < count; at += sizeof(std::uint32_t)) {
    std::uint32_t word = 0;
    std::memcpy(&word, bytes + at, sizeof(word));
    words.push_back(word);
  }
}

}  // namespace

void Steering::install(const policy::Policy& policy, const policy::Ids& ids, const anic_state& state,
                       bool tcp_too) {
  tcp_too_ = tcp_too;
  state_ = state;
  spread_.clear();
  const auto add_lanes = [&](const policy::Tenant* tenant, std::uint32_t id) {
    for (const anic_class cls : policy::kClasses)
      spread_[ANIC_LANE(id, static_cast<std::uint32_t>(cls))] = policy.terms(tenant, cls).cpus;
  };
  add_lanes(nullptr, 0);
  for (const policy::Tenant& tenant : policy.tenants) add_lanes(&tenant, ids.tenants.at(tenant.name));
}

/// The key as it is hashed (abi/flow.h), by NH and a multiplication.
std::uint32_t Steering::bucket(const Packet& packet) const {
  const bool has_ports = packet.kind == Kind::Ports;
  const std::uint16_t ports[] = {htons(has_ports ? packet.src_port : std::uint16_t{0}),
                                 htons(has_ports ? packet.dst_port : std::uint16_t{0})};
  std::uint32_t ports_be = 0;
  std::memcpy(&ports_be, ports, sizeof(ports_be));
  constexpr std::uint32_t kIpv6 = 2;
  Words words = {static_cast<std::uint32_t>(packet.protocol) << 24U |
                     static_cast<std::uint32_t>(packet.dscp) << 18U | (packet.is_ipv6 ? kIpv6 : 0),
                 ports_be};
  const std::size_t skipped = packet.is_ipv6 ? 0 : 12;
  add(words, packet.src.data() + skipped, packet.src.size() - skipped);
  add(words, packet.dst.data() + skipped, packet.dst.size() - skipped);
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < words.size(); i += 2) {
    sum += std::uint64_t{words[i] + state_.hash_keys[i]} *
           static_cast<std::uint32_t>(words[i + 1] + state_.hash_keys[i + 1]);
  }
  const std::uint64_t hash = (sum ^ sum >> 32U) * state_.hash_factor;
  return (hash >> 42U) % kBuckets;  // after the 15 bits that choose an entry of the flow cache
}

bool Steering::has_arrived(const Bucket& bucket) const {
  const anic_cpu& cpu = cpus_.at(bucket.cpu - 1);
  const std::uint64_t done = cpu.arrived + cpu.lost;
  return done >= cpu.sent || done >= bucket.number + kMargin;
}

bool Steering::may_move(Bucket& bucket, std::uint64_t now_ns) {
  if (has_arrived(bucket)) {
    ++cpus_[bucket.cpu - 1].moved;
    return true;
  }
  const std::uint64_t now = now_ns / kTimeNs | 1U;
  if (bucket.waits_since == 0) bucket.waits_since = now;
  if (((now - bucket.waits_since) & 0xffffU) <= kWait) return false;
  ++cpus_[bucket.cpu - 1].moved_early;
  return true;
}

std::uint32_t Steering::steer(std::uint32_t lane, const Packet& packet, std::uint32_t here,
                              std::uint64_t now_ns) {
  const auto spread = spread_.find(lane);
  if (spread == spread_.end() || spread->second.empty()) return 0;
  if (packet.fragment != Fragment::None || (packet.protocol == IPPROTO_TCP && !tcp_too_)) return 0;
  const std::uint32_t number = this->bucket(packet);
  unsigned to = spread->second[number % spread->second.size()] + 1U;
  if (to == here + 1) to = 0;
  Bucket& bucket = buckets_[{lane, number}];
  if (bucket.cpu == to || bucket.cpu == 0 || may_move(bucket, now_ns)) {
    bucket.waits_since = 0;
  } else {
    to = bucket.cpu;
  }
  bucket.cpu = to;
  if (to != 0) bucket.number = ++cpus_[to - 1].sent;
  return to;
}

void Steering::arrive() {
  for (auto& [number, cpu] : cpus_) cpu.arrived = cpu.sent;
}

void Steering::tick() {
  for (auto& [number, cpu] : cpus_) {
    const std::uint64_t missing = cpu.sent - cpu.arrived;
    const bool quiet = cpu.sent == cpu.sent_before && cpu.arrived == cpu.arrived_before;
    cpu.quiet = quiet ? std::min<std::uint64_t>(cpu.quiet + 1, kQuietTicks) : 0;
    cpu.sent_before = cpu.sent;
    cpu.arrived_before = cpu.arrived;
    if (cpu.quiet == kQuietTicks) {
      cpu.lost = missing;
    } else {
      const std::uint64_t least = missing > kQueue + kMargin ? missing - kQueue - kMargin : 0;
      cpu.lost = std::min<std::uint64_t>(std::max<std::uint64_t>(cpu.lost, least), missing);
    }
  }
}

}  // namespace agentnic::model
