// SPDX-License-Identifier: Apache-2.0
#include "kern/queue_plan.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <netinet/in.h>

#include <algorithm>
#include <bit>
#include <numeric>
#include <set>
#include <utility>

namespace agentnic::kern {
namespace {

constexpr std::uint16_t kAllBits = 0xffff;

bool contains(const std::vector<std::uint32_t>& queues, std::uint32_t queue) {
  return std::ranges::find(queues, queue) != queues.end();
}

std::string title(const QueuePlan& plan) {
  return fmt::format("set {} {} of {} aside{}", plan.queues.size() == 1 ? "queue" : "queues",
                     fmt::join(plan.queues, ", "), plan.ifname,
                     plan.purpose == Purpose::Receive ? " for zero-copy receive" : "");
}

std::string name_of(const NicQueues& nic) { return fmt::format("{} ({})", nic.ifname, nic.driver); }

/// How many entries of a table each queue has.
std::vector<std::uint64_t> shares(const RssTable& table, std::uint32_t queue_count) {
  std::vector<std::uint64_t> counts(queue_count);
  for (const std::uint32_t queue : table) {
    if (queue < queue_count) ++counts[queue];
  }
  return counts;
}

/// What each queue is to have of what others give up: its share so far, or the same for all if none had any.
std::vector<std::uint64_t> weights_of_others(const RssTable& table, std::uint32_t queue_count,
                                             const std::vector<std::uint32_t>& queues) {
  std::vector<std::uint64_t> weights = shares(table, queue_count);
  for (const std::uint32_t queue : queues) weights[queue] = 0;
  if (std::ranges::all_of(weights, [](std::uint64_t weight) { return weight == 0; })) {
    for (std::uint32_t queue = 0; queue < queue_count; ++queue)
      weights[queue] = contains(queues, queue) ? 0 : 1;
  }
  return weights;
}

/// What `ethtool -X weight` takes for the same shares, in small numbers.
std::vector<std::uint64_t> stated_weights(const QueuePlan& plan) {
  const std::uint32_t queue_count = 1 + std::max(std::ranges::max(plan.before), plan.queues.back());
  std::vector<std::uint64_t> weights = weights_of_others(plan.before, queue_count, plan.queues);
  std::uint64_t divisor = 0;
  for (std::uint64_t& weight : weights) {
    if (plan.table_is_default && weight != 0) weight = 1;  // 43, 43 and 42 of 128 are meant to be the same
    divisor = std::gcd(divisor, weight);
  }
  for (std::uint64_t& weight : weights) weight /= std::max<std::uint64_t>(divisor, 1);
  return weights;
}

/// The rules of a service. With several queues the low bits of the other end's port say which.
void add_rules(const QueueService& service, const std::vector<std::uint32_t>& queues,
               std::vector<FlowRule>& rules) {
  const auto split = static_cast<std::uint16_t>(queues.size() - 1);
  const auto add = [&](FlowRule rule) {
    // Services of several tenants may share a port.
    const auto same = [&](const FlowRule& other) { return rule.matches_same(other); };
    if (std::ranges::none_of(rules, same)) rules.push_back(rule);
  };
  for (const std::uint8_t version : {4, 6}) {
    for (std::uint16_t i = 0; i < queues.size(); ++i) {
      const FlowRule to_queue{.version = version, .protocol = service.protocol, .queue = queues[i]};
      FlowRule asked = to_queue;
      asked.destination_port = service.port;
      asked.destination_mask = kAllBits;
      asked.source_port = i;
      asked.source_mask = split;
      if (service.role != ANIC_ROLE_CLIENT) add(asked);
      FlowRule answered = to_queue;
      answered.source_port = service.port;
      answered.source_mask = kAllBits;
      answered.destination_port = i;
      answered.destination_mask = split;
      if (service.role != ANIC_ROLE_SERVER) add(answered);
    }
  }
}

/// What the NIC must have and has not, whatever the queues.
std::vector<std::string> missing(const NicQueues& nic, Purpose purpose) {
  std::vector<std::string> list;
  const std::string name = name_of(nic);
  if (nic.queues < 2) list.push_back(name + " has one receive queue, which takes everything");
  if (nic.table.empty()) list.push_back(name + " has no RSS table to take them out of");
  if (nic.table.size() > ANIC_ASIDE_TABLE_MAX) {
    list.push_back(fmt::format("the RSS table of {} has {} entries, more than {}", name, nic.table.size(),
                               ANIC_ASIDE_TABLE_MAX));
  }
  if (!nic.ntuple_on && !nic.ntuple_can_change) list.push_back(name + " takes no flow rules (no ntuple)");
  if (nic.ntuple_on && !nic.rules)
    list.push_back(fmt::format("the driver of {} does not say what flow rules it has", name));
  if (purpose != Purpose::Receive) return list;
  if (nic.header_split.mode == SplitMode::Unstated)
    list.push_back(name + " has no header/data split (tcp-data-split)");
  // The kernel gives a queue no other memory while there is one, generic XDP included
  // (net/core/netdev_rx_queue.c).
  if (nic.has_xdp) list.push_back(fmt::format("{} has an XDP program", name));
  return list;
}

Status check_nic(const NicQueues& nic, Purpose purpose, const std::string& what) {
  const std::vector<std::string> list = missing(nic, purpose);
  if (list.empty()) return {};
  if (purpose == Purpose::Xsk) {
    return fail(Exit::Unsupported, fmt::format("{}: {}", what, list.front()),
                "copy mode needs no queue of its own");
  }
  const bool only_xdp = nic.has_xdp && list.size() == 1;
  return fail(Exit::Unsupported, fmt::format("{}: {}", what, fmt::join(list, "; ")),
              only_xdp ? "agentnic-load attach --mode tc does without; a program of somebody else must go"
                       : "io_uring receives without zero-copy on any NIC");
}

Status check_queues(const NicQueues& nic, const std::vector<std::uint32_t>& queues, const std::string& what) {
  if (queues.empty()) return fail(Exit::BadInput, fmt::format("set queues of {} aside: which?", nic.ifname));
  const std::uint32_t count = std::min<std::uint32_t>(nic.queues, ANIC_QUEUES_MAX);
  if (queues.back() >= count) {
    return fail(Exit::BadInput, fmt::format("{}: {} has queues 0 to {} that can be set aside", what,
                                            name_of(nic), count - 1));
  }
  if (queues.front() == 0) {
    return fail(Exit::BadInput, what + ": queue 0 also takes what the NIC does not hash, such as ARP",
                fmt::format("choose among 1 to {}", count - 1));
  }
  if (!std::has_single_bit(queues.size())) {
    return fail(Exit::BadInput,
                fmt::format("{}: {} queues cannot share a service, which is split by bits of a port", what,
                            queues.size()),
                "1, 2, 4, ... queues");
  }
  return {};
}

Status check_services(const std::vector<QueueService>& services, Purpose purpose, const std::string& what) {
  if (services.empty()) {
    return fail(Exit::BadInput,
                what +
                    (purpose == Purpose::Xsk ? ": no service of the policy is on path xsk" : ": no service") +
                    ", so nothing would come there");
  }
  if (purpose != Purpose::Receive) return {};
  for (const QueueService& service : services) {
    if (service.protocol == IPPROTO_TCP) continue;
    return fail(Exit::BadInput, fmt::format("{}: service {} is {}, and it is of TCP alone", what,
                                            service.name, policy::protocol_name(service.protocol)));
  }
  return {};
}

std::string rule_line(const std::string& ifname, const FlowRule& rule) {
  std::string line =
      fmt::format("ethtool -N {} flow-type {}{}", ifname, policy::protocol_name(rule.protocol), rule.version);
  const auto add_port = [&](const char* name, std::uint16_t port, std::uint16_t mask) {
    if (mask == 0) return;
    line += fmt::format(" {} {}", name, port);
    // In ethtool's words a bit of the mask is one that does not matter.
    if (mask != kAllBits) line += fmt::format(" m 0x{:04x}", static_cast<std::uint16_t>(~mask));
  };
  add_port("src-port", rule.source_port, rule.source_mask);
  add_port("dst-port", rule.destination_port, rule.destination_mask);
  return line + fmt::format(" action {}", rule.queue);
}

}  // namespace

bool FlowRule::matches_same(const FlowRule& other) const {
  FlowRule same_queue = other;
  same_queue.queue = queue;
  return *this == same_queue;
}

bool FlowRule::meets(const FlowRule& other) const {
  const unsigned source = (source_port ^ other.source_port) & source_mask & other.source_mask;
  const unsigned destination =
      (destination_port ^ other.destination_port) & destination_mask & other.destination_mask;
  return version == other.version && protocol == other.protocol && source == 0 && destination == 0;
}

Status check_rules(const NicQueues& nic, const QueuePlan& plan) {
  const std::string what = title(plan);
  if (plan.rules.size() > ANIC_ASIDE_RULES_MAX) {
    return fail(Exit::Unsupported, fmt::format("{}: it would take {} flow rules, more than {}", what,
                                               plan.rules.size(), ANIC_ASIDE_RULES_MAX));
  }
  if (!nic.rules) return {};
  for (const RuleThere& there : nic.rules->rules) {
    for (const std::uint32_t queue : there.queues) {
      if (!contains(plan.queues, queue)) continue;
      return fail(Exit::BadInput,
                  fmt::format("{}: flow rule {} already sends to queue {}", what, there.location, queue),
                  fmt::format("another queue, or ethtool -N {} delete {}", nic.ifname, there.location));
    }
    if (!there.rule) continue;
    for (const FlowRule& rule : plan.rules) {
      if (!rule.meets(*there.rule)) continue;
      return fail(Exit::BadInput,
                  fmt::format("{}: flow rule {} already has the packets of port {}", what, there.location,
                              rule.destination_mask == kAllBits ? rule.destination_port : rule.source_port),
                  fmt::format("ethtool -N {} delete {}", nic.ifname, there.location));
    }
  }
  if (nic.rules->size != 0 && nic.rules->rules.size() + plan.rules.size() > nic.rules->size) {
    return fail(
        Exit::Unsupported,
        fmt::format("{}: it would take {} flow rules, and {} has room for {} more", what, plan.rules.size(),
                    name_of(nic),
                    nic.rules->size - std::min<std::size_t>(nic.rules->size, nic.rules->rules.size())));
  }
  return {};
}

bool is_default_table(const RssTable& table, std::uint32_t queue_count) {
  for (std::size_t i = 0; i < table.size(); ++i) {
    if (table[i] != i % queue_count) return false;
  }
  return true;
}

RssTable spread_over_others(const RssTable& table, std::uint32_t queue_count,
                            const std::vector<std::uint32_t>& queues) {
  const std::vector<std::uint64_t> weights = weights_of_others(table, queue_count, queues);
  std::vector<std::uint64_t> given(queue_count);
  RssTable spread = table;
  for (std::uint32_t& entry : spread) {
    if (!contains(queues, entry)) continue;
    // To whom it is due next by the method of Sainte-Lague; compared by cross multiplication.
    std::uint32_t next = queue_count;
    for (std::uint32_t queue = 0; queue < queue_count; ++queue) {
      if (weights[queue] == 0) continue;
      if (next == queue_count ||
          (2 * given[queue] + 1) * weights[next] < (2 * given[next] + 1) * weights[queue])
        next = queue;
    }
    if (next == queue_count) break;  // there is no other
    ++given[next];
    entry = next;
  }
  return spread;
}

Result<QueuePlan> plan_queues(const NicQueues& nic, const std::vector<std::uint32_t>& queues,
                              const std::vector<QueueService>& services, Purpose purpose) {
  const std::set<std::uint32_t> sorted(queues.begin(), queues.end());
  QueuePlan plan;
  plan.ifname = nic.ifname;
  plan.driver = nic.driver;
  plan.purpose = purpose;
  plan.queues.assign(sorted.begin(), sorted.end());
  const std::string what = title(plan);
  ANIC_TRY(check_nic(nic, purpose, what));
  ANIC_TRY(check_queues(nic, plan.queues, what));
  ANIC_TRY(check_services(services, purpose, what));
  plan.turns_ntuple_on = !nic.ntuple_on;
  plan.before = nic.table;
  plan.after = spread_over_others(nic.table, nic.queues, plan.queues);
  plan.table_is_default = is_default_table(nic.table, nic.queues);
  if (purpose == Purpose::Receive) plan.split_before = nic.header_split;
  for (const QueueService& service : services) add_rules(service, plan.queues, plan.rules);
  ANIC_TRY(check_rules(nic, plan));
  return plan;
}

std::vector<std::string> ethtool_lines(const QueuePlan& plan) {
  std::vector<std::string> lines;
  if (plan.purpose == Purpose::Receive) {  // even if it is on: the kernel wants to be told
    lines.push_back(fmt::format("ethtool -G {} tcp-data-split on{}", plan.ifname,
                                plan.sets_threshold() ? " hds-thresh 0" : ""));
  }
  if (plan.turns_ntuple_on) lines.push_back(fmt::format("ethtool -K {} ntuple on", plan.ifname));
  if (plan.after != plan.before) {
    lines.push_back(
        fmt::format("ethtool -X {} weight {}", plan.ifname, fmt::join(stated_weights(plan), " ")));
  }
  for (const FlowRule& rule : plan.rules) lines.push_back(rule_line(plan.ifname, rule));
  return lines;
}

}  // namespace agentnic::kern
