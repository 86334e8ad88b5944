// SPDX-License-Identifier: Apache-2.0
#include "guarded.hpp"

#include <bpf/bpf.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <optional>

#include "policy/parse.hpp"

namespace agentnic {
namespace {

constexpr std::string_view kRest = R"("version": 1, "link_rate": "10Gbit",
  "classes": {"rpc": {"floor": 50, "weight": 100, "slo": "1ms"}, "bulk": {"weight": 50, "floor": 10},
              "retrieval": {"cpus": [0, 1]}},
  "fallback": {"weights": {"rpc": 700}},
  "tenants": [{"name": "acme", "prefixes": ["10.1.0.0/16"], "budget": {"minimum": "1Gbit", "ceiling": "2Gbit"}},
              {"name": "globex", "prefixes": ["10.2.0.0/16"], "budget": {"minimum": "1Gbit"}}],
  "services": [{"name": "api", "protocol": "udp", "port": 7000, "class": "rpc", "path": "kernel"},
               {"name": "gate", "protocol": "udp", "port": 7001, "class": "default", "path": "xsk"},
               {"name": "owned", "tenant": "globex", "protocol": "udp", "port": 7002, "class": "bulk", "path": "kernel"}])";

anic_proposal proposal_of(anic_change kind, std::uint8_t tenant, std::uint64_t value) {
  anic_proposal proposal{};
  proposal.kind = static_cast<__u8>(kind);
  proposal.tenant = tenant;
  proposal.value = value;
  constexpr std::string_view kReason = "a test";
  std::ranges::copy(kReason, proposal.reason);
  return proposal;
}

/// All bytes of the values of an array.
void append_map(const kern::Maps& maps, const char* name, std::vector<std::byte>& bytes) {
  bpf_map_info info{};
  std::uint32_t size = sizeof(info);
  REQUIRE(bpf_map_get_info_by_fd(maps.fd(name), &info, &size) == 0);
  const std::size_t before = bytes.size();
  bytes.resize(before + std::size_t{info.max_entries} * info.value_size);
  std::vector<std::uint32_t> keys(info.max_entries);
  std::uint32_t count = info.max_entries;
  std::uint32_t last = 0;
  const int code = bpf_map_lookup_batch(maps.fd(name), nullptr, &last, keys.data(), bytes.data() + before,
                                        &count, nullptr);
  REQUIRE((code == 0 || errno == ENOENT));
  REQUIRE(count == info.max_entries);
}

/// Keys and values of the escalations.
void append_escalations(const kern::Maps& maps, std::vector<std::byte>& bytes) {
  const int fd = maps.fd("anic_escalated");
  anic_escalation key{};
  const void* before = nullptr;
  while (bpf_map_get_next_key(fd, before, &key) == 0) {
    std::uint32_t cls = 0;
    REQUIRE(bpf_map_lookup_elem(fd, &key, &cls) == 0);
    for (const std::uint32_t word : {std::uint32_t{key.tenant}, std::uint32_t{key.service}, cls})
      bytes.push_back(static_cast<std::byte>(word));
    before = &key;
  }
}

void check_record(const anic_record& record, const anic_answer& answer, const anic_proposal& proposal,
                  std::uint64_t session) {
  const bool formed = answer.invariant != ANIC_INVARIANT_FORM;
  CHECK(record.decided == answer.decided);
  CHECK(record.invariant == answer.invariant);
  CHECK(record.rewritten == answer.rewritten);
  CHECK(record.observed == answer.observed);
  CHECK(record.requested == answer.requested);
  CHECK(record.approved == answer.approved);
  CHECK(record.until_ns == answer.until_ns);
  CHECK(record.session == session);
  CHECK(record.tenant == (formed ? proposal.tenant : 0));
  CHECK(record.proposed == proposal.kind);
  CHECK(record.cls == proposal.cls);
  CHECK(record.service == proposal.service);
  CHECK(record.bucket == proposal.bucket);
  CHECK(record.count == 1);
  CHECK(std::memcmp(record.reason, proposal.reason, sizeof(record.reason)) == 0);
}

}  // namespace

std::string guarded_policy(std::string_view guardian, std::string_view more, std::string_view name) {
  return fmt::format(R"({{"name": "{}", {}, "guardian": {{{}}}{}{}}})", name, kRest, guardian,
                     more.empty() ? "" : ", ", more);
}

