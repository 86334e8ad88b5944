// SPDX-License-Identifier: Apache-2.0
//
// The same struct, seen from both worlds: the BTF of the BPF object against the C++ compiler.

#include <bpf/btf.h>

#include <catch2/catch_test_macros.hpp>
#include <cstddef>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "abi/audit.h"
#include "abi/flow.h"
#include "abi/guardian.h"
#include "abi/header_split.h"
#include "abi/lane.h"
#include "abi/meta.h"
#include "abi/napi.h"
#include "abi/observe.h"
#include "abi/owner.h"
#include "abi/policy.h"
#include "abi/queues.h"
#include "abi/share.h"
#include "abi/stats.h"
#include "abi/steer.h"
#include "abi/turn.h"

namespace {

struct Layout {
  std::size_t size;
  std::map<std::string, std::size_t> offsets;
};

#define MEMBER(type, name) {#name, offsetof(type, name)}

// Every struct of bpf/abi that a map or an argument holds. One that is missing here fails the test below.
const std::map<std::string, Layout> kOurs = {
    {"anic_key",
     {sizeof(anic_key),
      {MEMBER(anic_key, word), MEMBER(anic_key, addresses_be), MEMBER(anic_key, cgroup),
       MEMBER(anic_key, mark), MEMBER(anic_key, generation)}}},
    {"anic_flow", {sizeof(anic_flow), {MEMBER(anic_flow, key), MEMBER(anic_flow, word)}}},
    {"anic_flow_set", {sizeof(anic_flow_set), {MEMBER(anic_flow_set, ways)}}},
    {"anic_lane",
     {sizeof(anic_lane),
      {MEMBER(anic_lane, rate_bps), MEMBER(anic_lane, ceiling_bps), MEMBER(anic_lane, slo_ns),
       MEMBER(anic_lane, weight), MEMBER(anic_lane, floor_percent), MEMBER(anic_lane, path),
       MEMBER(anic_lane, priority), MEMBER(anic_lane, queue), MEMBER(anic_lane, dscp)}}},
    {"anic_meta",
     {sizeof(anic_meta),
      {MEMBER(anic_meta, abi_version), MEMBER(anic_meta, meta_size), MEMBER(anic_meta, netns_cookie),
       MEMBER(anic_meta, attached_at_ns), MEMBER(anic_meta, upgraded_at_ns), MEMBER(anic_meta, ifindex),
       MEMBER(anic_meta, queues), MEMBER(anic_meta, hook), MEMBER(anic_meta, mode),
       MEMBER(anic_meta, egress_hook), MEMBER(anic_meta, clsact_is_ours), MEMBER(anic_meta, vlan_offload_off),
       MEMBER(anic_meta, _pad), MEMBER(anic_meta, ifname)}}},
    {"anic_policy",
     {sizeof(anic_policy),
      {MEMBER(anic_policy, uses), MEMBER(anic_policy, cgroup_depths), MEMBER(anic_policy, control_alarm),
       MEMBER(anic_policy, prefixes), MEMBER(anic_policy, link_rate_bps),
       MEMBER(anic_policy, committed_at_ns), MEMBER(anic_policy, dscp), MEMBER(anic_policy, digest),
       MEMBER(anic_policy, name)}}},
    {"anic_service",
     {sizeof(anic_service),
      {MEMBER(anic_service, name), MEMBER(anic_service, port), MEMBER(anic_service, protocol),
       MEMBER(anic_service, role), MEMBER(anic_service, tenant), MEMBER(anic_service, cls),
       MEMBER(anic_service, path), MEMBER(anic_service, fresh), MEMBER(anic_service, owner),
       MEMBER(anic_service, _pad)}}},
    {"anic_tenant",
     {sizeof(anic_tenant),
      {MEMBER(anic_tenant, name), MEMBER(anic_tenant, cls), MEMBER(anic_tenant, fresh),
       MEMBER(anic_tenant, _pad)}}},
    {"anic_state",
     {sizeof(anic_state),
      {MEMBER(anic_state, word), MEMBER(anic_state, hash_factor), MEMBER(anic_state, hash_keys),
       MEMBER(anic_state, tick_ns), MEMBER(anic_state, ticked_ns)}}},
    {"anic_bucket",
     {sizeof(anic_bucket),
      {MEMBER(anic_bucket, paid), MEMBER(anic_bucket, cost), MEMBER(anic_bucket, rate_bps),
       MEMBER(anic_bucket, asked), MEMBER(anic_bucket, seen), MEMBER(anic_bucket, seen_ns),
       MEMBER(anic_bucket, wanted_bps), MEMBER(anic_bucket, lease_bytes), MEMBER(anic_bucket, hungry)}}},
    {"anic_claim",
     {sizeof(anic_claim),
      {MEMBER(anic_claim, least_bps), MEMBER(anic_claim, most_bps), MEMBER(anic_claim, wants_bps),
       MEMBER(anic_claim, more_bps), MEMBER(anic_claim, weight), MEMBER(anic_claim, _pad)}}},
    {"anic_level",
     {sizeof(anic_level),
      {MEMBER(anic_level, left_bps), MEMBER(anic_level, weight), MEMBER(anic_level, per_weight),
       MEMBER(anic_level, settled)}}},
    {"anic_turn_slot",
     {sizeof(anic_turn_slot),
      {MEMBER(anic_turn_slot, flow), MEMBER(anic_turn_slot, asked_ns), MEMBER(anic_turn_slot, end),
       MEMBER(anic_turn_slot, ack), MEMBER(anic_turn_slot, state), MEMBER(anic_turn_slot, _pad)}}},
    {"anic_turn_lane",
     {sizeof(anic_turn_lane),
      {MEMBER(anic_turn_lane, wanted), MEMBER(anic_turn_lane, outstanding), MEMBER(anic_turn_lane, _pad),
       MEMBER(anic_turn_lane, slots), MEMBER(anic_turn_lane, samples), MEMBER(anic_turn_lane, over_slo),
       MEMBER(anic_turn_lane, misses), MEMBER(anic_turn_lane, ambiguous), MEMBER(anic_turn_lane, srtt_us_sum),
       MEMBER(anic_turn_lane, srtt_count), MEMBER(anic_turn_lane, _pad_counts),
       MEMBER(anic_turn_lane, histogram)}}},
    {"anic_sharing",
     {sizeof(anic_sharing),
      {MEMBER(anic_sharing, last_ns), MEMBER(anic_sharing, rounds), MEMBER(anic_sharing, busy)}}},
    {"anic_spread", {sizeof(anic_spread), {MEMBER(anic_spread, cpu)}}},
    {"anic_steering",
     {sizeof(anic_steering),
      {MEMBER(anic_steering, to), MEMBER(anic_steering, stated), MEMBER(anic_steering, last),
       MEMBER(anic_steering, used), MEMBER(anic_steering, _pad)}}},
    {"anic_cpu",
     {sizeof(anic_cpu),
      {MEMBER(anic_cpu, sent), MEMBER(anic_cpu, moved), MEMBER(anic_cpu, moved_early), MEMBER(anic_cpu, _pad),
       MEMBER(anic_cpu, arrived), MEMBER(anic_cpu, lost), MEMBER(anic_cpu, sent_before),
       MEMBER(anic_cpu, arrived_before), MEMBER(anic_cpu, quiet), MEMBER(anic_cpu, _pad2)}}},
    {"anic_count", {sizeof(anic_count), {MEMBER(anic_count, packets), MEMBER(anic_count, bytes)}}},
    {"anic_lane_count",
     {sizeof(anic_lane_count),
      {MEMBER(anic_lane_count, seen), MEMBER(anic_lane_count, lease), MEMBER(anic_lane_count, by_reason)}}},
    {"anic_queue_count", {sizeof(anic_queue_count), {MEMBER(anic_queue_count, by_reason)}}},
    {"anic_counters",
     {sizeof(anic_counters),
      {MEMBER(anic_counters, lanes), MEMBER(anic_counters, queues), MEMBER(anic_counters, services),
       MEMBER(anic_counters, gone)}}},
    {"anic_port",
     {sizeof(anic_port),
      {MEMBER(anic_port, server), MEMBER(anic_port, client), MEMBER(anic_port, control),
       MEMBER(anic_port, tenants), MEMBER(anic_port, owners)}}},
    {"anic_owners", {sizeof(anic_owners), {MEMBER(anic_owners, server), MEMBER(anic_owners, client)}}},
    {"anic_control",
     {sizeof(anic_control),
      {MEMBER(anic_control, second), MEMBER(anic_control, packets), MEMBER(anic_control, alarms),
       MEMBER(anic_control, last_alarm_s)}}},
    {"anic_prepare", {sizeof(anic_prepare), {MEMBER(anic_prepare, expected), MEMBER(anic_prepare, _pad)}}},
    {"anic_proposal",
     {sizeof(anic_proposal),
      {MEMBER(anic_proposal, size), MEMBER(anic_proposal, kind), MEMBER(anic_proposal, tenant),
       MEMBER(anic_proposal, cls), MEMBER(anic_proposal, _pad), MEMBER(anic_proposal, service),
       MEMBER(anic_proposal, bucket), MEMBER(anic_proposal, _pad2), MEMBER(anic_proposal, value),
       MEMBER(anic_proposal, duration_ns), MEMBER(anic_proposal, cookie), MEMBER(anic_proposal, reason)}}},
    {"anic_answer",
     {sizeof(anic_answer),
      {MEMBER(anic_answer, cookie), MEMBER(anic_answer, decided), MEMBER(anic_answer, invariant),
       MEMBER(anic_answer, _pad), MEMBER(anic_answer, rewritten), MEMBER(anic_answer, observed),
       MEMBER(anic_answer, requested), MEMBER(anic_answer, approved), MEMBER(anic_answer, until_ns),
       MEMBER(anic_answer, seq)}}},
    {"anic_page",
     {sizeof(anic_page),
      {MEMBER(anic_page, answered), MEMBER(anic_page, _pad), MEMBER(anic_page, answers),
       MEMBER(anic_page, observation)}}},
    {"anic_observed_way",
     {sizeof(anic_observed_way),
      {MEMBER(anic_observed_way, packets), MEMBER(anic_observed_way, bytes),
       MEMBER(anic_observed_way, dropped_packets), MEMBER(anic_observed_way, dropped_bytes),
       MEMBER(anic_observed_way, given_bps), MEMBER(anic_observed_way, wanted_bps),
       MEMBER(anic_observed_way, ahead_ns)}}},
    {"anic_observed_lane",
     {sizeof(anic_observed_lane),
      {MEMBER(anic_observed_lane, tenant), MEMBER(anic_observed_lane, cls), MEMBER(anic_observed_lane, path),
       MEMBER(anic_observed_lane, floor_percent), MEMBER(anic_observed_lane, weight),
       MEMBER(anic_observed_lane, ceiling_bps), MEMBER(anic_observed_lane, rate_bps),
       MEMBER(anic_observed_lane, slo_ns), MEMBER(anic_observed_lane, at_ns),
       MEMBER(anic_observed_lane, ways), MEMBER(anic_observed_lane, samples),
       MEMBER(anic_observed_lane, over_slo), MEMBER(anic_observed_lane, missed),
       MEMBER(anic_observed_lane, p50_ns), MEMBER(anic_observed_lane, p99_ns),
       MEMBER(anic_observed_lane, window)}}},
    {"anic_observed_tenant",
     {sizeof(anic_observed_tenant),
      {MEMBER(anic_observed_tenant, tenant), MEMBER(anic_observed_tenant, failsafe),
       MEMBER(anic_observed_tenant, in_force), MEMBER(anic_observed_tenant, _pad),
       MEMBER(anic_observed_tenant, rate_bps), MEMBER(anic_observed_tenant, ceiling_bps),
       MEMBER(anic_observed_tenant, stated_bps), MEMBER(anic_observed_tenant, bulk_bps),
       MEMBER(anic_observed_tenant, free_ns), MEMBER(anic_observed_tenant, bulk_now_bps),
       MEMBER(anic_observed_tenant, bulk_stated_bps), MEMBER(anic_observed_tenant, bulk_least_bps),
       MEMBER(anic_observed_tenant, escalated), MEMBER(anic_observed_tenant, rebalanced)}}},
    {"anic_observation",
     {sizeof(anic_observation),
      {MEMBER(anic_observation, sequence), MEMBER(anic_observation, at_ns), MEMBER(anic_observation, number),
       MEMBER(anic_observation, generation), MEMBER(anic_observation, looked),
       MEMBER(anic_observation, envelope), MEMBER(anic_observation, grants), MEMBER(anic_observation, _pad),
       MEMBER(anic_observation, tenants), MEMBER(anic_observation, lanes)}}},
    {"anic_grants",
     {sizeof(anic_grants),
      {MEMBER(anic_grants, tenants), MEMBER(anic_grants, kinds), MEMBER(anic_grants, classes),
       MEMBER(anic_grants, paths), MEMBER(anic_grants, _pad)}}},
    {"anic_agent", {sizeof(anic_agent), {MEMBER(anic_agent, name), MEMBER(anic_agent, grants)}}},
    {"anic_envelope",
     {sizeof(anic_envelope),
      {MEMBER(anic_envelope, tick_ns),
       MEMBER(anic_envelope, heartbeat_ns),
       MEMBER(anic_envelope, duration_ns),
       MEMBER(anic_envelope, oscillation_ns),
       MEMBER(anic_envelope, instability_ns),
       MEMBER(anic_envelope, cool_down_ns),
       MEMBER(anic_envelope, slo_interval_ns),
       MEMBER(anic_envelope, borrow_max_bps),
       MEMBER(anic_envelope, borrow_step_bps),
       MEMBER(anic_envelope, weight_min),
       MEMBER(anic_envelope, weight_max),
       MEMBER(anic_envelope, weight_step),
       MEMBER(anic_envelope, throttle_percent),
       MEMBER(anic_envelope, changes_of_tenant),
       MEMBER(anic_envelope, changes),
       MEMBER(anic_envelope, actions),
       MEMBER(anic_envelope, flips),
       MEMBER(anic_envelope, rejections),
       MEMBER(anic_envelope, instabilities),
       MEMBER(anic_envelope, slo_percent),
       MEMBER(anic_envelope, slo_samples),
       MEMBER(anic_envelope, protects),
       MEMBER(anic_envelope, _pad)}}},
    {"anic_guarding",
     {sizeof(anic_guarding), {MEMBER(anic_guarding, envelope), MEMBER(anic_guarding, agents)}}},
    {"anic_action",
     {sizeof(anic_action),
      {MEMBER(anic_action, target), MEMBER(anic_action, in_force), MEMBER(anic_action, direction),
       MEMBER(anic_action, flips), MEMBER(anic_action, session), MEMBER(anic_action, stated),
       MEMBER(anic_action, value), MEMBER(anic_action, changed_ns), MEMBER(anic_action, until_ns),
       MEMBER(anic_action, flips_ns), MEMBER(anic_action, blocked_ns)}}},
    {"anic_escalation",
     {sizeof(anic_escalation), {MEMBER(anic_escalation, tenant), MEMBER(anic_escalation, service)}}},
    {"anic_session",
     {sizeof(anic_session),
      {MEMBER(anic_session, id), MEMBER(anic_session, asked), MEMBER(anic_session, opened_ns),
       MEMBER(anic_session, heard_ns), MEMBER(anic_session, agent), MEMBER(anic_session, rejected_in_row),
       MEMBER(anic_session, decided), MEMBER(anic_session, answered), MEMBER(anic_session, drained),
       MEMBER(anic_session, pending), MEMBER(anic_session, rejection)}}},
    {"anic_modes", {sizeof(anic_modes), {MEMBER(anic_modes, words)}}},
    {"anic_dump",
     {sizeof(anic_dump),
      {MEMBER(anic_dump, at_ns), MEMBER(anic_dump, until_ns), MEMBER(anic_dump, session),
       MEMBER(anic_dump, heard_ns), MEMBER(anic_dump, generation), MEMBER(anic_dump, rejected_in_row),
       MEMBER(anic_dump, kind), MEMBER(anic_dump, invariant), MEMBER(anic_dump, _pad),
       MEMBER(anic_dump, reason), MEMBER(anic_dump, lanes), MEMBER(anic_dump, wanted_bps),
       MEMBER(anic_dump, samples), MEMBER(anic_dump, over_slo), MEMBER(anic_dump, actions)}}},
    {"anic_watch",
     {sizeof(anic_watch),
      {MEMBER(anic_watch, samples), MEMBER(anic_watch, over_slo), MEMBER(anic_watch, good_ns),
       MEMBER(anic_watch, missed), MEMBER(anic_watch, waited)}}},
    {"anic_ward",
     {sizeof(anic_ward),
      {MEMBER(anic_ward, changes_due), MEMBER(anic_ward, unstable_ns), MEMBER(anic_ward, failed_ns),
       MEMBER(anic_ward, bulk_bps), MEMBER(anic_ward, unstable), MEMBER(anic_ward, failed),
       MEMBER(anic_ward, in_force), MEMBER(anic_ward, _pad), MEMBER(anic_ward, watches)}}},
    {"anic_guard",
     {sizeof(anic_guard),
      {MEMBER(anic_guard, lock), MEMBER(anic_guard, locked_ns), MEMBER(anic_guard, changes_due),
       MEMBER(anic_guard, sessions), MEMBER(anic_guard, slo_ns), MEMBER(anic_guard, missed_ns),
       MEMBER(anic_guard, ticks), MEMBER(anic_guard, ticks_locked), MEMBER(anic_guard, last_tick_ns),
       MEMBER(anic_guard, escalations), MEMBER(anic_guard, wanted_ns), MEMBER(anic_guard, stuck_ns)}}},
    {"anic_draining",
     {sizeof(anic_draining),
      {MEMBER(anic_draining, now_ns), MEMBER(anic_draining, observe), MEMBER(anic_draining, unused),
       MEMBER(anic_draining, word)}}},
    {"anic_order",
     {sizeof(anic_order),
      {MEMBER(anic_order, now_ns), MEMBER(anic_order, wall_ns), MEMBER(anic_order, session),
       MEMBER(anic_order, tenants), MEMBER(anic_order, kinds_classes), MEMBER(anic_order, paths_agent),
       MEMBER(anic_order, what), MEMBER(anic_order, reason)}}},
    {"anic_record",
     {sizeof(anic_record),
      {MEMBER(anic_record, seq),       MEMBER(anic_record, tenant_seq), MEMBER(anic_record, time_ns),
       MEMBER(anic_record, session),   MEMBER(anic_record, generation), MEMBER(anic_record, count),
       MEMBER(anic_record, service),   MEMBER(anic_record, bucket),     MEMBER(anic_record, tenant),
       MEMBER(anic_record, cls),       MEMBER(anic_record, kind),       MEMBER(anic_record, decided),
       MEMBER(anic_record, invariant), MEMBER(anic_record, proposed),   MEMBER(anic_record, failsafe),
       MEMBER(anic_record, _pad),      MEMBER(anic_record, rewritten),  MEMBER(anic_record, observed),
       MEMBER(anic_record, requested), MEMBER(anic_record, approved),   MEMBER(anic_record, until_ns),
       MEMBER(anic_record, reason),    MEMBER(anic_record, digest),     MEMBER(anic_record, mac)}}},
    {"anic_lost", {sizeof(anic_lost), {MEMBER(anic_lost, by_kind)}}},
    {"anic_chain",
     {sizeof(anic_chain),
      {MEMBER(anic_chain, seq), MEMBER(anic_chain, mac), MEMBER(anic_chain, key), MEMBER(anic_chain, number),
       MEMBER(anic_chain, tenant_seq), MEMBER(anic_chain, tenancy), MEMBER(anic_chain, numbered),
       MEMBER(anic_chain, waiting_first), MEMBER(anic_chain, waiting), MEMBER(anic_chain, lost),
       MEMBER(anic_chain, lost_total), MEMBER(anic_chain, lost_now), MEMBER(anic_chain, ended)}}},
};

// Structs that live and die on the BPF stack, and never cross.
const std::set<std::string> kKernelOnly = {"anic_batch",  "anic_observing",   "anic_pkt",   "anic_scratch",
                                           "anic_ticker", "anic_turn_packet", "anic_window"};

// Inner maps: of their keys and values BTF knows the sizes, not the types.
struct Sizes {
  std::size_t key;
  std::size_t value;
};
const std::map<std::string, Sizes> kInnerMaps = {
    {"anic_trie", {sizeof(anic_prefix), sizeof(std::uint32_t)}},
    {"anic_sender_map", {sizeof(anic_sender), sizeof(std::uint32_t)}},
    {"anic_xsk_page", {sizeof(std::uint32_t), sizeof(anic_owner)}},
};

std::string name_of(const btf* types, std::uint32_t offset) { return btf__name_by_offset(types, offset); }

void check_layout(const btf* types, const btf_type* type, const Layout& ours) {
  CHECK(type->size == ours.size);
  REQUIRE(btf_vlen(type) == ours.offsets.size());
  for (unsigned i = 0; i < btf_vlen(type); ++i) {
    const std::string member = name_of(types, btf_members(type)[i].name_off);
    INFO(member);
    REQUIRE(ours.offsets.contains(member));
    CHECK(btf_member_bit_offset(type, i) == ours.offsets.at(member) * 8);
  }
}

/// What __uint(name, number) says: a pointer to an array of so many elements.
std::size_t number_of(const btf* types, const btf_type* type, const std::string& name) {
  for (unsigned i = 0; i < btf_vlen(type); ++i) {
    const btf_member& member = btf_members(type)[i];
    if (name_of(types, member.name_off) != name) continue;
    return btf_array(btf__type_by_id(types, btf__type_by_id(types, member.type)->type))->nelems;
  }
  return 0;
}

/// Its structs, each as it is in C++.
std::set<std::string> check_object(const char* file) {
  const std::unique_ptr<btf, void (*)(btf*)> types(btf__parse(file, nullptr), btf__free);
  REQUIRE(types);
  std::set<std::string> seen;
  for (unsigned id = 1; id < btf__type_cnt(types.get()); ++id) {
    const btf_type* type = btf__type_by_id(types.get(), id);
    const std::string name = name_of(types.get(), type->name_off);
    if (!btf_is_struct(type) || !name.starts_with("anic_") || kKernelOnly.contains(name)) continue;
    INFO(name);
    seen.insert(name);
    if (const auto inner = kInnerMaps.find(name); inner != kInnerMaps.end()) {
      CHECK(number_of(types.get(), type, "key_size") == inner->second.key);
      CHECK(number_of(types.get(), type, "value_size") == inner->second.value);
      continue;
    }
    REQUIRE(kOurs.contains(name));
    check_layout(types.get(), type, kOurs.at(name));
  }
  return seen;
}

}  // namespace

