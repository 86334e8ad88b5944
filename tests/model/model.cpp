// SPDX-License-Identifier: Apache-2.0
#include "model.hpp"

#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

namespace agentnic::model {
namespace {

using policy::Policy;
using policy::Service;
using policy::Tenant;

constexpr std::uint16_t kRocePort = 4791;

bool covers(const anic_prefix& prefix, const Address& address) {
  Address bytes{};
  std::memcpy(bytes.data(), prefix.address_be, bytes.size());
  std::size_t length = prefix.length;
  if (const Address mark = {0, 0, 0xff, 0xff}; length >= 32 && std::equal(&mark[0], &mark[4], &bytes[0])) {
    Address mapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};  // as the packet has it
    std::copy_n(&bytes[4], 4, &mapped[12]);
    bytes = mapped;
    length += 64;
  }
  for (std::size_t bit = 0; bit < length; ++bit) {
    if (((bytes[bit / 8] ^ address[bit / 8]) >> (7 - bit % 8) & 1) != 0) return false;
  }
  return true;
}

/// Whose is the longest prefix that covers the address; nullptr: nobody's.
const Tenant* longest(const Policy& policy, std::vector<anic_prefix> Tenant::* list, const Address& address) {
  const Tenant* owner = nullptr;
  std::uint32_t length = 0;
  for (const Tenant& tenant : policy.tenants) {
    for (const anic_prefix& prefix : tenant.*list) {
      if (!covers(prefix, address) || (owner != nullptr && prefix.length <= length)) continue;
      owner = &tenant;
      length = prefix.length;
    }
  }
  return owner;
}

/// What the network or the host cannot do without, listed or not.
bool is_control(const Packet& packet) {
  if (packet.kind == Kind::Arp) return true;
  if (packet.kind != Kind::Icmp) return false;
  const std::uint8_t type = packet.icmp_type;
  if (packet.is_ipv6) return (type >= 1 && type <= 4) || (type >= 133 && type <= 137);
  return type == 3 || type == 11 || type == 12;
}

/// Whether a Service or ControlPort has this port of this protocol at this end.
template <typename Port>
bool has_end(const Port& port, std::uint8_t protocol, std::uint16_t number, anic_role end) {
  return port.protocol == protocol && port.port == number && (port.role & end) != 0;
}

/// Adds what was counted in a lane, and empties it.
void move_into(anic_lane_count& sum, anic_lane_count& lane) {
  sum.seen += lane.seen;
  for (std::size_t reason = 0; reason < ANIC_REASONS; ++reason) {
    sum.by_reason[reason].packets += lane.by_reason[reason].packets;
    sum.by_reason[reason].bytes += lane.by_reason[reason].bytes;
  }
  lane = {};
}

anic_direction direction(Hook hook) { return hook == Hook::TcOut ? ANIC_DIRECTION_OUT : ANIC_DIRECTION_IN; }

}  // namespace

/// What the policy makes of a packet.
struct Model::Match {
  anic_reason reason = ANIC_REASON_NONE;
  const Tenant* tenant = nullptr;
  anic_class cls = ANIC_CLASS_DEFAULT;
  const Service* service = nullptr;
  Fragment fragment = Fragment::None;
  std::optional<Packet> packet = std::nullopt;
  bool has_quota = false;
};

void Model::install(const Policy& policy, const policy::Ids& ids, const anic_state& state,
                    std::uint64_t now_ns, std::set<std::uint32_t> kept_on_kernel, bool paced, bool tcp_too) {
  clear_fresh(ids);
  policy_ = policy;
  ids_ = ids;
  kept_on_kernel_ = std::move(kept_on_kernel);
  paced_ = paced;
  steers_ = policy.steers();
  for (Shares& shares : shares_) shares.install(policy, ids, now_ns);
  steering_.install(policy, ids, state, tcp_too);
}

void Model::tick(std::uint64_t now_ns) {
  for (Shares& shares : shares_) shares.share_out(now_ns);
  if (steers_) steering_.tick();
}

/// Names that were not there before begin with empty counters; what their lanes had is that of tenants gone.
void Model::clear_fresh(const policy::Ids& ids) {
  for (const auto& [name, id] : ids.tenants) {
    if (ids_.tenants.contains(name)) continue;
    for (std::size_t way = 0; way < ANIC_DIRECTION__MAX; ++way) {
      for (std::uint32_t cls = 0; cls < ANIC_CLASS__MAX; ++cls) {
        anic_lane_count& lane = counters_->lanes[way][ANIC_LANE(id, cls)];
        move_into(counters_->gone[way], lane);
      }
    }
  }
  for (const auto& [name, id] : ids.services) {
    if (ids_.services.contains(name)) continue;
    for (auto& services : counters_->services) services[id] = {};
  }
}

