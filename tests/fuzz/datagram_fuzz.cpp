// SPDX-License-Identifier: Apache-2.0
/// Fuzz target: UDP datagrams in frames. The first byte says where the frame is cut in two, the second how
/// long an answer is and whether checksums are looked at; the frame follows.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "path/xsk/datagram.hpp"

namespace {

using namespace agentnic;

void require(bool holds, const char* rule) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", rule);
  std::abort();
}

/// Ends where its heap block ends, so that a sanitizer sees what goes beyond it.
struct Block {
  explicit Block(std::span<const std::byte> bytes)
      : memory(std::make_unique<std::byte[]>(bytes.size())), piece(memory.get(), bytes.size()) {
    std::ranges::copy(bytes, memory.get());
  }
  std::unique_ptr<std::byte[]> memory;
  path::Piece piece;
};

bool same_ends(const path::Datagram& one, const path::Datagram& other) {
  return one.source == other.destination && one.destination == other.source;
}

/// Holds for a packet that was read.
void answer(path::Pieces packet, const path::Datagram& datagram, std::size_t length) {
  std::size_t space = 0;
  for (const path::Piece piece : packet) space += piece.size();
  const std::size_t end = datagram.payload_offset() + datagram.payload_length;
  require(datagram.l3_offset >= 14 && datagram.l4_offset >= datagram.l3_offset + 20,
          "headers have their length");
  require(datagram.payload_offset() <= packet.front().size(), "headers are in the first piece");
  require(end <= space, "the payload is in the pieces");
  const auto flow = path::Flow::back(packet.front(), datagram);
  require(flow.has_value() == datagram.is_answerable, "who can be answered has a flow");
  const std::size_t same = path::reply(packet, datagram);
  require(same == (datagram.is_answerable ? end : 0), "a reply is as long as its packet");
  if (same == 0) return;
  const auto back = path::read_datagram(packet, path::Verify::Nothing);
  require(back && same_ends(*back, datagram), "a reply can be read, and goes back");
  if (datagram.checksum != path::Checksum::Unverified) {
    const auto verified = path::read_datagram(packet);
    const bool is_absent = datagram.checksum == path::Checksum::Absent;
    require(verified && verified->checksum == (is_absent ? path::Checksum::Absent : path::Checksum::Whole),
            "a reply has a checksum if its packet had one");
  }

  const std::size_t other = path::reply(packet, *back, length);
  require(other == 0 || other == datagram.payload_offset() + length, "a reply is as long as it should be");
  require(other != 0 || datagram.payload_offset() + length > space, "what fits is replied");
  if (other == 0) return;
  const auto again = path::read_datagram(packet);
  require(again && again->checksum == path::Checksum::Whole && again->payload_length == length &&
              same_ends(*again, *back),
          "a reply with another payload can be read, and goes back");

  auto built_flow = *flow;
  std::vector<std::byte> payload(built_flow.headroom() + length);
  const Block frame(payload);
  require(built_flow.build({&frame.piece, 1}, length) == frame.piece.size(), "a flow builds what fits");
  const auto built = path::read_datagram({&frame.piece, 1});
  require(built && built->checksum == path::Checksum::Whole && built->payload_length == length &&
              same_ends(*built, datagram) && built->vlan_tci == datagram.vlan_tci,
          "what a flow builds can be read");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const std::span<const std::byte> frame(reinterpret_cast<const std::byte*>(data) + 2, size - 2);
  const auto verify = data[1] % 2 != 0 ? path::Verify::Nothing : path::Verify::Checksums;
  const std::size_t length = data[1] / 2;
  const std::size_t cut = std::min<std::size_t>(data[0], frame.size());

  const Block whole(frame);
  const auto datagram = path::read_datagram({&whole.piece, 1}, verify);
  require(std::ranges::equal(whole.piece, frame), "reading does not write");
  const Block first(frame.first(cut));
  const Block rest(frame.subspan(cut));
  const std::array pieces = {first.piece, rest.piece};
  const auto parted = path::read_datagram(pieces, verify);
  if (datagram && cut >= datagram->payload_offset()) {
    require(parted && parted->payload_sum == datagram->payload_sum && parted->checksum == datagram->checksum,
            "a packet in pieces reads as in one");
  }
  if (datagram) answer({&whole.piece, 1}, *datagram, length);
  if (parted) answer(pieces, *parted, length);
  return 0;
}
