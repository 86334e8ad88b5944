// SPDX-License-Identifier: Apache-2.0
#include "lab/guarded.hpp"

#include <utility>

#include "kern/netns.hpp"
#include "lab/environment.hpp"
#include "policy/parse.hpp"

namespace agentnic::lab {
namespace {

constexpr const char* kPolicy = R"({"version": 1, "name": "guarded", "link_rate": "10Gbit",
  "tenants": [{"name": "acme", "prefixes": ["10.1.0.0/16"], "budget": {"minimum": "1Gbit"}}],
  "services": [],
  "guardian": {"heartbeat": "100ms", "oscillation": {"window": "1us", "flips": 1000},
               "weight": {"step": 1000}, "changes": {"tenant": 10000000, "total": 10000000}}})";

}  // namespace

Result<policy::Policy> guarded_policy() { return policy::parse(kPolicy, "bench policy"); }

anic_proposal weight_proposal(std::uint64_t number) {
  anic_proposal proposal{};
  proposal.size = sizeof(proposal);
  proposal.kind = ANIC_CHANGE_QUEUE_WEIGHT_ADJUST;
  proposal.tenant = 1;
  proposal.cls = ANIC_CLASS_RPC;
  proposal.value = 200 + number % 2;
  proposal.cookie = number + 1;
  return proposal;
}

Status Guarded::take() const {
  ring.take(ANIC_TRY(ring.peek()).position);
  return {};
}

Result<Guarded> make_guarded(const Bench& bench, const policy::Policy& policy) {
  ANIC_TRY(pin_to_cpu(bench.server_cpu));
  Attached attached = ANIC_TRY(Attached::open(bench, policy));
  ANIC_TRY(attached.set(true));
  const kern::NetNs netns = ANIC_TRY(kern::NetNs::open(bench.lab.server.netns));
  const kern::PinDir dir{netns.inode(), bench.lab.server.ifname};
  kern::Maps maps = ANIC_TRY(kern::Maps::pinned(dir));
  kern::AuditRing ring = ANIC_TRY(kern::AuditRing::open(maps, true));
  kern::SessionRequest request;
  request.asked = {.tenants = 1, .kinds = ~0U, .classes = ~0U, .paths = 0, ._pad = 0};
  kern::Session session = ANIC_TRY(kern::Session::open(dir, maps, request));
  return Guarded{std::move(attached), std::move(maps), std::move(ring), std::move(session)};
}

}  // namespace agentnic::lab