std::uint32_t Model::lane(const Tenant* tenant, anic_class cls) const {
  const std::uint32_t id = tenant != nullptr ? ids_.tenants.at(tenant->name) : 0;
  return ANIC_LANE(id, static_cast<std::uint32_t>(cls));
}

const Tenant* Model::sender(std::uint32_t mark) const {
  for (const Tenant& tenant : policy_.tenants) {
    if (std::ranges::find(tenant.marks, mark) != tenant.marks.end()) return &tenant;
  }
  return nullptr;
}

bool Model::is_control_port(const Packet& packet, bool local_is_dst) const {
  const std::uint16_t local = local_is_dst ? packet.dst_port : packet.src_port;
  const std::uint16_t remote = local_is_dst ? packet.src_port : packet.dst_port;
  const auto names = [&](const policy::ControlPort& port) {
    return has_end(port, packet.protocol, local, ANIC_ROLE_SERVER) ||
           has_end(port, packet.protocol, remote, ANIC_ROLE_CLIENT);
  };
  return std::ranges::any_of(policy_.control, names) || std::ranges::any_of(policy_.management, names);
}

const Service* Model::service(const Packet& packet, bool local_is_dst, const Tenant* tenant) const {
  const std::uint16_t local = local_is_dst ? packet.dst_port : packet.src_port;
  const std::uint16_t remote = local_is_dst ? packet.src_port : packet.dst_port;
  const auto find = [&](const std::string& owner, std::uint16_t port, anic_role end) -> const Service* {
    for (const Service& service : policy_.services) {
      if (service.tenant == owner && has_end(service, packet.protocol, port, end)) return &service;
    }
    return nullptr;
  };
  const Service* found = nullptr;
  if (tenant != nullptr) {
    found = find(tenant->name, local, ANIC_ROLE_SERVER);
    if (found == nullptr) found = find(tenant->name, remote, ANIC_ROLE_CLIENT);
  }
  if (found == nullptr) found = find("", local, ANIC_ROLE_SERVER);
  if (found == nullptr) found = find("", remote, ANIC_ROLE_CLIENT);
  return found;
}

/// docs/policy.md, "The order of matching", of an IP packet.
Model::Match Model::match_ip(const Arrival& arrival, const Packet& packet) const {
  const bool incoming = arrival.hook != Hook::TcOut;
  const bool local_is_dst = incoming != policy_.faces_workload;
  const bool later = packet.fragment == Fragment::Later;
  const bool has_ports = packet.kind == Kind::Ports && !later;
  if (has_ports && is_control_port(packet, local_is_dst)) {
    return {.reason = ANIC_REASON_PASS_CONTROL, .cls = ANIC_CLASS_CONTROL};
  }

  Match match{.fragment = packet.fragment, .has_quota = true};
  if (!incoming) match.tenant = sender(arrival.mark);
  if (match.tenant == nullptr)
    match.tenant = longest(policy_, &Tenant::locals, local_is_dst ? packet.dst : packet.src);
  if (match.tenant == nullptr)
    match.tenant = longest(policy_, &Tenant::remotes, local_is_dst ? packet.src : packet.dst);

  if (has_ports && packet.protocol == IPPROTO_UDP && packet.dst_port == kRocePort) {
    match.reason = ANIC_REASON_PASS_ROCE;
    match.cls = ANIC_CLASS_BULK;
    return match;
  }
  if (has_ports) match.service = service(packet, local_is_dst, match.tenant);
  if (match.service != nullptr) {
    match.reason = ANIC_REASON_PASS_SERVICE;
    match.cls = match.service->cls;
    return match;
  }
  const auto rule = std::ranges::find(policy_.dscp, packet.dscp, &policy::DscpRule::value);
  if (!later && rule != policy_.dscp.end()) {
    match.reason = ANIC_REASON_PASS_DSCP;
    match.cls = rule->cls;
    return match;
  }
  match.reason = later ? ANIC_REASON_PASS_FRAGMENT : ANIC_REASON_PASS_DEFAULT;
  match.cls = match.tenant != nullptr ? match.tenant->default_class : ANIC_CLASS_DEFAULT;
  return match;
}

