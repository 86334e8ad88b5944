// SPDX-License-Identifier: Apache-2.0
#include "path/rdma/endpoint.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <concepts>

namespace agentnic::path {
namespace {

constexpr std::uint8_t kEndpointVersion = 1;
constexpr std::uint32_t k24Bits = (1U << 24U) - 1;
constexpr std::uint16_t kSlotsMost = 4096;
constexpr std::uint32_t kSlotBytesMost = 64U << 20U;

template <std::unsigned_integral T>
void put(std::vector<std::byte>& bytes, T value) {
  for (std::size_t i = sizeof(T); i-- > 0;) bytes.push_back(static_cast<std::byte>(value >> (8 * i)));
}

/// Of bytes that were counted before.
template <std::unsigned_integral T>
T take(std::span<const std::byte>& bytes) {
  T value = 0;
  for (const std::byte byte : bytes.first(sizeof(T)))
    value = static_cast<T>(static_cast<std::uint64_t>(value) << 8U) | static_cast<T>(byte);
  bytes = bytes.subspan(sizeof(T));
  return value;
}

}  // namespace

std::vector<std::byte> encode_endpoint(const RdmaEndpoint& endpoint) {
  std::vector<std::byte> bytes;
  put(bytes, kEndpointVersion);
  put(bytes, endpoint.queue_pair);
  put(bytes, endpoint.sequence);
  bytes.insert(bytes.end(), endpoint.gid.begin(), endpoint.gid.end());
  put(bytes, static_cast<std::uint8_t>(endpoint.mtu));
  put(bytes, endpoint.reads);
  put(bytes, endpoint.slots);
  put(bytes, endpoint.slot_bytes);
  put(bytes, endpoint.address);
  put(bytes, endpoint.key);
  return bytes;
}

Result<RdmaEndpoint> decode_endpoint(std::span<const std::byte> bytes) {
  if (bytes.size() != kEndpointBytes) {
    return fail(Exit::BadInput,
                fmt::format("the peer's RDMA endpoint has {} bytes, not {}", bytes.size(), kEndpointBytes));
  }
  if (const auto version = take<std::uint8_t>(bytes); version != kEndpointVersion) {
    return fail(Exit::BadInput, fmt::format("the peer's RDMA endpoint has version {}, this is version {}",
                                            version, kEndpointVersion));
  }
  RdmaEndpoint endpoint;
  endpoint.queue_pair = take<std::uint32_t>(bytes);
  endpoint.sequence = take<std::uint32_t>(bytes);
  std::ranges::copy(bytes.first(endpoint.gid.size()), endpoint.gid.begin());
  bytes = bytes.subspan(endpoint.gid.size());
  const auto mtu = take<std::uint8_t>(bytes);
  endpoint.reads = take<std::uint8_t>(bytes);
  endpoint.slots = take<std::uint16_t>(bytes);
  endpoint.slot_bytes = take<std::uint32_t>(bytes);
  endpoint.address = take<std::uint64_t>(bytes);
  endpoint.key = take<std::uint32_t>(bytes);
  const std::uint64_t length = static_cast<std::uint64_t>(endpoint.slots) * endpoint.slot_bytes;
  if (endpoint.queue_pair == 0 || endpoint.queue_pair > k24Bits || endpoint.sequence > k24Bits ||
      mtu < IBV_MTU_256 || mtu > IBV_MTU_4096 || endpoint.slots > kSlotsMost ||
      endpoint.slot_bytes > kSlotBytesMost || (endpoint.slots == 0) != (endpoint.slot_bytes == 0) ||
      endpoint.address + length < length)
    return fail(Exit::BadInput, "the peer's RDMA endpoint is what no queue pair can have");
  endpoint.mtu = static_cast<ibv_mtu>(mtu);
  return endpoint;
}

}  // namespace agentnic::path
