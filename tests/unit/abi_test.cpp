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
#include "abi/meta.h"
#include "abi/stats.h"

namespace {

struct Layout {
  std::size_t size;
  std::map<std::string, std::size_t> offsets;
};

#define MEMBER(type, name) {#name, offsetof(type, name)}

// Every struct of bpf/abi that a map holds. One that is missing here fails the test below.
const std::map<std::string, Layout> kOurs = {
    {"anic_port",
     {sizeof(anic_port),
      {MEMBER(anic_port, cls), MEMBER(anic_port, path), MEMBER(anic_port, service),
       MEMBER(anic_port, _pad)}}},
    {"anic_service",
     {sizeof(anic_service),
      {MEMBER(anic_service, name), MEMBER(anic_service, port), MEMBER(anic_service, protocol),
       MEMBER(anic_service, cls), MEMBER(anic_service, path), MEMBER(anic_service, _pad)}}},
    {"anic_count", {sizeof(anic_count), {MEMBER(anic_count, packets), MEMBER(anic_count, bytes)}}},
    {"anic_counters",
     {sizeof(anic_counters),
      {MEMBER(anic_counters, by_reason), MEMBER(anic_counters, by_class),
       MEMBER(anic_counters, by_service)}}},
    {"anic_meta",
     {sizeof(anic_meta),
      {MEMBER(anic_meta, abi_version), MEMBER(anic_meta, meta_size), MEMBER(anic_meta, netns_cookie),
       MEMBER(anic_meta, attached_at_ns), MEMBER(anic_meta, ifindex), MEMBER(anic_meta, queues),
       MEMBER(anic_meta, hook), MEMBER(anic_meta, mode), MEMBER(anic_meta, _pad),
       MEMBER(anic_meta, policy_digest), MEMBER(anic_meta, policy_name), MEMBER(anic_meta, ifname)}}},
};

// Structs that live and die on the BPF stack, and never cross.
const std::set<std::string> kKernelOnly = {"anic_decision", "anic_pkt", "anic_vlan"};

}  // namespace

TEST_CASE("abi: structs in maps have the same layout in BPF and in C++") {
  const std::unique_ptr<btf, void (*)(btf*)> types(btf__parse("skel/instance.bpf.o", nullptr), btf__free);
  REQUIRE(types);
  std::set<std::string> seen;
  for (unsigned id = 1; id < btf__type_cnt(types.get()); ++id) {
    const btf_type* type = btf__type_by_id(types.get(), id);
    const std::string name = btf__name_by_offset(types.get(), type->name_off);
    if (!btf_is_struct(type) || !name.starts_with("anic_") || kKernelOnly.contains(name)) continue;
    INFO(name);
    REQUIRE(kOurs.contains(name));
    seen.insert(name);
    const Layout& ours = kOurs.at(name);
    CHECK(type->size == ours.size);
    REQUIRE(btf_vlen(type) == ours.offsets.size());
    for (unsigned i = 0; i < btf_vlen(type); ++i) {
      const std::string member = btf__name_by_offset(types.get(), btf_members(type)[i].name_off);
      INFO(member);
      REQUIRE(ours.offsets.contains(member));
      CHECK(btf_member_bit_offset(type, i) == ours.offsets.at(member) * 8);
    }
  }
  CHECK(seen.size() == kOurs.size());
}
