// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A policy as its author means it, after validation. Lists are in the order of the document.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "abi/guardian.h"
#include "abi/policy.h"
#include "abi/types.h"
#include "policy/napi.hpp"

namespace agentnic::policy {

inline constexpr std::uint16_t kDefaultWeight = 100;

/// The classes that a policy can name; control is not one of them.
inline constexpr std::array<anic_class, 4> kClasses = {ANIC_CLASS_DEFAULT, ANIC_CLASS_RPC,
                                                       ANIC_CLASS_RETRIEVAL, ANIC_CLASS_BULK};

/// Indexed by anic_class.
template <typename T>
using ByClass = std::array<T, ANIC_CLASS__MAX>;

/// What a class gives its packets at egress, for qdiscs, the driver and the network; nothing: they keep what
/// they have.
struct Marks {
  std::optional<std::uint8_t> priority;  ///< of the skb
  std::optional<std::uint8_t> queue;     ///< to transmit by
  std::optional<std::uint8_t> dscp;
};

/// What the document says of a class at one level.
struct StatedTerms {
  std::optional<std::uint64_t> slo_ns;
  std::optional<std::uint16_t> floor_percent;
  std::optional<std::uint16_t> weight;
  Marks egress;
  std::optional<std::vector<std::uint16_t>> cpus = std::nullopt;
};

/// What holds for a class of a tenant.
struct Terms {
  std::uint64_t slo_ns = 0;         ///< 0: none is stated
  std::uint16_t floor_percent = 0;  ///< of the tenant's minimum
  std::uint16_t weight = kDefaultWeight;
  Marks egress;
  std::vector<std::uint16_t> cpus;  ///< that its flows are spread over; empty: they stay where they come
};

/// Rates in bit/s; 0: not stated.
struct Budget {
  std::uint64_t minimum_bps = 0;
  std::uint64_t ceiling_bps = 0;
  std::uint64_t bulk_bps = 0;             ///< the most that the class bulk may have
  std::uint16_t weight = kDefaultWeight;  ///< beside other tenants
};

/// Whose traffic: by who sends it, by this host's address, by the other's.
struct Tenant {
  std::string name;
  std::vector<anic_prefix> remotes;
  std::vector<anic_prefix> locals;
  std::vector<std::string> cgroups;  ///< paths below the cgroup2 root
  std::vector<std::uint32_t> marks;
  anic_class default_class = ANIC_CLASS_DEFAULT;
  Budget budget;
  ByClass<StatedTerms> classes;
};

/// One named port: what its packets count as, and how far they may go.
struct Service {
  std::string name;
  std::string tenant;         ///< its name; empty: any
  std::uint8_t protocol = 0;  ///< IPPROTO_UDP or IPPROTO_TCP
  std::uint16_t port = 0;
  anic_role role = ANIC_ROLE_SERVER;
  anic_class cls = ANIC_CLASS_NONE;
  anic_path path = ANIC_PATH_NONE;
  std::string owner_name;               ///< the user who may own its AF_XDP sockets; empty: none is named
  std::uint32_t owner = ANIC_NO_OWNER;  ///< ... or the user's id
};

/// A port that is never dropped, policed, redirected or re-classed.
struct ControlPort {
  std::uint8_t protocol = 0;
  std::uint16_t port = 0;
  anic_role role = ANIC_ROLE_SERVER;
};

struct DscpRule {
  std::uint8_t value = 0;
  anic_class cls = ANIC_CLASS_NONE;
};

/// The static profile that is in force when nothing else can be trusted.
struct Fallback {
  bool keeps_paths = false;          ///< else every lane is on path A
  ByClass<std::uint16_t> weights{};  ///< 0: the lane keeps its own
};

/// What the guardian holds proposals to where the document states nothing else; docs/guardian.md says why.
/// Nothing may be borrowed.
inline constexpr anic_envelope kDefaultEnvelope = {.tick_ns = 10'000'000,
                                                   .heartbeat_ns = 1'000'000'000,
                                                   .duration_ns = 60'000'000'000,
                                                   .oscillation_ns = 10'000'000'000,
                                                   .instability_ns = 60'000'000'000,
                                                   .cool_down_ns = 30'000'000'000,
                                                   .slo_interval_ns = 200'000'000,
                                                   .borrow_max_bps = 0,
                                                   .borrow_step_bps = 0,
                                                   .weight_min = 1,
                                                   .weight_max = ANIC_WEIGHT_MAX,
                                                   .weight_step = 100,
                                                   .throttle_percent = 50,
                                                   .changes_of_tenant = 10,
                                                   .changes = 50,
                                                   .actions = 8,
                                                   .flips = 2,
                                                   .rejections = 64,
                                                   .instabilities = 3,
                                                   .slo_percent = 5,
                                                   .slo_samples = 20,
                                                   .protects = 1,
                                                   ._pad = 0};

/// What one agent may ask for, as bits of struct anic_grants.
struct Agent {
  std::string name;
  std::vector<std::string> tenants;  ///< their names
  std::uint32_t kinds = 0;
  std::uint32_t classes = 0;
  std::uint32_t paths = 0;
};

using Digest = std::array<std::uint8_t, ANIC_DIGEST_LEN>;

struct Policy {
  std::string name;
  bool faces_workload = false;      ///< the interface is the host's end of a workload's
  std::uint64_t link_rate_bps = 0;  ///< 0: not stated
  std::uint32_t control_alarm = 0;  ///< control packets a second; 0: no alarm
  ByClass<StatedTerms> classes;     ///< of every tenant, and of traffic of none
  std::vector<Tenant> tenants;
  std::vector<Service> services;
  std::vector<DscpRule> dscp;
  std::vector<ControlPort> control;
  std::vector<ControlPort> management;
  Fallback fallback;
  Napi napi;  ///< what is not stated stays as it is
  anic_envelope envelope = kDefaultEnvelope;
  std::vector<Agent> agents;
  Digest digest{};  ///< SHA-256 of the document without white space, keys sorted

  [[nodiscard]] bool needs_xsk() const;

  /// Whether a class is spread over CPUs.
  [[nodiscard]] bool steers() const;

  /// What holds for `cls`: what `tenant` states, else what the policy states, else nothing. No tenant:
  /// nullptr.
  [[nodiscard]] Terms terms(const Tenant* tenant, anic_class cls) const;
};

/// The words of the policy language; "?" for a value that has none.
std::string_view class_name(std::uint8_t cls);
std::string_view path_name(std::uint8_t path);
std::string_view protocol_name(std::uint8_t protocol);
std::string_view role_name(std::uint8_t role);
std::string_view change_name(std::uint8_t kind);  ///< enum anic_change

}  // namespace agentnic::policy