anic_proposal weight(std::uint8_t tenant, anic_class cls, std::uint64_t value) {
  anic_proposal proposal = proposal_of(ANIC_CHANGE_QUEUE_WEIGHT_ADJUST, tenant, value);
  proposal.cls = static_cast<__u8>(cls);
  return proposal;
}

anic_proposal throttle(std::uint8_t tenant, std::uint64_t bps) {
  return proposal_of(ANIC_CHANGE_BULK_PATH_THROTTLE, tenant, bps);
}

anic_proposal escalate(std::uint8_t tenant, std::uint16_t service, anic_class cls,
                       std::uint64_t duration_ns) {
  anic_proposal proposal = proposal_of(ANIC_CHANGE_FLOW_CLASS_ESCALATE, tenant, cls);
  proposal.service = service;
  proposal.duration_ns = duration_ns;
  return proposal;
}

anic_proposal switch_path(std::uint8_t tenant, anic_class cls, anic_path path) {
  anic_proposal proposal = proposal_of(ANIC_CHANGE_PATH_SWITCH, tenant, path);
  proposal.cls = static_cast<__u8>(cls);
  return proposal;
}

anic_proposal rebalance(std::uint8_t tenant, anic_class cls, std::uint16_t bucket, std::uint64_t cpu) {
  anic_proposal proposal = proposal_of(ANIC_CHANGE_QUEUE_REBALANCE, tenant, cpu);
  proposal.cls = static_cast<__u8>(cls);
  proposal.bucket = bucket;
  return proposal;
}

anic_proposal borrow(std::uint8_t tenant, std::uint64_t bps, std::uint64_t duration_ns) {
  anic_proposal proposal = proposal_of(ANIC_CHANGE_QUOTA_BORROW, tenant, bps);
  proposal.duration_ns = duration_ns;
  return proposal;
}

Guarded::Guarded(const std::string& policy) : records_(instance_) {
  const auto chain = only<anic_chain>("anic_chain");
  chain_.key = {.low = chain.key[0], .high = chain.key[1]};
  install(policy, kStart);
}

void Guarded::install(const std::string& policy, std::uint64_t now_ns) {
  const auto parsed = policy::parse(policy, "the test's policy");
  if (!parsed) FAIL(parsed.error().text());
  instance_.install(*parsed, {}, now_ns);
}

void Guarded::check_last_record(const anic_answer& answer, const anic_proposal& proposal,
                                std::uint64_t session) {
  const auto records = take();
  REQUIRE(!records.empty());
  CHECK(records.back().kind == ANIC_RECORD_DECISION);
  CHECK(records.back().seq == answer.seq);
  check_record(records.back(), answer, proposal, session);
}

anic_answer Guarded::approves(const TestSession& session, const anic_proposal& proposal,
                              std::uint64_t now_ns) {
  (void)take();
  const anic_answer answer = session.propose(proposal, now_ns);
  CHECK(answer.decided == ANIC_DECIDED_APPROVE);
  CHECK(answer.invariant == ANIC_INVARIANT_NONE);
  CHECK(answer.rewritten == 0);
  CHECK(answer.requested == proposal.value);
  CHECK(answer.approved == proposal.value);
  check_last_record(answer, proposal, session.id());
  return answer;
}

anic_answer Guarded::rewrites(const TestSession& session, const anic_proposal& proposal, std::uint64_t now_ns,
                              anic_invariant invariant, std::uint64_t approved) {
  (void)take();
  const anic_answer answer = session.propose(proposal, now_ns);
  CHECK(answer.decided == ANIC_DECIDED_REWRITE);
  CHECK(answer.invariant == invariant);
  CHECK((answer.rewritten >> invariant & 1U) == 1);
  CHECK(answer.requested == proposal.value);
  CHECK(answer.approved == approved);
  check_last_record(answer, proposal, session.id());
  return answer;
}

