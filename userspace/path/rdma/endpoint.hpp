// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What the two ends of a queue pair must know of each other. It comes from the network by a channel of the
/// caller's, who has to know that it is from the peer: whoever can change it directs writes to other memory.
/// Pure.

#include <infiniband/verbs.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.hpp"
#include "path/rdma/device.hpp"

namespace agentnic::path {

struct RdmaEndpoint {
  std::uint32_t queue_pair = 0;  ///< 24 bits
  std::uint32_t sequence = 0;    ///< the first packet's number (PSN), 24 bits
  Gid gid{};
  ibv_mtu mtu = IBV_MTU_256;
  std::uint8_t reads = 0;   ///< of the peer's, that it answers at a time
  std::uint16_t slots = 0;  ///< of memory that the peer may write to; 0: none
  std::uint32_t slot_bytes = 0;
  std::uint64_t address = 0;  ///< of the first, in this end's process
  std::uint32_t key = 0;      ///< for it (rkey)
};

inline constexpr std::size_t kEndpointBytes = 45;

/// Big-endian, in the order of the members, after a byte with the version.
std::vector<std::byte> encode_endpoint(const RdmaEndpoint& endpoint);
/// Bad input: another length or version, or what no queue pair can have.
Result<RdmaEndpoint> decode_endpoint(std::span<const std::byte> bytes);

}  // namespace agentnic::path
