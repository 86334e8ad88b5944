// SPDX-License-Identifier: Apache-2.0
// Several UDP datagrams in one call, and joined ones, on the loopback.

#include <netinet/in.h>
#include <netinet/udp.h>

#include <array>
#include <catch2/catch_test_macros.hpp>
#include <cstring>
#include <vector>

#include "path/sockets/udp_batch.hpp"

using namespace agentnic;
using namespace agentnic::path;

namespace {

Address address_of(const UdpSocket& socket) {
  Address address;
  address.length = sizeof(address.storage);
  ::getsockname(socket.fd(), reinterpret_cast<sockaddr*>(&address.storage), &address.length);
  return address;
}

struct Ends {
  UdpSocket server = UdpSocket::bind(Address::parse("127.0.0.1", 0).value()).value();
  UdpSocket client = UdpSocket::connect(address_of(server)).value();
};

std::vector<std::byte> numbered(std::size_t size, int number) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i)
    bytes[i] = static_cast<std::byte>(i * 7 + static_cast<std::size_t>(number));
  return bytes;
}

/// Takes messages until there are none; their bytes, one after the other, and how many there were.
std::size_t receive_all(UdpBatch& batch, const UdpSocket& socket, std::vector<std::byte>& bytes) {
  std::size_t messages = 0;
  while (const std::size_t got = batch.receive(socket, Wait::Spin)) {
    for (std::size_t i = 0; i < got; ++i) {
      const auto message = batch.message(i);
      bytes.insert(bytes.end(), message.bytes.begin(), message.bytes.end());
    }
    messages += got;
  }
  return messages;
}

}  // namespace

TEST_CASE("udp: a batch brings what there is, and sends each back to its peer") {
  Ends ends;
  UdpSocket other = UdpSocket::connect(address_of(ends.server)).value();
  UdpBatch batch(8, 2000);
  CHECK(batch.receive(ends.server, Wait::Spin) == 0);
  for (int i = 0; i < 5; ++i) REQUIRE(ends.client.send(numbered(100 + static_cast<std::size_t>(i), i)));
  REQUIRE(other.send(numbered(40, 9)));
  REQUIRE(batch.receive(ends.server, Wait::Block) == 6);
  CHECK(batch.message(0).segment == 100);
  CHECK(batch.send_back(ends.server) == 6);
  std::array<std::byte, 3000> in{};
  for (int i = 0; i < 5; ++i) {
    const auto size = ends.client.receive(in, Wait::Block);
    REQUIRE(size == 100 + static_cast<std::size_t>(i));
    CHECK(std::memcmp(in.data(), numbered(*size, i).data(), *size) == 0);
  }
  CHECK(other.receive(in, Wait::Block) == 40);
  CHECK_FALSE(ends.client.receive(in, Wait::Spin));
}

TEST_CASE("udp: more than a batch holds waits, and what is longer than a message is cut and counted") {
  Ends ends;
  UdpBatch batch(4, 64);
  for (int i = 0; i < 6; ++i) REQUIRE(ends.client.send(numbered(i == 1 ? 65 : 64, i)));
  CHECK(batch.receive(ends.server, Wait::Spin) == 4);
  CHECK(batch.cut() == 1);
  CHECK(batch.message(1).bytes.size() == 64);
  CHECK(batch.receive(ends.server, Wait::Spin) == 2);
  CHECK(batch.receive(ends.server, Wait::Spin) == 0);
}

TEST_CASE("udp: joined datagrams come as one message, and go back as they were") {
  Ends ends;
  REQUIRE(join_datagrams(ends.server));
  constexpr std::size_t kSegment = 500;
  const auto out = numbered(10 * kSegment + 200, 3);
  const int segment = kSegment;
  REQUIRE(::setsockopt(ends.client.fd(), SOL_UDP, UDP_SEGMENT, &segment, sizeof(segment)) == 0);
  REQUIRE(ends.client.send(out));
  const int none = 0;
  REQUIRE(::setsockopt(ends.client.fd(), SOL_UDP, UDP_SEGMENT, &none, sizeof(none)) == 0);
  UdpBatch batch(16, 65536);
  const std::size_t got = batch.receive(ends.server, Wait::Block);
  REQUIRE(got >= 1);  // how many are joined is the kernel's business
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < got; ++i) {
    const auto message = batch.message(i);
    CHECK((message.segment == kSegment || message.bytes.size() < kSegment));
    CHECK(std::memcmp(message.bytes.data(), out.data() + bytes, message.bytes.size()) == 0);
    bytes += message.bytes.size();
  }
  CHECK(bytes == out.size());
  CHECK(batch.send_back(ends.server) == got);
  std::vector<std::byte> back;
  UdpBatch answers(16, 65536);
  CHECK(receive_all(answers, ends.client, back) == 11);
  CHECK(back == out);
}