anic_answer Guarded::rejects(const TestSession& session, const anic_proposal& proposal, std::uint64_t now_ns,
                             anic_invariant invariant) {
  tick(now_ns);
  (void)take();
  const std::vector<std::byte> before = in_force();
  const anic_answer answer = session.propose(proposal, now_ns);
  CHECK(answer.decided == ANIC_DECIDED_REJECT);
  CHECK(answer.invariant == invariant);
  CHECK(answer.rewritten == 0);
  CHECK(answer.requested == proposal.value);
  CHECK(answer.approved == answer.observed);
  CHECK(answer.until_ns == 0);
  CHECK(answer.seq == 0);
  CHECK((in_force() == before));
  tick(now_ns);
  const auto records = of_kind(take(), ANIC_RECORD_DECISION);
  REQUIRE(records.size() == 1);
  check_record(records.front(), answer, proposal, session.id());
  return answer;
}

std::vector<anic_record> Guarded::take() {
  std::vector<anic_record> taken = records_.take();
  const auto bad = audit::first_bad(chain_, taken);
  if (bad) FAIL("the chain breaks at record " << *bad);
  for (const anic_record& record : taken) {
    if (record.tenant != 0 && record.kind == ANIC_RECORD_COMMIT) tenant_seqs_[record.tenant] = 0;
    const auto tenancy = tenant_seqs_.find(record.tenant);
    CHECK(record.tenant_seq == (tenancy == tenant_seqs_.end() ? 0 : ++tenancy->second));
    if (record.tenant != 0 && record.kind == ANIC_RECORD_DETACH) tenant_seqs_.erase(record.tenant);
  }
  return taken;
}

std::vector<std::byte> Guarded::in_force() const {
  std::vector<std::byte> bytes;
  for (const char* map : {"anic_lanes", "anic_steering", "anic_modes", "anic_state", "anic_actions"})
    append_map(instance_.maps(), map, bytes);
  append_escalations(instance_.maps(), bytes);
  return bytes;
}

anic_lane Guarded::tuned(std::uint8_t tenant, anic_class cls) const {
  const auto slot = static_cast<std::uint32_t>(word()) % ANIC_SLOTS;
  anic_lane lane{};
  REQUIRE(instance_.maps().read(
      "anic_lanes", (slot * ANIC_PROFILE__MAX + ANIC_PROFILE_TUNED) * ANIC_LANES_MAX + ANIC_LANE(tenant, cls),
      lane));
  return lane;
}

std::uint32_t Guarded::mode(std::uint32_t tenant) const {
  return only<anic_modes>("anic_modes").words[tenant];
}

anic_ward Guarded::ward(std::uint32_t tenant) const {
  anic_ward ward{};
  REQUIRE(instance_.maps().read("anic_wards", tenant, ward));
  return ward;
}

anic_dump Guarded::dump(std::uint32_t tenant) const {
  anic_dump dump{};
  REQUIRE(instance_.maps().read("anic_dumps", tenant, dump));
  return dump;
}

std::uint64_t Guarded::rate(std::uint8_t tenant, anic_class cls) const {
  anic_bucket bucket{};
  REQUIRE(instance_.maps().read("anic_buckets", ANIC_DIRECTION_IN * ANIC_LANES_MAX + ANIC_LANE(tenant, cls),
                                bucket));
  return bucket.rate_bps;
}

std::uint64_t Guarded::word() const { return only<anic_state>("anic_state").word; }

int Guarded::failsafe(anic_order_kind kind, std::uint32_t tenant, std::uint64_t now_ns,
                      std::string_view reason) const {
  anic_order arguments = order_at(now_ns);
  arguments.what = std::uint64_t{tenant} << 32U | kind;
  std::ranges::copy(reason, arguments.reason);
  return order(instance_, "failsafe", arguments);
}

std::vector<anic_record> of_kind(const std::vector<anic_record>& records, anic_record_kind kind) {
  std::vector<anic_record> found;
  std::ranges::copy_if(records, std::back_inserter(found),
                       [&](const anic_record& record) { return record.kind == kind; });
  return found;
}

int try_open(const Guarded& guarded, std::uint64_t tenants, std::uint64_t now_ns, std::uint32_t agent) {
  anic_order opening = order_at(now_ns);
  opening.tenants = tenants;
  opening.kinds_classes = ~0ULL;
  opening.paths_agent = std::uint64_t{agent} << 32U | 0xffffffffU;
  return order(guarded.instance(), "open", opening);
}

anic_grants everything_of(std::uint64_t tenants) {
  return {.tenants = tenants, .kinds = ~0U, .classes = ~0U, .paths = ~0U, ._pad = 0};
}

}  // namespace agentnic