TEST_CASE("abi: structs in maps have the same layout in BPF and in C++") {
  std::set<std::string> seen = check_object("skel/instance.bpf.o");
  seen.merge(check_object("skel/session.bpf.o"));
  CHECK(seen.size() == kOurs.size() + kInnerMaps.size());
}

TEST_CASE("abi: the record of queues that are set aside keeps its layout, which no BPF object has") {
  CHECK(sizeof(anic_aside_rule) == 16);
  const Layout rule = {0,
                       {MEMBER(anic_aside_rule, location), MEMBER(anic_aside_rule, source_port),
                        MEMBER(anic_aside_rule, source_mask), MEMBER(anic_aside_rule, destination_port),
                        MEMBER(anic_aside_rule, destination_mask), MEMBER(anic_aside_rule, queue),
                        MEMBER(anic_aside_rule, protocol), MEMBER(anic_aside_rule, version)}};
  CHECK(rule.offsets == std::map<std::string, std::size_t>{{"location", 0},
                                                           {"source_port", 4},
                                                           {"source_mask", 6},
                                                           {"destination_port", 8},
                                                           {"destination_mask", 10},
                                                           {"queue", 12},
                                                           {"protocol", 14},
                                                           {"version", 15}});
  CHECK(sizeof(anic_aside) == 24640);
  const Layout record = {
      0,
      {MEMBER(anic_aside, netns_cookie), MEMBER(anic_aside, ifindex), MEMBER(anic_aside, done),
       MEMBER(anic_aside, turned_ntuple_on), MEMBER(anic_aside, table_size),
       MEMBER(anic_aside, table_is_default), MEMBER(anic_aside, rules_count), MEMBER(anic_aside, queues),
       MEMBER(anic_aside, rules), MEMBER(anic_aside, before), MEMBER(anic_aside, after)}};
  CHECK(record.offsets == std::map<std::string, std::size_t>{{"netns_cookie", 0},
                                                             {"ifindex", 8},
                                                             {"done", 12},
                                                             {"turned_ntuple_on", 16},
                                                             {"table_size", 20},
                                                             {"table_is_default", 24},
                                                             {"rules_count", 28},
                                                             {"queues", 32},
                                                             {"rules", 64},
                                                             {"before", 8256},
                                                             {"after", 16448}});
}

