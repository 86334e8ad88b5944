// SPDX-License-Identifier: Apache-2.0
#include "instance.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cerrno>
#include <cstring>
#include <numeric>
#include <utility>

#include "kern/generation.hpp"
#include "kern/test_run.hpp"
#include "policy/parse.hpp"

namespace agentnic {
namespace {

using Entry = std::unique_ptr<bpf_object, void (*)(bpf_object*)>;

constexpr const char* kEntry = ".build/tests/fixtures/entry.bpf.o";
constexpr const char* kOperator = ".build/tests/fixtures/operator.bpf.o";

template <typename T>
T value_of(Result<T> result) {
  if (!result) FAIL(result.error().text());
  return std::move(*result);
}

void require(const Status& status) {
  if (!status) FAIL(status.error().text());
}

/// One of the test programs of a file alone, since the verifier takes its time for each. Its maps are the
/// instance's, and those for tests the ones of `other`, if there is one.
Entry load_entry(const kern::Maps& maps, const char* file, const char* program, const bpf_object* other) {
  Entry entry(bpf_object__open_file(file, nullptr), bpf_object__close);
  if (!entry) FAIL(file << ": " << std::strerror(errno));
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, entry.get()) {
    int fd = maps.fd(bpf_map__name(map));
    if (fd < 0 && other != nullptr) fd = bpf_object__find_map_fd_by_name(other, bpf_map__name(map));
    if (fd >= 0) REQUIRE(bpf_map__reuse_fd(map, fd) == 0);
  }
  bpf_program* each = nullptr;
  bpf_object__for_each_program(each, entry.get()) {
    REQUIRE(bpf_program__set_autoload(each, std::strcmp(bpf_program__name(each), program) == 0) == 0);
  }
  REQUIRE(bpf_object__load(entry.get()) == 0);
  return entry;
}

/// Keys of the first entries of an array.
std::vector<std::uint32_t> first_keys(std::size_t count) {
  std::vector<std::uint32_t> keys(count);
  std::iota(keys.begin(), keys.end(), 0U);
  return keys;
}

}  // namespace

anic_test_packet make_packet(std::span<const std::byte> frame, std::uint32_t mark, std::uint32_t queue) {
  anic_test_packet packet{};
  packet.len = static_cast<std::uint32_t>(frame.size());
  packet.mark = mark;
  packet.queue = queue;
  std::memcpy(packet.bytes, frame.data(), std::min(frame.size(), sizeof(packet.bytes)));
  return packet;
}

std::vector<std::byte> frame_of(const anic_test_packet& packet) {
  std::vector<std::byte> frame(packet.len);
  std::memcpy(frame.data(), packet.bytes, std::min(frame.size(), sizeof(packet.bytes)));
  return frame;
}

std::int32_t passed(model::Hook hook) { return hook == model::Hook::Xdp ? XDP_PASS : TC_ACT_UNSPEC; }

std::int32_t dropped(model::Hook hook) { return hook == model::Hook::Xdp ? XDP_DROP : TC_ACT_SHOT; }

Instance::Instance(const std::optional<kern::ChainKey>& chain_key)
    : object_(value_of(kern::Object::load(kern::possible_cpus(), chain_key))),
      maps_(value_of(object_.maps())) {}

policy::Ids Instance::install(const policy::Policy& policy, const std::function<void(policy::Tables&)>& edit,
                              std::uint64_t now_ns) {
  policy::Tables tables = value_of(kern::tables_of(policy, ids_));
  ids_ = kern::ids_of(tables);
  if (edit) edit(tables);
  require(kern::install(maps_, now_ns == 0 ? object_.commit() : commit(), std::move(tables), now_ns));
  return ids_;
}

policy::Ids Instance::install(const std::string& json) {
  return install(value_of(policy::parse(json, "the test's policy")));
}

std::optional<std::int32_t> Instance::pass(model::Hook hook, std::span<const std::byte> frame,
                                           std::uint32_t mark, std::uint32_t segments) const {
  __sk_buff skb{};
  skb.mark = mark;
  skb.gso_segs = segments;
  LIBBPF_OPTS(bpf_test_run_opts, options);
  options.data_in = frame.data();
  options.data_size_in = static_cast<std::uint32_t>(frame.size());
  if (hook != model::Hook::Xdp) {
    options.ctx_in = &skb;
    options.ctx_size_in = sizeof(skb);
  }
  const int fds[] = {object_.xdp_fd(), object_.tc_in_fd(), object_.tc_out_fd()};
  if (bpf_prog_test_run_opts(fds[static_cast<int>(hook)], &options) != 0) return std::nullopt;
  return static_cast<std::int32_t>(options.retval);
}

std::vector<anic_test_result> Instance::run(model::Hook hook, std::span<const anic_test_packet> packets,
                                            std::uint64_t now_ns) const {
  REQUIRE(packets.size() <= ANIC_TEST_PACKETS_MAX);
  const char* const names[] = {"test_xdp", "test_tc_in", "test_tc_out"};
  const int fd = program(names[static_cast<int>(hook)]);
  const std::vector<std::uint32_t> keys = first_keys(packets.size());
  auto count = static_cast<std::uint32_t>(packets.size());
  REQUIRE(bpf_map_update_batch(map("test_packets"), keys.data(), packets.data(), &count, nullptr) == 0);
  const std::uint32_t zero = 0;
  const anic_test_setup setup{.now_ns = now_ns, .next = 0, ._pad = 0};
  REQUIRE(bpf_map_update_elem(map("test_setup"), &zero, &setup, BPF_ANY) == 0);
  const std::vector<std::byte> anything(64);
  (void)value_of(kern::time_runs(fd, anything, count));

  std::vector<anic_test_result> results(packets.size());
  for (const std::uint32_t i : keys) {
    REQUIRE(bpf_map_lookup_elem(map("test_results"), &i, &results[i]) == 0);
    if (results[i].made != 0)
      FAIL(fmt::format("packet {} of {} bytes: {}", i, packets[i].len, std::strerror(-results[i].made)));
  }
  return results;
}

