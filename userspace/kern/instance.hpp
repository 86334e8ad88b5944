// SPDX-License-Identifier: Apache-2.0
#pragma once

/// An instance: agentnic on one interface. Its state is in pinned maps, so these are verbs, not objects;
/// each opens what it needs, and may be killed at any step.
///
/// Attaching pins the maps first, with the policy in force, then the egress program, and the ingress program
/// last: the pin of its link, or its place in libxdp's dispatcher or in clsact, is the moment from which the
/// instance exists. Whatever stops earlier leaves pins and perhaps an egress program, which the next attach
/// or detach removes.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "abi/meta.h"
#include "base/result.hpp"
#include "base/unique_fd.hpp"
#include "kern/bpffs.hpp"
#include "kern/chain_key.hpp"
#include "kern/generation.hpp"
#include "kern/hook.hpp"
#include "kern/netns.hpp"
#include "kern/owner_page.hpp"
#include "policy/model.hpp"

namespace agentnic::kern {

/// Words of --require: what must have been obtained, or the attach is undone.
inline constexpr const char* kRequireWords[] = {"native", "skb", "tc", "dispatcher"};

struct AttachOptions {
  ModeRequest mode = ModeRequest::Auto;
  std::vector<std::string> require;
  /// Called when an instance is made, and not for one that is there already, which keeps its own; else a key
  /// is drawn at random.
  std::function<Result<ChainKey>()> chain_key = nullptr;
  /// Called, before anything is changed, with what the user should know of what will be.
  std::function<void(const std::string&)> warn = [](const std::string&) {};
};

struct AttachReport {
  anic_hook hook = ANIC_HOOK_NONE;
  anic_mode mode = ANIC_MODE_NONE;
  anic_hook egress_hook = ANIC_HOOK_NONE;
  bool already = false;  ///< it was attached with this policy; nothing changed but NAPIs that came since
  std::string why;       ///< why this mode was tried first
  std::vector<std::string> notes;
};

/// Attaches, or finds it attached. Nothing is left behind on failure.
Result<AttachReport> attach_instance(const NetNs& netns, const std::string& ifname,
                                     const policy::Policy& policy, const AttachOptions& options);

/// What attach_instance() would do, as far as that can be known without doing it. Needs no privileges.
struct AttachForecast {
  Interface interface;
  ModePlan plan;
  std::vector<std::string> warnings;
  policy::Tables tables;  ///< that would be installed
  std::uint64_t memory_bytes = 0;
  std::string pins;
  bool already = false;  ///< it is attached with this policy; nothing would change
};
Result<AttachForecast> forecast_attach(const NetNs& netns, const std::string& ifname,
                                       const policy::Policy& policy, const AttachOptions& options);

/// How an instance is.
enum class Health {
  Attached,
  Gone,        ///< the interface or its namespace was removed, or someone forced the program off
  Incomplete,  ///< an attach was stopped half-way
  OtherAbi,    ///< pinned by another version
};

struct InstanceStatus {
  PinDir dir;
  std::optional<NetNs> netns;  ///< nothing when it has no name and is not the current one
  Health health = Health::Incomplete;
  std::string problem;        ///< what is wrong and what to do, unless Attached
  anic_meta meta{};           ///< zero when it could not be read
  InForce in_force;           ///< generation 0 when it could not be read
  std::string ifname;         ///< as it is called now
  std::uint32_t ifindex = 0;  ///< 0 once the interface is gone
  std::uint32_t prog_id = 0;
  std::string root_qdisc;          ///< of look_at_limits(); empty when it could not be read
  std::vector<std::string> notes;  ///< likewise: what its user should know
};

/// Says in the tables whether packets wait at egress for the time they are given, or are policed there: the
/// first where the interface's root qdisc waits.
Status choose_egress(const NetNs& netns, std::uint32_t ifindex, policy::Tables& tables);

/// The state of one instance; nothing when there is no pin of it.
std::optional<InstanceStatus> inspect_instance(const PinDir& dir);

/// Finds out whether the limits of the policy are kept, and where there are none; for whoever shows it.
void look_at_limits(InstanceStatus& status);

/// The instance of the interface that has this name now; else what is left under this name, unless it is
/// attached to an interface that was renamed.
std::optional<InstanceStatus> find_instance(const NetNs& netns, const std::string& ifname);

/// The attached instance of an interface, or why there is none that could be worked with.
Result<InstanceStatus> need_attached(const NetNs& netns, const std::string& ifname, const std::string& verb);

struct DetachReport {
  bool was_there = false;  ///< else nothing was done
  /// That were in the audit's ring when it ended, and went with it. 0 when a recorder has the ring, and of
  /// what is half made.
  std::uint64_t untaken_records = 0;
  std::vector<std::string> notes;  ///< of what could not be given back as it was
};

/// Works on what is broken, half-made, or of another version.
Result<DetachReport> detach_instance(const PinDir& dir);

/// Open them before entering the namespace.
Result<XskSlots> open_xsk_slots(const NetNs& netns, const std::string& ifname);

/// Fails unless this process may load BPF programs and change interfaces.
Status need_privileges(const std::string& verb);

}  // namespace agentnic::kern
