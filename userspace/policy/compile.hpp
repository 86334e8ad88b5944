// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Policy to table entries. Pure.

#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "abi/guardian.h"
#include "abi/lane.h"
#include "abi/policy.h"
#include "abi/steer.h"
#include "base/result.hpp"
#include "policy/model.hpp"
#include "policy/order.hpp"

namespace agentnic::policy {

/// Names to ids. Kept from generation to generation: who keeps its name keeps its id, and with it its
/// counters.
struct Ids {
  std::map<std::string, std::uint16_t, std::less<>> tenants;
  std::map<std::string, std::uint16_t, std::less<>> services;
  std::map<std::string, std::uint16_t, std::less<>> agents;

  friend bool operator==(const Ids&, const Ids&) = default;
};

/// Ids for `policy`: those of `previous` where the name is the same, else the lowest that neither uses. Fails
/// when they run out although the policy fits: ids of what is to go are free only once it has gone.
Result<Ids> assign_ids(const Policy& policy, const Ids& previous);

/// What the maps will hold in one slot. Senders by cgroup are still paths, and owners users' names: whoever
/// knows the machine resolves them.
struct Tables {
  anic_policy policy{};                            ///< committed_at_ns is 0
  std::vector<anic_tenant> tenants;                ///< ANIC_TENANTS_MAX, by id
  std::vector<anic_service> services;              ///< by id, up to the highest in use
  std::map<std::uint32_t, anic_port> ports;        ///< by port_index()
  std::map<anic_owned_port, std::uint32_t> owned;  ///< service ids
  std::map<anic_prefix, std::uint32_t> remotes;    ///< tenant ids, as in the next three
  std::map<anic_prefix, std::uint32_t> locals;
  std::map<anic_sender, std::uint32_t> senders;  ///< marks
  std::map<std::string, std::uint32_t> cgroups;  ///< by path below the cgroup2 root
  std::map<std::uint32_t, std::string> users;    ///< owners that are named, by service id
  std::vector<anic_lane> lanes;                  ///< by lane_index()
  std::vector<anic_spread> spread;               ///< ANIC_LANES_MAX, by id
  anic_guarding guarding{};                      ///< agents by id
  Napi napi;  ///< of the interface: in no map of the instance, but in the record of what was set

  friend bool operator==(const Tables&, const Tables&) = default;
};

/// `ids` has every name of `policy`.
Tables compile(const Policy& policy, const Ids& ids);

/// The index of a port in anic_ports.
std::uint32_t port_index(std::uint8_t protocol, std::uint16_t port);

/// The index of a lane in Tables::lanes.
std::size_t lane_index(anic_profile profile, std::uint32_t tenant, std::uint32_t cls);

/// The CPUs of a lane, each once, in the order of its buckets.
std::vector<unsigned> cpus_of(const anic_spread& spread);

/// Who may own the sockets of the service of this id: the user's name or else id; nothing: none is named.
std::string owner_of(const Tables& tables, std::size_t id);

/// The text in a row's name, which need not end in what is read back from a kernel.
template <std::size_t N>
std::string name_in(const char (&name)[N]) {
  return {name, ::strnlen(name, N)};
}

/// The words of the policy language for what is granted, in the order of ids.
struct GrantWords {
  std::vector<std::string> tenants;
  std::vector<std::string> kinds;
  std::vector<std::string> classes;
  std::vector<std::string> paths;
};
GrantWords words_of(const anic_grants& grants, const Tables& tables);

}  // namespace agentnic::policy
