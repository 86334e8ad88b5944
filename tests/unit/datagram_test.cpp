// SPDX-License-Identifier: Apache-2.0
#include "path/xsk/datagram.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstring>
#include <random>
#include <vector>

#include "base/checksum.hpp"
#include "lab/packet.hpp"

using namespace agentnic;
using lab::Frame;
using lab::PacketBuilder;
using path::Checksum;
using path::Datagram;
using path::Endpoint;
using path::Flow;
using path::Piece;
using path::Unread;
using path::Verify;

namespace {

unsigned byte_at(const Frame& frame, std::size_t at) { return std::to_integer<unsigned>(frame.at(at)); }

unsigned word_at(const Frame& frame, std::size_t at) {
  return byte_at(frame, at) << 8U | byte_at(frame, at + 1);
}

void put_word(Frame& frame, std::size_t at, unsigned value) {
  frame.at(at) = static_cast<std::byte>(value >> 8U);
  frame.at(at + 1) = static_cast<std::byte>(value);
}

/// What is wrong with a UDP packet without extension headers, told byte by byte, apart from the code under
/// test; empty for nothing.
struct Told {
  std::string fault;
  std::size_t l3 = 14;
  std::size_t l4 = 0;
  std::size_t payload_length = 0;
  bool is_v6 = false;
};

unsigned fold(std::uint64_t sum) {
  while (sum > 0xffff) sum = sum / 0x10000 + sum % 0x10000;
  return static_cast<unsigned>(sum);
}

std::uint64_t sum_of_words(const Frame& frame, std::size_t at, std::size_t size) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < size; ++i) sum += byte_at(frame, at + i) << (i % 2 == 0 ? 8U : 0U);
  return sum;
}

std::uint64_t pseudo_of(const Frame& frame, const Told& told) {
  return 17 + word_at(frame, told.l4 + 4) +
         (told.is_v6 ? sum_of_words(frame, told.l3 + 8, 32) : sum_of_words(frame, told.l3 + 12, 8));
}

Told tell(const Frame& frame) {
  Told told;
  while (word_at(frame, told.l3 - 2) == 0x8100 || word_at(frame, told.l3 - 2) == 0x88a8) told.l3 += 4;
  told.is_v6 = word_at(frame, told.l3 - 2) == 0x86dd;
  const std::size_t ip_bytes = told.is_v6 ? 40 : (byte_at(frame, told.l3) & 15U) * 4;
  told.l4 = told.l3 + ip_bytes;
  const std::size_t udp_bytes = word_at(frame, told.l4 + 4);
  told.payload_length = udp_bytes - 8;
  if (told.l4 + udp_bytes != frame.size()) told.fault = "UDP length";
  if (word_at(frame, told.l3 + (told.is_v6 ? 4 : 2)) != udp_bytes + (told.is_v6 ? 0 : ip_bytes))
    told.fault = "IP length";
  if (byte_at(frame, told.l3 + (told.is_v6 ? 6 : 9)) != 17) told.fault = "protocol";
  if (byte_at(frame, told.l3) >> 4U != (told.is_v6 ? 6 : 4)) told.fault = "version";
  if (!told.is_v6 && fold(sum_of_words(frame, told.l3, ip_bytes)) != 0xffff) told.fault = "IP checksum";
  if (word_at(frame, told.l4 + 6) == 0) told.fault = "no checksum";
  if (fold(pseudo_of(frame, told) + sum_of_words(frame, told.l4, udp_bytes)) != 0xffff)
    told.fault = "UDP checksum";
  return told;
}

