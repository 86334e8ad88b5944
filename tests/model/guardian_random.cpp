// SPDX-License-Identifier: Apache-2.0
#include "guardian_random.hpp"

#include <fmt/format.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

namespace agentnic::model {
namespace {

constexpr std::uint64_t kMs = 1'000'000;
constexpr std::uint64_t kSecond = 1'000 * kMs;
constexpr std::uint64_t kMbit = 1'000'000;
constexpr std::uint64_t kLink = 10'000 * kMbit;

}  // namespace

// --- policies ---

anic_envelope GuardianRandom::envelope(std::uint64_t link_bps) {
  anic_envelope envelope = policy::kDefaultEnvelope;
  envelope.heartbeat_ns = any_of({100 * kMs, kSecond, 10 * kSecond});
  envelope.duration_ns = any_of({kSecond, 10 * kSecond, 60 * kSecond});
  envelope.oscillation_ns = any_of({kMs / 1000, 100 * kMs, 10 * kSecond, 60 * kSecond});
  envelope.instability_ns = any_of({kSecond, 10 * kSecond, 60 * kSecond});
  envelope.cool_down_ns = any_of({100 * kMs, 100 * kMs, kSecond, 30 * kSecond});
  envelope.slo_interval_ns = any_of({10 * kMs, 100 * kMs, kSecond});
  envelope.weight_min = any_of({1U, 1U, 50U});
  envelope.weight_max = any_of({50U, 200U, 1000U});
  envelope.weight_step = any_of({1U, 10U, 100U, 1000U});
  envelope.throttle_percent = any_of({1U, 10U, 50U, 100U});
  envelope.changes_of_tenant = any_of({1U, 3U, 10U, 1000U, 10'000'000U});
  envelope.changes = any_of({1U, 50U, 1000U, 10'000'000U});
  envelope.actions = any_of({1U, 2U, 8U, 16U});
  envelope.flips = any_of({0U, 1U, 2U, 1000U});
  envelope.rejections = any_of({1U, 5U, 64U, 1'000'000U, 1'000'000U, 1'000'000U});
  envelope.instabilities = any_of({1U, 2U, 3U, 1000U});
  envelope.slo_percent = any_of({0U, 5U, 50U});
  envelope.slo_samples = any_of({1U, 20U, 100U});
  envelope.protects = any_of({0U, 1U, 1U});
  if (link_bps != 0) {
    envelope.borrow_max_bps = any_of<std::uint64_t>({0, 100 * kMbit, 2'000 * kMbit, link_bps});
    envelope.borrow_step_bps = any_of<std::uint64_t>({envelope.borrow_max_bps, envelope.borrow_max_bps / 3});
  }
  return envelope;
}

/// Minimums of all together may be the whole link.
void GuardianRandom::add_tenants(policy::Policy& policy) {
  for (const anic_class cls : policy::kClasses) {
    policy::StatedTerms& terms = policy.classes[cls];
    const anic_envelope& envelope = policy.envelope;
    const std::uint64_t most = std::min<std::uint64_t>(envelope.weight_max, 300);
    terms.weight = static_cast<std::uint16_t>(envelope.weight_min + below(most - envelope.weight_min + 1));
    if (one_in(2)) terms.floor_percent = static_cast<std::uint16_t>(below(26));
    if (!one_in(3)) terms.slo_ns = kMs;
  }
  for (const char* const name : {"acme", "globex", "initech", "umbrella", "wonka"}) {
    if (one_in(6)) continue;
    policy::Tenant tenant;
    tenant.name = name;
    policy::Budget& budget = tenant.budget;
    if (policy.link_rate_bps != 0) {
      budget.minimum_bps = any_of<std::uint64_t>({0, 1'000 * kMbit, 2'000 * kMbit});
      budget.ceiling_bps = any_of<std::uint64_t>({0, 2'000 * kMbit, 4'000 * kMbit, 10'000 * kMbit});
      if (one_in(2)) budget.bulk_bps = any_of({1'000 * kMbit, 2'000 * kMbit});
    }
    policy.tenants.push_back(std::move(tenant));
  }
}

void GuardianRandom::add_services(policy::Policy& policy) {
  for (std::uint16_t i = 0; i < 6; ++i) {
    if (one_in(5)) continue;
    policy::Service service;
    service.name = fmt::format("service-{}", i);
    if (!policy.tenants.empty() && one_in(2))
      service.tenant = policy.tenants[below(policy.tenants.size())].name;
    service.protocol = IPPROTO_UDP;
    service.port = static_cast<std::uint16_t>(7000 + i);
    service.cls = policy::kClasses.at(below(policy::kClasses.size()));
    service.path = one_in(2) ? ANIC_PATH_XSK : ANIC_PATH_KERNEL;
    policy.services.push_back(std::move(service));
  }
}

/// Over the first two CPUs, where no xsk service forbids it.
void GuardianRandom::add_cpus(policy::Policy& policy) {
  for (const anic_class cls : policy::kClasses) {
    const bool has_xsk = std::ranges::any_of(policy.services, [&](const policy::Service& service) {
      return service.cls == cls && service.path == ANIC_PATH_XSK;
    });
    if (has_xsk || one_in(3)) continue;
    std::vector<std::uint16_t>& cpus = policy.classes[cls].cpus.emplace();
    if (!one_in(4)) cpus.push_back(0);
    if (!one_in(4)) cpus.push_back(1);
  }
}

void GuardianRandom::add_agents(policy::Policy& policy) {
  for (const char* const name : {"tuner", "steerer", "helper"}) {
    if (one_in(4)) continue;
    policy::Agent agent;
    agent.name = name;
    for (const policy::Tenant& tenant : policy.tenants) {
      if (!one_in(3)) agent.tenants.push_back(tenant.name);
    }
    const auto bits = [&] { return static_cast<std::uint32_t>(one_in(2) ? ~0ULL : below(256)); };
    agent.kinds = bits();
    agent.classes = bits();
    agent.paths = bits();
    policy.agents.push_back(std::move(agent));
  }
}

policy::Policy GuardianRandom::policy() {
  policy::Policy policy;
  policy.name = "random";
  policy.link_rate_bps = one_in(8) ? 0 : kLink;
  policy.envelope = envelope(policy.link_rate_bps);
  add_tenants(policy);
  add_services(policy);
  add_cpus(policy);
  add_agents(policy);
  policy.fallback.keeps_paths = one_in(2);
  if (one_in(2)) policy.fallback.weights.fill(static_cast<std::uint16_t>(1 + below(100)));
  for (std::uint8_t& byte : policy.digest) byte = static_cast<std::uint8_t>(below(256));
  return policy;
}

void GuardianRandom::unspread(policy::Tables& tables) {
  for (anic_spread& spread : tables.spread) {
    if (one_in(3)) std::span(spread.cpu)[below(4)] = 0;
  }
}

// --- proposals ---

std::uint32_t GuardianRandom::tenant(const Guardian& model) {
  std::vector<std::uint32_t> ids;
  for (std::uint32_t id = 1; id < ANIC_TENANTS_MAX; ++id) {
    if (model.tables().tenants[id].name[0] != '\0') ids.push_back(id);
  }
  return ids.empty() ? 0 : ids[below(ids.size())];
}

void GuardianRandom::set_scope(anic_proposal& proposal) {
  switch (proposal.kind) {
    case ANIC_CHANGE_QUEUE_WEIGHT_ADJUST:
    case ANIC_CHANGE_PATH_SWITCH:
    case ANIC_CHANGE_QUEUE_REBALANCE:
      proposal.cls = static_cast<__u8>(one_in(12) ? below(8) : ANIC_CLASS_DEFAULT + below(4));
      break;
    case ANIC_CHANGE_FLOW_CLASS_ESCALATE:
      proposal.service = static_cast<__u16>(one_in(12) ? below(1U << 16U) : below(9));
      break;
    default:
      break;
  }
  if (proposal.kind == ANIC_CHANGE_QUEUE_REBALANCE)
    proposal.bucket = static_cast<__u16>(one_in(12) ? 126 + below(4) : below(4));
}

std::uint64_t GuardianRandom::weight(const Guardian& model, const anic_proposal& proposal) {
  const anic_envelope& envelope = model.envelope();
  const std::uint32_t cls = proposal.cls < ANIC_CLASS__MAX ? proposal.cls : 0U;
  const std::uint64_t was = model.value(proposal.tenant, ANIC_TARGET(proposal.kind, cls, 0));
  const std::uint64_t step = envelope.weight_step;
  return one_in(4) ? below(1100)
                   : about(any_of<std::uint64_t>({was, was + step, was - step, envelope.weight_min,
                                                  envelope.weight_max, 0, 1, 0xffffffff}));
}

std::uint64_t GuardianRandom::throttle(const Guardian& model, const anic_proposal& proposal) {
  const std::uint32_t target = ANIC_TARGET(proposal.kind, ANIC_CLASS_BULK, 0);
  const std::uint64_t was = model.value(proposal.tenant, target);
  const std::uint64_t step = was / 100 * model.envelope().throttle_percent;
  const auto stated = [&](std::uint32_t cls) {
    return model.tables().lanes[policy::lane_index(ANIC_PROFILE_POLICY, proposal.tenant, cls)];
  };
  const std::uint64_t most = stated(ANIC_CLASS_BULK).ceiling_bps;
  const std::uint64_t least = stated(ANIC_CLASS_NONE).rate_bps;
  return one_in(4) ? below(kLink)
                   : about(any_of<std::uint64_t>(
                         {was, was + step, was - step, most, least, ANIC_RATE_MIN_BPS, 1, kLink, ~1ULL}));
}

std::uint64_t GuardianRandom::borrow(const Guardian& model, const anic_proposal& proposal) {
  const std::uint64_t was = model.value(proposal.tenant, ANIC_TARGET(proposal.kind, 0, 0));
  const std::uint64_t step = model.envelope().borrow_step_bps;
  std::uint64_t left = kLink;
  for (std::uint32_t id = 1; id < ANIC_TENANTS_MAX; ++id) {
    const anic_lane& whole =
        model.tables().lanes[policy::lane_index(ANIC_PROFILE_POLICY, id, ANIC_CLASS_NONE)];
    left -= id == proposal.tenant ? whole.ceiling_bps : whole.rate_bps;
  }
  return one_in(4) ? below(kLink)
                   : about(any_of<std::uint64_t>({was, was + step, was - step, step,
                                                  model.envelope().borrow_max_bps, left, left, 1, ~1ULL}));
}

std::uint64_t GuardianRandom::value(const Guardian& model, const anic_proposal& proposal) {
  switch (proposal.kind) {
    case ANIC_CHANGE_QUEUE_WEIGHT_ADJUST:
      return weight(model, proposal);
    case ANIC_CHANGE_BULK_PATH_THROTTLE:
      return throttle(model, proposal);
    case ANIC_CHANGE_QUOTA_BORROW:
      return borrow(model, proposal);
    case ANIC_CHANGE_QUEUE_REBALANCE:
      return one_in(8) ? about(ANIC_CPUS_MAX - 1) : below(3);
    default:
      return below(one_in(8) ? 9 : 6);
  }
}

/// Goes back on a change of before.
bool GuardianRandom::turn_back(const Guardian& model, anic_proposal& proposal) {
  const auto& actions = model.state().actions;
  const std::size_t row = std::size_t{proposal.tenant} * ANIC_ACTIONS_MAX + below(3);
  const anic_action& action = actions.at(row);
  if (action.target == 0 || action.direction == 0) return false;
  proposal.kind = static_cast<__u8>(ANIC_TARGET_KIND(action.target));
  if (proposal.kind != ANIC_CHANGE_BULK_PATH_THROTTLE)
    proposal.cls = static_cast<__u8>(ANIC_TARGET_CLASS(action.target));
  const auto part = static_cast<__u16>(ANIC_TARGET_PART(action.target));
  (proposal.kind == ANIC_CHANGE_FLOW_CLASS_ESCALATE ? proposal.service : proposal.bucket) = part;
  const std::uint64_t was = model.value(proposal.tenant, action.target);
  const std::uint64_t step = std::min<std::uint64_t>(was, 1 + below(3) * (was / 16));
  proposal.value = action.direction == 1 ? was - step : was + step;
  return true;
}

void GuardianRandom::break_something(anic_proposal& proposal) {
  switch (below(8)) {
    case 0:
      proposal._pad = 1;
      break;
    case 1:
      proposal._pad2 = 1;
      break;
    case 2:
      ++proposal.size;
      break;
    case 3:
      proposal.kind = static_cast<__u8>(below(256));
      break;
    case 4:
      proposal.tenant = static_cast<__u8>(below(256));
      break;
    case 5:
      proposal.cls = static_cast<__u8>(below(256));
      break;
    case 6:
      proposal.service = static_cast<__u16>(1 + below(8));
      break;
    default:
      proposal.bucket = static_cast<__u16>(1 + below(8));
  }
}

anic_proposal GuardianRandom::proposal(const Guardian& model) {
  anic_proposal proposal{};
  proposal.size = sizeof(proposal);
  proposal.tenant = static_cast<__u8>(tenant(model));
  if (!one_in(3) || !turn_back(model, proposal)) {
    proposal.kind = static_cast<__u8>(1 + below(6));
    set_scope(proposal);
    proposal.value = value(model, proposal);
  }
  if (one_in(2))
    proposal.duration_ns =
        any_of<std::uint64_t>({about(model.envelope().duration_ns), below(2 * kSecond), ~0ULL});
  const std::string reason = fmt::format("reason {}", below(3));
  std::ranges::copy(reason, proposal.reason);
  if (one_in(40)) break_something(proposal);
  return proposal;
}

Sample GuardianRandom::sample(const Guardian& model, std::uint64_t cookie) {
  anic_proposal proposal = this->proposal(model);
  proposal.cookie = cookie;
  Sample sample(sizeof(proposal));
  std::memcpy(sample.data(), &proposal, sizeof(proposal));
  if (one_in(100)) {
    for (std::byte& byte : sample) byte = static_cast<std::byte>(below(256));
  }
  if (one_in(60)) sample.resize(below(200));
  return sample;
}

anic_order GuardianRandom::opening(const Guardian& model) {
  anic_order order{};
  for (int i = 0; i < 3; ++i) {
    if (const std::uint32_t id = tenant(model); id != 0) order.tenants |= std::uint64_t{1} << (id - 1);
  }
  if (one_in(12)) order.tenants = any_of<std::uint64_t>({0, ~0ULL, below(64)});
  const auto bits = [&] { return static_cast<std::uint32_t>(one_in(6) ? below(256) : ~0ULL); };
  order.kinds_classes = bits();
  order.kinds_classes |= std::uint64_t{bits()} << 32U;
  const std::uint64_t agent = one_in(2) ? 0 : one_in(8) ? below(20) : 1 + below(3);
  order.paths_agent = agent << 32U | bits();
  std::ranges::copy(std::string_view("opened"), order.reason);
  return order;
}

std::uint64_t GuardianRandom::later(const Guardian& model, std::uint64_t now_ns) {
  if (one_in(3)) return now_ns + below(20 * kMs);
  if (one_in(60)) return now_ns + below(70 * kSecond);
  std::vector<std::uint64_t> times = model.moments();
  std::erase_if(times, [&](std::uint64_t time) { return time <= now_ns || time > now_ns + 70 * kSecond; });
  if (times.empty()) return now_ns + below(kSecond);
  std::ranges::sort(times);
  const std::size_t which = one_in(8) ? below(times.size()) : below(std::min<std::size_t>(times.size(), 3));
  return std::max(now_ns, about(times[which]));
}

}  // namespace agentnic::model
