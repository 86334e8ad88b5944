// SPDX-License-Identifier: Apache-2.0
#include "path/xsk/sender.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace agentnic::path {
namespace {

constexpr std::size_t kKnownMax = 4096;  // destinations; when there are more, all are looked up again

}  // namespace

bool send_datagram(XskClient& client, XskSocket& socket, std::span<xdp_desc> packet, std::size_t offset,
                   std::size_t length, Flow& flow) noexcept {
  xdp_desc& first = packet.front();
  const std::uint64_t payload = first.addr + offset;
  std::size_t left = 0;
  if (offset <= first.len && payload - client.memory().begin_of(first.addr) >= flow.headroom()) {
    first.len = static_cast<std::uint32_t>(first.len - offset + flow.headroom());
    first.addr = payload - flow.headroom();
    PieceList list;
    left = flow.build(client.pieces(packet, list), length);
  }
  if (left == 0) {
    socket.recycle(packet);
    return false;
  }
  // Of the frames, those that the packet needs.
  std::size_t count = 0;
  for (; left > 0; ++count) {
    packet[count].len = static_cast<std::uint32_t>(std::min<std::size_t>(packet[count].len, left));
    left -= packet[count].len;
    packet[count].options = left > 0 ? kXskContinues : 0;
  }
  socket.send(packet.first(count));
  socket.recycle(packet.subspan(count));
  return true;
}

bool Sender::Less::operator()(const Endpoint& a, const Endpoint& b) const noexcept {
  const int order = std::memcmp(&a.address, &b.address, sizeof(a.address));
  return order != 0 ? order < 0 : a.port < b.port;
}

Result<Sender> Sender::open(XskClient& client, const SenderOptions& options) {
  const std::uint32_t ifindex = options.ifindex != 0 ? options.ifindex : client.grant().ifindex;
  return Sender(client, options, ANIC_TRY(Neighbours::open(ifindex)));
}

/// nullptr: the kernel is to send this one.
Result<Sender::Known*> Sender::flow_to(const Endpoint& to) {
  const auto found = known_.find(to);
  if (found != known_.end() && found->second.generation == neighbours_.generation()) return &found->second;
  const auto hop = ANIC_TRY(neighbours_.resolve(to.address));
  if (!hop) return nullptr;
  const Flow flow = ANIC_TRY(Flow::make({.source_mac = hop->source_mac,
                                         .destination_mac = hop->destination_mac,
                                         .vlan_tci = options_.vlan_tci,
                                         .source = {.address = hop->source, .port = options_.port},
                                         .destination = to}));
  if (known_.size() >= kKnownMax) known_.clear();
  const Known known{
      .flow = flow, .payload_max = flow.payload_max(hop->mtu), .generation = neighbours_.generation()};
  return &known_.insert_or_assign(to, known).first->second;
}

Status Sender::send(XskSocket& socket, std::span<xdp_desc> packet, std::size_t offset, std::size_t length,
                    const Endpoint& to) {
  const auto known = flow_to(to);
  if (known && *known != nullptr && length <= (*known)->payload_max) {
    if (!send_datagram(*client_, socket, packet, offset, length, (*known)->flow))
      return fail(
          Exit::BadInput,
          fmt::format("{} bytes of payload, and headers before them, are not in these frames", length));
    ++counters_.by_socket;
    return {};
  }
  Status done;
  if (!known) {
    done = fail(known.error());
  } else if (*known == nullptr) {
    done = send_by_kernel(packet, offset, length, to);
  } else {
    done = fail(Exit::BadInput, fmt::format("send {} bytes to {}: {} fit into a packet", length,
                                            text_of(to.address), (*known)->payload_max));
  }
  socket.recycle(packet);
  return done;
}

Status Sender::send_by_kernel(std::span<const xdp_desc> packet, std::size_t offset, std::size_t length,
                              const Endpoint& to) {
  std::vector<std::byte> payload;
  payload.reserve(length);
  for (const xdp_desc& frame : packet) {
    const auto bytes = client_->bytes(frame);
    const std::size_t skip = std::min(offset, bytes.size());
    offset -= skip;
    const auto part = bytes.subspan(skip, std::min(bytes.size() - skip, length - payload.size()));
    payload.insert(payload.end(), part.begin(), part.end());
  }
  ANIC_TRY(neighbours_.send_by_kernel(to, payload, options_.port));
  ++counters_.by_kernel;
  return {};
}

}  // namespace agentnic::path
