// SPDX-License-Identifier: Apache-2.0
// What of path B needs no AF_XDP socket: memory, shapes, messages.
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstring>
#include <random>
#include <set>

#include "path/xsk/socket.hpp"
#include "path/xsk/umem.hpp"
#include "path/xsk/wire.hpp"

using namespace agentnic;
using path::FrameAt;

namespace {

path::Umem memory_of(const path::XskShape& shape, std::uint32_t receiving) {
  const UniqueFd fd(::memfd_create("test", MFD_CLOEXEC));
  REQUIRE(::ftruncate(fd.get(), static_cast<off_t>(shape.frames) * shape.frame_bytes) == 0);
  return path::Umem::map(fd.get(), shape, receiving).value();
}

template <typename Message>
std::span<const std::byte> bytes_of(const Message& message) {
  return std::as_bytes(std::span(&message, 1));
}

ino_t inode_of(int fd) {
  struct stat found{};
  return ::fstat(fd, &found) == 0 ? found.st_ino : 0;
}

path::XskAsk usual_ask() {
  path::XskAsk ask;
  ask.frames = path::XskShape{}.frames;
  ask.frame_bytes = 2048;
  ask.busy_budget = 64;
  std::strcpy(ask.service, "gateway");
  return ask;
}

}  // namespace

TEST_CASE("umem: each frame is in one place, whatever is done with it") {
  const path::XskShape shape{.frames = 256};
  path::Umem memory = memory_of(shape, 100);
  std::mt19937_64 random(1);
  std::vector<FrameAt> at(shape.frames, FrameAt::Free);  // as a user would keep it
  std::fill_n(at.begin(), 100, FrameAt::Receiving);
  for (int step = 0; step < 100'000; ++step) {
    if (random() % 4 == 0 && memory.free() != 0) {
      const std::uint64_t address = memory.take(FrameAt::Held);
      REQUIRE(at[address / shape.frame_bytes] == FrameAt::Free);
      at[address / shape.frame_bytes] = FrameAt::Held;
    } else {
      const std::uint64_t address = random() % (std::uint64_t{shape.frames} * shape.frame_bytes);
      FrameAt& known = at[address / shape.frame_bytes];
      const auto from = static_cast<FrameAt>(1 + random() % 3);
      const auto to = static_cast<FrameAt>(random() % 4);
      REQUIRE(memory.move(address, from, to) == (known == from));
      if (known == from) known = to;
    }
    const path::FrameCensus census = memory.census();
    REQUIRE(census.total() == shape.frames);
    REQUIRE(census.free == memory.free());
    REQUIRE(census.held == static_cast<std::uint32_t>(std::ranges::count(at, FrameAt::Held)));
    REQUIRE(census.sending == static_cast<std::uint32_t>(std::ranges::count(at, FrameAt::Sending)));
  }
}

TEST_CASE("umem: the pool gives each frame once, and all that do not begin in fill rings") {
  const path::XskShape shape{.frames = 512, .frame_bytes = 4096};
  path::Umem memory = memory_of(shape, 384);
  std::set<std::uint64_t> seen;
  while (memory.free() != 0) seen.insert(memory.take(FrameAt::Held));
  CHECK(seen.size() == 128);
  CHECK(*seen.begin() == std::uint64_t{384} * 4096);
  CHECK(*seen.rbegin() == std::uint64_t{511} * 4096);
  CHECK_FALSE(memory.move(std::uint64_t{512} * 4096, FrameAt::Held, FrameAt::Free));
  CHECK_FALSE(memory.move(~0ULL, FrameAt::Held, FrameAt::Free));
}

TEST_CASE("xsk: shapes that cannot be are refused") {
  CHECK(path::check_shape({}, 1));
  CHECK(path::check_shape({.frames = 256}, 1));
  CHECK(path::check_shape({}, 12));
  CHECK_FALSE(path::check_shape({}, 0));
  CHECK_FALSE(path::check_shape({}, 65));
  for (const std::size_t queues : {13, 16, 64}) {  // each would have 118 frames or fewer to receive into
    const auto few = path::check_shape({}, queues);
    REQUIRE_FALSE(few);
    CHECK(few.error().hint == (queues < 64 ? "4096 are enough" : "16384 are enough"));
    CHECK(path::check_shape({.frames = queues < 64 ? 4096U : 16384U}, queues));
  }
  CHECK_FALSE(path::check_shape({.frames = 1000}, 1));
  CHECK_FALSE(path::check_shape({.frames = 0}, 1));
  CHECK_FALSE(path::check_shape({.frames = 1U << 31U}, 1));
  CHECK_FALSE(path::check_shape({.frame_bytes = 0}, 1));
  CHECK_FALSE(path::check_shape({.frame_bytes = 8192}, 1));
  CHECK_FALSE(path::check_shape({.busy_poll_us = 2'000'000}, 1));
  CHECK_FALSE(path::check_shape({.busy_budget = 0}, 1));
  CHECK_FALSE(path::check_shape({.bind = static_cast<path::XskBind>(7)}, 1));
}

