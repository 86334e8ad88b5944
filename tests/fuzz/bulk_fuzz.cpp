// SPDX-License-Identifier: Apache-2.0
/// Fuzz target: messages of bulk sessions. The first byte says which; its payload follows.

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>

#include "bulk/wire.hpp"
#include "path/rdma/endpoint.hpp"

namespace {

using namespace agentnic;
using namespace agentnic::bulk;

void require(bool holds, const char* rule) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", rule);
  std::abort();
}

/// There is one way to say a thing, so that what was accepted is what was signed. Reasons are shown to
/// people: what they may not see is replaced.
template <typename Message>
void check(std::span<const std::byte> payload, bool has_reason = false) {
  const auto message = decode<Message>(payload);
  if (!message) return;
  const Bytes again = encode(*message);
  require(again.size() == payload.size(), "a message that is read is written as long");
  if (!has_reason) require(std::ranges::equal(again, payload), "a message that is read is written alike");
  require(decode<Message>(again).has_value(), "a message that is written can be read");
}

void check_paths(std::span<const std::byte> payload) {
  if (const auto offer = decode<Offer>(payload))
    require(check_path(offer->path).has_value(), "offers have good paths");
  if (const auto request = decode<Request>(payload)) {
    require(request->folder.empty() || check_path(request->folder), "requests have good folders");
    for (const std::string& name : request->names)
      require(check_path(name).has_value(), "requests have good names");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto payload = std::as_bytes(std::span(data, size)).subspan(1);
  switch (data[0] % 14) {
    case 0: {
      if (payload.size() < kHeaderBytes) break;
      const auto header = parse_header(payload.first<kHeaderBytes>());
      if (!header) break;
      require(header->length <= kDataMost, "lengths are bounded");
      require(std::ranges::equal(header_bytes(*header), payload.first<kHeaderBytes>()),
              "a header is written alike");
      break;
    }
    case 1:
      check<Hello>(payload);
      break;
    case 2:
      check<Request>(payload);
      check_paths(payload);
      break;
    case 3:
      check<Endpoint>(payload, true);
      break;
    case 4:
      check<Offer>(payload);
      check_paths(payload);
      break;
    case 5:
      check<Have>(payload, true);
      break;
    case 6:
      check<Begin>(payload);
      break;
    case 7:
      check<End>(payload);
      break;
    case 8:
      check<Abort>(payload, true);
      break;
    case 9:
      check<Done>(payload, true);
      break;
    case 10:
      check<Reason>(payload, true);
      break;
    case 11:
      check<Plan>(payload);
      break;
    case 12:
      check<Bye>(payload, true);
      break;
    default: {
      const auto endpoint = path::decode_endpoint(payload);
      if (!endpoint) break;
      require(std::ranges::equal(path::encode_endpoint(*endpoint), payload), "an endpoint is written alike");
      require(endpoint->address + std::uint64_t{endpoint->slots} * endpoint->slot_bytes >= endpoint->address,
              "a peer's memory does not wrap");
      break;
    }
  }
  return 0;
}
