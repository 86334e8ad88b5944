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

#include "abi/flow.h"
#include "abi/lane.h"
#include "abi/meta.h"
#include "abi/policy.h"
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
       MEMBER(anic_service, path), MEMBER(anic_service, fresh)}}},
    {"anic_tenant",
     {sizeof(anic_tenant),
      {MEMBER(anic_tenant, name), MEMBER(anic_tenant, cls), MEMBER(anic_tenant, fresh),
       MEMBER(anic_tenant, _pad)}}},
    {"anic_state",
     {sizeof(anic_state),
      {MEMBER(anic_state, word), MEMBER(anic_state, hash_factor), MEMBER(anic_state, hash_keys)}}},
    {"anic_commit",
     {sizeof(anic_commit),
      {MEMBER(anic_commit, expected), MEMBER(anic_commit, uses), MEMBER(anic_commit, now_ns)}}},
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
      {MEMBER(anic_steering, to), MEMBER(anic_steering, last), MEMBER(anic_steering, used),
       MEMBER(anic_steering, _pad)}}},
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
};

// Structs that live and die on the BPF stack, and never cross.
const std::set<std::string> kKernelOnly = {"anic_pkt", "anic_ticker", "anic_turn_packet"};

// Inner maps: of their keys and values BTF knows the sizes, not the types.
struct Sizes {
  std::size_t key;
  std::size_t value;
};
const std::map<std::string, Sizes> kInnerMaps = {
    {"anic_trie", {sizeof(anic_prefix), sizeof(std::uint32_t)}},
    {"anic_sender_map", {sizeof(anic_sender), sizeof(std::uint32_t)}},
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

}  // namespace

TEST_CASE("abi: structs in maps have the same layout in BPF and in C++") {
  const std::unique_ptr<btf, void (*)(btf*)> types(btf__parse("skel/instance.bpf.o", nullptr), btf__free);
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
  CHECK(seen.size() == kOurs.size() + kInnerMaps.size());
}