TEST_CASE("abi: the record of header/data split keeps its layout, which no BPF object has") {
  CHECK(sizeof(anic_split) == 24);
  const Layout record = {
      0,
      {MEMBER(anic_split, netns_cookie), MEMBER(anic_split, ifindex), MEMBER(anic_split, was_on),
       MEMBER(anic_split, threshold_changed), MEMBER(anic_split, threshold_before)}};
  CHECK(record.offsets == std::map<std::string, std::size_t>{{"netns_cookie", 0},
                                                             {"ifindex", 8},
                                                             {"was_on", 12},
                                                             {"threshold_changed", 16},
                                                             {"threshold_before", 20}});
}

TEST_CASE("abi: the record of NAPI settings keeps its layout, which no BPF object has") {
  CHECK(sizeof(anic_napi) == 48);
  CHECK(offsetof(anic_napi, before) == 8);
  CHECK(sizeof(anic_napi_record) == 49216);
  const Layout record = {
      0,
      {MEMBER(anic_napi_record, netns_cookie), MEMBER(anic_napi_record, ifindex),
       MEMBER(anic_napi_record, done), MEMBER(anic_napi_record, set), MEMBER(anic_napi_record, count),
       MEMBER(anic_napi_record, after), MEMBER(anic_napi_record, napis)}};
  CHECK(record.offsets == std::map<std::string, std::size_t>{{"netns_cookie", 0},
                                                             {"ifindex", 8},
                                                             {"done", 12},
                                                             {"set", 16},
                                                             {"count", 20},
                                                             {"after", 24},
                                                             {"napis", 64}});
}