Model::Match Model::match(const Arrival& arrival) const {
  const std::optional<Packet> packet = parse(arrival.frame);
  if (!packet) return {.reason = ANIC_REASON_PASS_UNPARSED};
  if (is_control(*packet)) return {.reason = ANIC_REASON_PASS_CONTROL, .cls = ANIC_CLASS_CONTROL};
  if (!packet->is_ip) return {.reason = ANIC_REASON_PASS_DEFAULT};  // nobody's: it has no addresses
  Match match = match_ip(arrival, *packet);
  match.packet = packet;
  return match;
}

/// Path B is for what comes in; what keeps a packet of an xsk service from it is its reason.
Outcome Model::decide(const Arrival& arrival, const Match& match) const {
  Outcome outcome{.reason = match.reason, .lane = lane(match.tenant, match.cls)};
  if (match.service == nullptr) return outcome;
  outcome.service = ids_.services.at(match.service->name);
  if (match.service->path != ANIC_PATH_XSK || arrival.hook == Hook::TcOut) return outcome;
  if (match.fragment != Fragment::None) {
    outcome.reason = ANIC_REASON_PASS_FRAGMENT;
  } else if (kept_on_kernel_.contains(outcome.lane)) {
    outcome.reason = ANIC_REASON_PASS_LANE;
  } else if (arrival.hook == Hook::TcIn) {
    outcome.reason = ANIC_REASON_PASS_NO_XDP;
  } else {  // to its owner, of whom there is none
    outcome.reason =
        arrival.frame.size() > ANIC_XSK_FRAME_MAX ? ANIC_REASON_PASS_TOO_LONG : ANIC_REASON_PASS_NO_SOCKET;
    outcome.xsk = true;
  }
  return outcome;
}

/// Charges it to its lane.
void Model::charge(const Arrival& arrival, Outcome& outcome) {
  const std::uint64_t wire = std::max<std::uint64_t>(arrival.frame.size(), 60) + 24;
  Shares& shares = shares_.at(direction(arrival.hook));
  bool passes = true;
  if (arrival.hook == Hook::TcOut && paced_) {
    const auto departs = shares.pace(outcome.lane, wire, arrival.now_ns);
    passes = departs.has_value();
    outcome.departs_ns = departs.value_or(0);
  } else {
    passes = shares.police(outcome.lane, wire, arrival.now_ns);
  }
  if (passes) return;
  outcome.reason = ANIC_REASON_DROP_QUOTA;
  outcome.xsk = false;
}

void Model::count_control(std::uint64_t second) {
  if (policy_.control_alarm == 0) return;
  if (control_.second != second) {
    control_.second = second;
    control_.packets = 0;
  }
  if (++control_.packets != policy_.control_alarm + std::uint64_t{1}) return;
  ++control_.alarms;
  control_.last_alarm_s = second;
}

void Model::count(const Arrival& arrival, const Outcome& outcome) {
  const anic_direction way = direction(arrival.hook);
  const auto add = [&](anic_count& count) {
    ++count.packets;
    count.bytes += arrival.frame.size();
  };
  anic_lane_count& lane = counters_->lanes[way][outcome.lane];
  ++lane.seen;
  add(lane.by_reason[ANIC_REASON_AT(outcome.reason)]);
  const std::uint32_t queue = std::min<std::uint32_t>(arrival.queue, ANIC_QUEUES_MAX - 1);
  ++counters_->queues[way][queue].by_reason[ANIC_REASON_AT(outcome.reason)];
  add(counters_->services[way][outcome.service]);
  if (outcome.reason == ANIC_REASON_PASS_CONTROL) count_control(arrival.now_ns / 1'000'000'000);
}

Outcome Model::receive(const Arrival& arrival) {
  const Match found = match(arrival);
  Outcome outcome = decide(arrival, found);
  if (found.has_quota) charge(arrival, outcome);
  if (found.has_quota && outcome.reason != ANIC_REASON_DROP_QUOTA && arrival.hook == Hook::Xdp) {
    outcome.cpu = steering_.steer(outcome.lane, *found.packet, arrival.cpu, arrival.now_ns);
    if (outcome.cpu != 0) outcome.reason = ANIC_REASON_REDIRECT_CPU;
  }
  count(arrival, outcome);
  return outcome;
}

}  // namespace agentnic::model
