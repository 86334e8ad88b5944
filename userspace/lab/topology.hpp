// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The lab: two network namespaces joined by a veth pair.

#include <cstdint>
#include <string>

#include "base/result.hpp"

namespace agentnic::lab {

/// One end of the lab. Addresses are from the blocks for benchmarks and documentation (RFC 2544, RFC 3849).
struct Host {
  std::string netns;
  std::string ifname;
  std::string mac;
  std::string ipv4;
  std::string ipv6;
};

/// Names and addresses of a lab called `name`; nothing is made by asking.
struct Lab {
  explicit Lab(const std::string& name);
  Host client;
  Host server;
};

inline constexpr const char* kDefaultLab = "agentnic";

/// Makes it: one queue on each side, static neighbours, no router advertisements or duplicate address
/// detection, transmit checksum offload off, so that frames on the veth are what they would be on a wire.
/// A lab of this name that is there, whole or not, is taken down first. On failure nothing is left.
Status lab_up(const Lab& lab);

/// Both ends as NICs are: TCP is cut, summed and joined below the stack, here by whoever takes an aggregate.
Status lab_aggregate(const Lab& lab);
/// Gives both ends NAPI, as NICs have it; a veth has one while it joins packets (GRO)
/// and does not cut them (TSO), or has an XDP program.
Status lab_napi(const Lab& lab);

/// True when something was there.
Result<bool> lab_down(const Lab& lab);

/// Gives this process mounts of its own, with an empty list of network namespaces and a bpffs of its own, so
/// that whatever it makes there goes when it and its children end, however they end.
Status private_mounts();

}  // namespace agentnic::lab