TEST_CASE("xsk: the packets of a batch are told apart") {
  xdp_desc frames[5] = {};
  frames[1].options = path::kXskContinues;
  frames[2].options = path::kXskContinues;
  std::span<xdp_desc> left = frames;
  std::vector<std::size_t> lengths;
  while (!left.empty()) {
    lengths.push_back(path::first_packet(left).size());
    left = left.subspan(lengths.back());
  }
  CHECK(lengths == std::vector<std::size_t>{1, 3, 1});
  frames[4].options = path::kXskContinues;
  CHECK(path::first_packet(std::span(frames).last(1)).size() ==
        1);  // what is cut off has an end all the same
}

TEST_CASE("wire: what is no request is refused") {
  path::XskAsk ask = usual_ask();
  REQUIRE(path::read_ask(bytes_of(ask)));
  CHECK(path::read_ask(bytes_of(ask))->service == "gateway");
  std::vector<std::byte> message(bytes_of(ask).begin(), bytes_of(ask).end());
  for (std::size_t length = 0; length < message.size(); ++length)
    CHECK(path::read_ask(std::span(message).first(length)).error().exit == Exit::BadInput);
  message.push_back({});
  CHECK_FALSE(path::read_ask(message));
  ask.version = path::kXskWireVersion + 1;
  CHECK_FALSE(path::read_ask(bytes_of(ask)));
  ask = usual_ask();
  std::memset(ask.service, 'x', sizeof(ask.service));  // without an end
  CHECK_FALSE(path::read_ask(bytes_of(ask)));
  ask = usual_ask();
  ask.service[0] = '\n';
  CHECK_FALSE(path::read_ask(bytes_of(ask)));
  ask.service[0] = 0;
  CHECK_FALSE(path::read_ask(bytes_of(ask)));
  ask = usual_ask();
  ask.queues = 0xffffffff;
  CHECK_FALSE(path::read_ask(bytes_of(ask)));
  // Random ones are refused or have a shape that can be.
  std::mt19937_64 random(2);
  for (int i = 0; i < 100'000; ++i) {
    ask = usual_ask();
    auto* words = reinterpret_cast<std::uint32_t*>(&ask);
    for (int changes = 0; changes < 3; ++changes)
      words[1 + random() % 8] = static_cast<std::uint32_t>(random() >> (random() % 64));
    const auto read = path::read_ask(bytes_of(ask));
    if (read) CHECK(path::check_shape(read->shape, read->queues));
  }
}

TEST_CASE("wire: a refusal comes with its words and its exit, cut where they are too long") {
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
  const UniqueFd here(ends[0]);
  const UniqueFd there(ends[1]);
  REQUIRE(path::send_refusal(
      here.get(), {.exit = Exit::Unsupported, .what = std::string(1000, 'a'), .hint = "try that"}));
  path::XskAnswer answer;
  REQUIRE(::recv(there.get(), &answer, sizeof(answer), 0) == sizeof(answer));
  CHECK(answer.exit == 3);
  CHECK(std::string(answer.what).size() == sizeof(answer.what) - 1);
  CHECK(std::string(answer.hint) == "try that");
}

TEST_CASE("wire: descriptors come in their order: the memory, then what receives, what sends and the page") {
  constexpr std::size_t kQueues = 2;
  std::vector<ino_t> sent;
  const auto one = [&] {
    UniqueFd fd(::memfd_create("one", MFD_CLOEXEC));
    REQUIRE(fd);
    sent.push_back(inode_of(fd.get()));
    return fd;
  };
  path::XskGrant grant;
  grant.ifname = "eth1";
  grant.memory = one();
  for (std::uint32_t queue = 0; queue < kQueues; ++queue) {
    path::XskQueueGrant& made = grant.queues.emplace_back();
    made.queue = 7 + queue;
    made.socket = one();
    made.transmit = one();
    made.page = one();
  }
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
  const UniqueFd here(ends[0]);
  const UniqueFd there(ends[1]);
  REQUIRE(path::send_grant(here.get(), grant));

  const auto got = path::receive_grant(there.get(), "here", {});
  REQUIRE(got);
  CHECK(got->ifname == "eth1");
  REQUIRE(got->queues.size() == kQueues);
  CHECK(got->queues[1].queue == 8);
  std::vector<ino_t> came = {inode_of(got->memory.get())};
  for (const path::XskQueueGrant& queue : got->queues)
    for (const UniqueFd* fd : {&queue.socket, &queue.transmit, &queue.page})
      came.push_back(inode_of(fd->get()));
  CHECK(came == sent);
}

TEST_CASE("wire: where nobody listens, or it is no socket, the error says so") {
  const path::XskRequest request{.service = "gateway"};
  const auto nobody = path::connect_xsk("/nowhere/at/all", request);
  REQUIRE_FALSE(nobody);
  CHECK(nobody.error().text().contains("agentnic-load serve"));
  CHECK(path::connect_xsk(std::string(200, 'x'), request).error().exit == Exit::BadInput);
  CHECK(path::connect_xsk("/nowhere", {.service = std::string(32, 'x')}).error().exit == Exit::BadInput);
  CHECK(path::connect_xsk("/nowhere", {.service = ""}).error().exit == Exit::BadInput);
}