void Instance::tick(std::uint64_t now_ns) const { REQUIRE(try_tick(now_ns) == 0); }

int Instance::try_tick(std::uint64_t now_ns) const {
  const int fd = program("test_tick");
  const std::uint32_t zero = 0;
  const anic_test_setup setup{.now_ns = now_ns, .next = 0, ._pad = 0};
  REQUIRE(bpf_map_update_elem(map("test_setup"), &zero, &setup, BPF_ANY) == 0);
  LIBBPF_OPTS(bpf_test_run_opts, options);
  REQUIRE(bpf_prog_test_run_opts(fd, &options) == 0);
  return static_cast<int>(options.retval);
}

void Instance::count_turns(anic_test_turn turn) const {
  LIBBPF_OPTS(bpf_test_run_opts, options);
  options.ctx_in = &turn;
  options.ctx_size_in = sizeof(turn);
  REQUIRE(bpf_prog_test_run_opts(program("test_turn"), &options) == 0);
  REQUIRE(options.retval == 0);
}

std::unique_ptr<anic_counters> Instance::counters() const {
  auto sum = std::make_unique<anic_counters>();
  const auto one = std::make_unique<anic_counters>();
  constexpr std::size_t kWords = sizeof(anic_counters) / sizeof(std::uint64_t);
  for (std::uint32_t cpu = 0; cpu < kern::possible_cpus(); ++cpu) {
    require(maps_.read("anic_counters", cpu, *one));
    const auto* from = reinterpret_cast<const std::uint64_t*>(one.get());
    auto* to = reinterpret_cast<std::uint64_t*>(sum.get());
    std::transform(from, from + kWords, to, to, std::plus());
  }
  return sum;
}

anic_control Instance::control() const {
  anic_control control{};
  require(maps_.read("anic_control", 0, control));
  return control;
}

int Instance::program(const char* name) const {
  auto found = entries_.find(name);
  if (found == entries_.end()) {
    const bpf_object* other = entries_.empty() ? nullptr : entries_.begin()->second.get();
    found = entries_.emplace(name, load_entry(maps_, kEntry, name, other)).first;
  }
  return bpf_program__fd(bpf_object__find_program_by_name(found->second.get(), name));
}

int Instance::operator_fd(const std::string& name) const {
  auto found = operators_.find(name);
  if (found == operators_.end())
    found = operators_.emplace(name, load_entry(maps_, kOperator, name.c_str(), nullptr)).first;
  const bpf_program* program = bpf_object__find_program_by_name(found->second.get(), name.c_str());
  if (program == nullptr) FAIL("no program " << name);
  return bpf_program__fd(program);
}

kern::CommitPrograms Instance::commit() const {
  kern::CommitPrograms programs = object_.commit();
  programs.commit_fd = operator_fd("anic_commit");
  return programs;
}

int Instance::map(const char* name) const {
  return bpf_object__find_map_fd_by_name(entries_.begin()->second.get(), name);
}

std::string counter_differences(const anic_counters& expected, const anic_counters& found) {
  std::string text;
  const auto number = [&](std::uint64_t a, std::uint64_t b, const auto&... what) {
    if (a == b) return;
    ((text += fmt::format("{} ", what)), ...);
    text += fmt::format(": expected {}, found {}\n", a, b);
  };
  const auto count = [&](const anic_count& a, const anic_count& b, const auto&... what) {
    number(a.packets, b.packets, what..., "packets");
    number(a.bytes, b.bytes, what..., "bytes");
  };
  for (std::size_t way = 0; way < ANIC_DIRECTION__MAX; ++way) {
    const char* const name = way == ANIC_DIRECTION_IN ? "in" : "out";
    const auto lane = [&](const anic_lane_count& a, const anic_lane_count& b, const auto&... what) {
      number(a.seen, b.seen, name, what..., "seen");
      for (std::size_t reason = 0; reason < ANIC_REASONS; ++reason)
        count(a.by_reason[reason], b.by_reason[reason], name, what..., "reason", reason);
    };
    for (std::size_t id = 0; id < ANIC_LANES_MAX; ++id)
      lane(expected.lanes[way][id], found.lanes[way][id], "lane", id);
    lane(expected.gone[way], found.gone[way], "tenants gone");
    for (std::size_t queue = 0; queue < ANIC_QUEUES_MAX; ++queue) {
      for (std::size_t reason = 0; reason < ANIC_REASONS; ++reason)
        number(expected.queues[way][queue].by_reason[reason], found.queues[way][queue].by_reason[reason],
               name, "queue", queue, "reason", reason);
    }
    for (std::size_t id = 0; id < ANIC_SERVICES_MAX; ++id)
      count(expected.services[way][id], found.services[way][id], name, "service", id);
  }
  return text;
}

}  // namespace agentnic
