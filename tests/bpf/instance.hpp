// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A loaded instance without an interface, and packets through its packet path. What fails here fails the
/// test.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "../fixtures/entry.h"
#include "../model/model.hpp"
#include "abi/stats.h"
#include "kern/maps.hpp"
#include "kern/object.hpp"
#include "policy/compile.hpp"
#include "policy/model.hpp"

struct bpf_object;

namespace agentnic {

/// A packet for tests/fixtures/entry.bpf.c. A frame longer than ANIC_TEST_BYTES goes on with zeros.
anic_test_packet make_packet(std::span<const std::byte> frame, std::uint32_t mark = 0,
                             std::uint32_t queue = 0);

/// The frame as the packet path sees it.
std::vector<std::byte> frame_of(const anic_test_packet& packet);

/// XDP_PASS, or TC_ACT_UNSPEC: without a socket no packet is redirected.
std::int32_t passed(model::Hook hook);
/// XDP_DROP, or TC_ACT_SHOT.
std::int32_t dropped(model::Hook hook);

/// The instance object, and the test programs over its maps.
class Instance final {
 public:
  explicit Instance(const std::optional<kern::ChainKey>& chain_key = std::nullopt);

  /// Puts a policy in force, with ids that follow from those in force; `edit` may change its tables before.
  /// Its ids.
  policy::Ids install(const policy::Policy& policy, const std::function<void(policy::Tables&)>& edit = {},
                      std::uint64_t now_ns = 0);
  policy::Ids install(const std::string& json);

  /// One frame through the instance's own program; its verdict, or nothing if the kernel makes no packet of
  /// it. At TC it has this mark, and is an aggregate of so many segments.
  [[nodiscard]] std::optional<std::int32_t> pass(model::Hook hook, std::span<const std::byte> frame,
                                                 std::uint32_t mark = 0, std::uint32_t segments = 0) const;

  /// Runs packets through the test programs, one after the other at a time; at most ANIC_TEST_PACKETS_MAX.
  [[nodiscard]] std::vector<anic_test_result> run(model::Hook hook, std::span<const anic_test_packet> packets,
                                                  std::uint64_t now_ns = 0) const;

  /// Shares rates out at a time; no timer does.
  void tick(std::uint64_t now_ns) const;

  /// The same, which may answer -EBUSY: somebody holds the guardian's lock.
  [[nodiscard]] int try_tick(std::uint64_t now_ns) const;

  /// Counts answers of a lane, and sets what it asked for.
  void count_turns(anic_test_turn turn) const;

  /// One of the operator's programs, which takes its time from its order.
  [[nodiscard]] int operator_fd(const std::string& name) const;
  [[nodiscard]] kern::CommitPrograms commit() const;

  /// The sum over all CPUs.
  [[nodiscard]] std::unique_ptr<anic_counters> counters() const;
  [[nodiscard]] anic_control control() const;

  [[nodiscard]] const kern::Object& object() const { return object_; }
  [[nodiscard]] const kern::Maps& maps() const { return maps_; }

 private:
  /// Of the test programs, each of which is loaded when it is first wanted.
  [[nodiscard]] int program(const char* name) const;
  /// Of the test programs, once there is one.
  [[nodiscard]] int map(const char* name) const;

  kern::Object object_;
  kern::Maps maps_;
  policy::Ids ids_;
  using Loaded = std::map<std::string, std::unique_ptr<bpf_object, void (*)(bpf_object*)>>;  ///< by program
  mutable Loaded entries_;
  mutable Loaded operators_;
};

/// One line for each counter that differs, "" if none does: what it counts, and both values.
std::string counter_differences(const anic_counters& expected, const anic_counters& found);

}  // namespace agentnic