/// A packet cut at these offsets, each piece of it at the end of a block of its own.
class Cut {
 public:
  Cut(const Frame& frame, std::vector<std::size_t> cuts) {
    std::ranges::sort(cuts);
    cuts.push_back(frame.size());
    std::size_t from = 0;
    for (const std::size_t cut : cuts) {
      blocks_.emplace_back(frame.begin() + static_cast<std::ptrdiff_t>(from),
                           frame.begin() + static_cast<std::ptrdiff_t>(cut));
      from = cut;
    }
    for (Frame& block : blocks_) pieces_.emplace_back(block);
  }
  [[nodiscard]] path::Pieces pieces() const { return pieces_; }
  /// The first `length` bytes.
  [[nodiscard]] Frame joined(std::size_t length) const {
    Frame frame;
    for (const Frame& block : blocks_) frame.insert(frame.end(), block.begin(), block.end());
    frame.resize(length);
    return frame;
  }

 private:
  std::vector<Frame> blocks_;
  std::vector<Piece> pieces_;
};

/// Memory that ends where the next page may not be touched.
class Guarded {
 public:
  Guarded() {
    REQUIRE(memory_ != MAP_FAILED);
    REQUIRE(::mprotect(end(), page_, PROT_NONE) == 0);
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() { ::munmap(memory_, kPages * page_ + page_); }
  Piece put(std::span<const std::byte> bytes) {
    std::byte* at = end() - bytes.size();
    std::ranges::copy(bytes, at);
    return {at, bytes.size()};
  }

 private:
  static constexpr std::size_t kPages = 3;
  [[nodiscard]] std::byte* end() const { return static_cast<std::byte*>(memory_) + kPages * page_; }
  std::size_t page_ = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  void* memory_ =
      ::mmap(nullptr, kPages* page_ + page_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
};

struct Shape {
  const char* name;
  PacketBuilder headers;
  std::size_t l3;
  std::size_t l4;
  std::optional<std::uint16_t> tci;
};

std::vector<Shape> shapes() {
  return {{"v4", PacketBuilder().eth().ipv4(), 14, 34, {}},
          {"v6", PacketBuilder().eth().ipv6(), 14, 54, {}},
          {"v4 with options", PacketBuilder().eth().ipv4(12), 14, 46, {}},
          {"v4 in a VLAN", PacketBuilder().eth().vlan(0x6007).ipv4(), 18, 38, 0x6007},
          {"v6 in QinQ", PacketBuilder().eth().vlan(5, 0x88a8).vlan(6).ipv6(), 22, 62, 5},
          {"v4 with all options in QinQ", PacketBuilder().eth().vlan(5, 0x88a8).vlan(6).ipv4(40), 22, 82, 5}};
}

Frame frame_of(const Shape& shape, std::size_t payload) {
  PacketBuilder builder = shape.headers;
  Frame frame = builder.udp(4000, 9001).payload(payload).build();
  for (std::size_t i = shape.l4 + 8; i < frame.size(); ++i) frame[i] = static_cast<std::byte>(i * 37);
  const Told told = tell(frame);
  put_word(frame, told.l4 + 6, 0);
  const unsigned sum = ~fold(pseudo_of(frame, told) + sum_of_words(frame, told.l4, 8 + payload)) & 0xffffU;
  put_word(frame, told.l4 + 6, sum == 0 ? 0xffff : sum);
  REQUIRE(tell(frame).fault.empty());
  return frame;
}

Endpoint endpoint(const char* address, std::uint16_t port) {
  return Endpoint::from(path::Address::parse(address, port).value());
}

std::expected<Datagram, Unread> read(Frame& frame, Verify verify = Verify::Checksums) {
  const Piece piece(frame);
  return path::read_datagram({&piece, 1}, verify);
}

void make_partial(Frame& frame) {
  const Told told = tell(frame);
  put_word(frame, told.l4 + 6, fold(pseudo_of(frame, told)));
}

path::FlowEnds ends_of(bool v6, std::optional<std::uint16_t> tci) {
  return {.source_mac = {2, 0, 0, 0, 0, 1},
          .destination_mac = {2, 0, 0, 0, 0, 2},
          .vlan_tci = tci,
          .source = endpoint(v6 ? "2001:db8::1" : "192.0.2.1", 4000),
          .destination = endpoint(v6 ? "2001:db8::2" : "192.0.2.2", 9001)};
}

}  // namespace

TEST_CASE("checksum: a sum over pieces of any length is that over the whole") {
  std::minstd_rand random(1);
  std::vector<std::byte> bytes(301);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  const std::uint16_t whole = checksum_fold(checksum_add(bytes.data(), bytes.size(), 0));
  for (std::size_t cut = 0; cut <= bytes.size(); ++cut) {
    std::uint64_t sum = checksum_add(bytes.data(), cut, 0);
    const std::byte* rest = bytes.data() + cut;
    sum = cut % 2 != 0 ? checksum_add_odd(rest, bytes.size() - cut, sum)
                       : checksum_add(rest, bytes.size() - cut, sum);
    CHECK(checksum_fold(sum) == whole);
  }
}

TEST_CASE("datagram: what is read of a packet is what it says, whatever is around IP") {
  for (const Shape& shape : shapes()) {
    for (const std::size_t payload : {0, 1, 2, 33, 1400}) {
      INFO(shape.name << ", " << payload);
      Frame frame = frame_of(shape, payload);
      const auto datagram = read(frame);
      REQUIRE(datagram);
      CHECK(datagram->l3_offset == shape.l3);
      CHECK(datagram->payload_offset() == shape.l4 + 8);
      CHECK(datagram->payload_length == payload);
      const bool v6 = tell(frame).is_v6;
      CHECK(datagram->source == endpoint(v6 ? "2001:db8::1" : "192.0.2.1", 4000));
      CHECK(datagram->destination == endpoint(v6 ? "2001:db8::2" : "192.0.2.2", 9001));
      CHECK(datagram->vlan_tci == shape.tci);
      CHECK(datagram->checksum == Checksum::Whole);
      CHECK(datagram->is_answerable);
    }
  }
}

TEST_CASE("datagram: an endpoint becomes a socket address and back") {
  for (const char* text : {"192.0.2.7", "2001:db8::7", "fe80::7"}) {
    const Endpoint one = endpoint(text, 4711);
    const path::Address address = one.to_address(3);
    CHECK(Endpoint::from(address) == one);
    CHECK(path::text_of(one.address) == text);
    CHECK(one.is_v4() == (address.storage.ss_family == AF_INET));
    if (!one.is_v4()) {
      const auto* in6 = reinterpret_cast<const sockaddr_in6*>(&address.storage);
      CHECK(in6->sin6_scope_id == (IN6_IS_ADDR_LINKLOCAL(&one.address) ? 3 : 0));
    }
  }
}

TEST_CASE("datagram: a padded frame has the payload that its headers say") {
  Frame frame = frame_of(shapes()[0], 3);
  frame.resize(60);
  const auto datagram = read(frame);
  REQUIRE(datagram);
  CHECK(datagram->payload_length == 3);
}

TEST_CASE("datagram: a packet in pieces reads as in one, wherever they begin") {
  std::minstd_rand random(2);
  for (const Shape& shape : shapes()) {
    Frame frame = frame_of(shape, 201);
    const Datagram whole = read(frame).value();
    for (int i = 0; i < 300; ++i) {
      std::vector<std::size_t> cuts(random() % 5);
      for (std::size_t& cut : cuts) cut = shape.l4 + 8 + random() % 202;
      const Cut cut(frame, cuts);
      const auto datagram = path::read_datagram(cut.pieces());
      REQUIRE(datagram);
      CHECK(datagram->checksum == Checksum::Whole);
      CHECK(datagram->payload_sum == whole.payload_sum);
      CHECK(datagram->payload_length == 201);
    }
    for (std::size_t at = 0; at < shape.l4 + 8; ++at) {
      const Cut cut(frame, {at});
      CHECK(path::read_datagram(cut.pieces()) == std::unexpected(Unread::NotUdp));
    }
  }
}

TEST_CASE("datagram: checksums are whole, absent, partial or bad") {
  for (const Shape& shape : shapes()) {
    for (const std::size_t payload : {1, 2, 33}) {
      INFO(shape.name << ", " << payload);
      Frame partial = frame_of(shape, payload);
      make_partial(partial);
      CHECK(read(partial)->checksum == Checksum::Partial);
      CHECK(read(partial, Verify::Nothing)->checksum == Checksum::Partial);

      Frame absent = frame_of(shape, payload);
      put_word(absent, shape.l4 + 6, 0);
      if (tell(absent).is_v6) {
        CHECK(read(absent) == std::unexpected(Unread::BadChecksum));
      } else {
        CHECK(read(absent)->checksum == Checksum::Absent);
      }

      Frame bad = frame_of(shape, payload);
      bad.back() ^= std::byte{1};
      CHECK(read(bad) == std::unexpected(Unread::BadChecksum));
      CHECK(read(bad, Verify::Nothing)->checksum == Checksum::Unverified);
    }
  }
  Frame header = frame_of(shapes()[0], 4);
  header[14 + 1] ^= std::byte{4};  // DSCP
  CHECK(read(header) == std::unexpected(Unread::BadChecksum));
  CHECK(read(header, Verify::Nothing));
}

TEST_CASE("datagram: any flipped bit of IP, UDP or payload is noticed") {
  for (const Shape& shape : shapes()) {
    const Frame good = frame_of(shape, 33);
    const bool v6 = tell(good).is_v6;
    for (std::size_t at = shape.l3; at < good.size(); ++at) {
      // IPv6 has no checksum over these: class, flow label, hop limit.
      if (v6 && ((at >= shape.l3 && at < shape.l3 + 4) || at == shape.l3 + 7)) continue;
      for (unsigned bit = 0; bit < 8; ++bit) {
        Frame frame = good;
        frame[at] ^= static_cast<std::byte>(1U << bit);
        INFO(shape.name << ", " << at << "." << bit);
        CHECK(!read(frame));
      }
    }
  }
}

TEST_CASE("datagram: what is cut off at any length is refused, and nothing behind it is read") {
  Guarded memory;
  for (const Shape& shape : shapes()) {
    const Frame frame = frame_of(shape, 21);
    for (std::size_t length = 0; length < frame.size(); ++length) {
      INFO(shape.name << ", " << length);
      const Piece piece = memory.put({frame.data(), length});
      CHECK(path::read_datagram({&piece, 1}) == std::unexpected(Unread::NotUdp));
      CHECK(path::read_datagram({&piece, 1}, Verify::Nothing) == std::unexpected(Unread::NotUdp));
    }
    const Piece piece = memory.put(frame);
    const auto datagram = path::read_datagram({&piece, 1});
    REQUIRE(datagram);
    CHECK(path::reply({&piece, 1}, *datagram) == frame.size());
    CHECK(path::reply({&piece, 1}, *datagram, 22) == 0);
    CHECK(path::reply({&piece, 1}, *datagram, 21) == frame.size());
  }
  CHECK(path::read_datagram({}) == std::unexpected(Unread::NotUdp));
}

TEST_CASE("datagram: lengths that do not agree are refused") {
  const auto refused = [](Frame frame) {
    return read(frame, Verify::Nothing) == std::unexpected(Unread::NotUdp);
  };
  for (const Shape& shape : shapes()) {
    const bool v6 = shape.l4 - shape.l3 == 40 && std::string(shape.name).starts_with("v6");
    const std::size_t ip_length = shape.l3 + (v6 ? 4 : 2);
    const Frame good = frame_of(shape, 20);
    const unsigned said = word_at(good, ip_length);
    for (const unsigned udp_length : {0U, 7U, 29U, 0xffffU}) {
      Frame frame = good;
      put_word(frame, shape.l4 + 4, udp_length);
      CHECK(refused(frame));
    }
    for (const unsigned length : {0U, 1U, said - 1, said + 1, 0xffffU}) {
      INFO(shape.name << ", " << length);
      Frame frame = good;
      put_word(frame, ip_length, length);
      CHECK(refused(frame));
    }
  }
  CHECK(refused(PacketBuilder().eth().ipv4().tcp(1, 2).build()));
  CHECK(refused(PacketBuilder().eth().arp().build()));
  CHECK(refused(PacketBuilder().eth().ipv4(0, 0x2000).udp(1, 2).payload(8).build()));
  CHECK(refused(PacketBuilder().eth().ipv4(0, 0x0010).udp(1, 2).payload(8).build()));
  CHECK(refused(PacketBuilder().eth().ipv6().fragment(1).udp(1, 2).payload(8).build()));
  CHECK(refused(PacketBuilder().eth().ipv6().from("::ffff:10.0.0.1").udp(1, 2).payload(8).build()));
}

TEST_CASE("datagram: a reply goes back where its packet came from, and says all else as before") {
  for (const Shape& shape : shapes()) {
    for (const bool partial : {false, true}) {
      INFO(shape.name << ", " << partial);
      const Frame whole = frame_of(shape, 33);
      Frame frame = whole;
      if (partial) make_partial(frame);
      const Datagram datagram = read(frame).value();
      const Piece piece(frame);
      REQUIRE(path::reply({&piece, 1}, datagram) == frame.size());
      CHECK(tell(frame).fault.empty());
      CHECK(std::equal(whole.begin() + 12, whole.begin() + static_cast<std::ptrdiff_t>(shape.l3 + 4),
                       frame.begin() + 12));
      CHECK(std::equal(whole.begin(), whole.begin() + 6, frame.begin() + 6));
      CHECK(std::equal(whole.begin() + 6, whole.begin() + 12, frame.begin()));
      const Datagram answer = read(frame).value();
      CHECK(answer.source == datagram.destination);
      CHECK(answer.destination == datagram.source);
      REQUIRE(path::reply({&piece, 1}, answer) == frame.size());
      CHECK(frame == whole);
    }
  }
}

TEST_CASE("datagram: a reply lives as long as a packet of this host, and says nothing of congestion") {
  for (const bool v6 : {false, true}) {
    PacketBuilder builder;
    builder.eth();
    if (v6) {
      builder.ipv6();
    } else {
      builder.ipv4();
    }
    Frame frame = builder.dscp(46, 3).udp(4000, 9001).payload(9).build();
    const std::size_t hops = v6 ? 14 + 7 : 14 + 8;
    frame[hops] = std::byte{2};
    const Datagram datagram = read(frame, Verify::Nothing).value();
    const Piece piece(frame);
    REQUIRE(path::reply({&piece, 1}, datagram) != 0);
    CHECK(byte_at(frame, hops) == 64);
    CHECK((v6 ? word_at(frame, 14) >> 4U & 0xffU : byte_at(frame, 15)) == 46U << 2U);
    CHECK(tell(frame).fault.empty());
  }
}

TEST_CASE("datagram: IPv4 without a checksum goes back without one, and with one when the payload is new") {
  Frame frame = frame_of(shapes()[0], 8);
  put_word(frame, 40, 0);
  const Datagram datagram = read(frame).value();
  const Piece piece(frame);
  REQUIRE(path::reply({&piece, 1}, datagram) == frame.size());
  CHECK(word_at(frame, 40) == 0);
  Frame other = frame_of(shapes()[0], 8);
  put_word(other, 40, 0);
  const Piece rest(other);
  REQUIRE(path::reply({&rest, 1}, datagram, 8) == other.size());
  CHECK(tell(other).fault.empty());
}

TEST_CASE("datagram: what did not go from one host to one host is not answered") {
  const auto refused = [](Frame frame) {
    const Frame before = frame;
    const auto datagram = read(frame, Verify::Nothing);
    const Piece piece(frame);
    return datagram && !datagram->is_answerable && path::reply({&piece, 1}, *datagram) == 0 &&
           path::reply({&piece, 1}, *datagram, 1) == 0 && !Flow::back(frame, *datagram) && frame == before;
  };
  for (const char* address : {"224.0.0.1", "255.255.255.255", "0.0.0.0"}) {
    CHECK(refused(PacketBuilder().eth().ipv4().to(address).udp(1, 2).payload(8).build()));
    CHECK(refused(PacketBuilder().eth().ipv4().from(address).udp(1, 2).payload(8).build()));
  }
  for (const char* address : {"ff02::1", "::"}) {
    CHECK(refused(PacketBuilder().eth().ipv6().to(address).udp(1, 2).payload(8).build()));
    CHECK(refused(PacketBuilder().eth().ipv6().from(address).udp(1, 2).payload(8).build()));
  }
  CHECK(refused(PacketBuilder().eth().ipv4().udp(0, 2).payload(8).build()));
  CHECK(refused(PacketBuilder().eth().ipv4().udp(1, 0).payload(8).build()));
  Frame broadcast = frame_of(shapes()[0], 8);
  broadcast[0] |= std::byte{1};
  CHECK(refused(broadcast));
}

TEST_CASE("datagram: replies of any length from pieces of any length are right") {
  std::minstd_rand random(3);
  for (int i = 0; i < 3000; ++i) {
    const std::vector<Shape> all = shapes();
    const Shape& shape = all[random() % all.size()];
    const std::size_t space = random() % 1500;
    const Cut cut(frame_of(shape, space),
                  {shape.l4 + 8 + random() % (space + 1), shape.l4 + 8 + random() % (space + 1)});
    const Datagram datagram = path::read_datagram(cut.pieces()).value();
    const std::size_t payload = random() % (space + 1);
    std::size_t skip = datagram.payload_offset();
    for (const Piece piece : cut.pieces()) {
      for (std::byte& byte : piece.subspan(std::min(skip, piece.size())))
        byte = static_cast<std::byte>(random());
      skip -= std::min(skip, piece.size());
    }
    const std::size_t length = path::reply(cut.pieces(), datagram, payload);
    REQUIRE(length == shape.l4 + 8 + payload);
    const Frame frame = cut.joined(length);
    REQUIRE(tell(frame).fault.empty());
    REQUIRE(path::reply(cut.pieces(), datagram, space + 1) == 0);
  }
}

TEST_CASE("datagram: headers are made for payloads of any length in pieces of any length") {
  std::minstd_rand random(4);
  for (const bool v6 : {false, true}) {
    for (const std::optional<std::uint16_t> tci : {std::optional<std::uint16_t>(), {0x2005}}) {
      const path::FlowEnds ends = ends_of(v6, tci);
      Flow flow = Flow::make(ends).value();
      REQUIRE(flow.headroom() == 14U + (tci ? 4U : 0U) + (v6 ? 40U : 20U) + 8U);
      for (int i = 0; i < 1000; ++i) {
        const std::size_t payload = random() % 1473;
        Frame frame(flow.headroom() + payload);
        for (std::byte& byte : frame) byte = static_cast<std::byte>(random());
        const Cut cut(
            frame, {flow.headroom() + random() % (payload + 1), flow.headroom() + random() % (payload + 1)});
        REQUIRE(flow.build(cut.pieces(), payload) == frame.size());
        const Frame built = cut.joined(frame.size());
        REQUIRE(tell(built).fault.empty());
        REQUIRE(std::equal(built.begin() + static_cast<std::ptrdiff_t>(flow.headroom()), built.end(),
                           frame.begin() + static_cast<std::ptrdiff_t>(flow.headroom())));
        const Datagram datagram = path::read_datagram(cut.pieces()).value();
        REQUIRE(datagram.source == ends.source);
        REQUIRE(datagram.destination == ends.destination);
        REQUIRE(datagram.vlan_tci == tci);
        REQUIRE(datagram.payload_length == payload);
        if (!v6) REQUIRE(word_at(built, datagram.l3_offset + 4U) == static_cast<unsigned>(i));
      }
    }
  }
}

TEST_CASE("datagram: headers say what they are told, byte for byte") {
  Flow flow = Flow::make(ends_of(false, 0x2005)).value();
  Frame frame(flow.headroom() + 2);
  frame[46] = std::byte{'h'};
  frame[47] = std::byte{'i'};
  const Piece piece(frame);
  REQUIRE(flow.build({&piece, 1}, 2) == 48);
  const std::uint8_t expected[] = {2,    0, 0, 0, 0,    2, 2, 0,  0, 0, 0,    1, 0x81, 0,
                                   0x20, 5, 8, 0, 0x45, 0, 0, 30, 0, 0, 0x40, 0, 64,   17};
  CHECK(std::memcmp(frame.data(), expected, sizeof(expected)) == 0);
  const std::uint8_t rest[] = {192, 0,         2,          1,         192,        0, 2,
                               2,   4000 >> 8, 4000 & 255, 9001 >> 8, 9001 & 255, 0, 10};
  CHECK(std::memcmp(frame.data() + 30, rest, sizeof(rest)) == 0);
}

TEST_CASE("datagram: a payload that IP cannot carry is not sent") {
  for (const bool v6 : {false, true}) {
    Flow flow = Flow::make(ends_of(v6, {})).value();
    CHECK(flow.payload_max(1500) == (v6 ? 1452 : 1472));
    CHECK(flow.payload_max(20) == 0);
    const std::size_t most = v6 ? 65527 : 65507;
    CHECK(flow.payload_max(70000) == most);
    Frame frame(70000);
    const Piece piece(frame);
    CHECK(flow.build({&piece, 1}, most) == flow.headroom() + most);
    const Datagram datagram = path::read_datagram({&piece, 1}).value();
    CHECK(datagram.payload_length == most);
    CHECK(path::reply({&piece, 1}, datagram, most) == flow.headroom() + most);
    CHECK(path::reply({&piece, 1}, datagram, most + 1) == 0);
    CHECK(flow.build({&piece, 1}, most + 1) == 0);
    CHECK(flow.build({&piece, 1}, static_cast<std::size_t>(-1)) == 0);
    const Piece little = piece.first(flow.headroom() - 1);
    CHECK(flow.build({&little, 1}, 0) == 0);
    CHECK(flow.build({}, 0) == 0);
  }
}

TEST_CASE("datagram: ends that do not belong together make no flow") {
  path::FlowEnds mixed = ends_of(false, {});
  mixed.destination = endpoint("2001:db8::2", 9001);
  CHECK(Flow::make(mixed).error().what ==
        "make headers from 192.0.2.1 to 2001:db8::2, port 9001: one is IPv4, the other IPv6");
  path::FlowEnds nowhere = ends_of(true, {});
  nowhere.destination.port = 0;
  CHECK(!Flow::make(nowhere));
}

TEST_CASE("datagram: the way back of a packet is one for other frames, too") {
  for (const Shape& shape : shapes()) {
    Frame frame = frame_of(shape, 9);
    const Datagram datagram = read(frame).value();
    Flow flow = Flow::back(frame, datagram).value();
    Frame answer(flow.headroom() + 5);
    const Piece piece(answer);
    REQUIRE(flow.build({&piece, 1}, 5) == answer.size());
    CHECK(tell(answer).fault.empty());
    CHECK(std::equal(frame.begin() + 12, frame.begin() + static_cast<std::ptrdiff_t>(shape.l3),
                     answer.begin() + 12));
    const Datagram there = read(answer).value();
    CHECK(there.source == datagram.destination);
    CHECK(there.destination == datagram.source);
    CHECK(there.vlan_tci == datagram.vlan_tci);
  }
}
