// SPDX-License-Identifier: Apache-2.0
#include "session.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sys/mman.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstring>
#include <utility>

#include "base/unique_fd.hpp"

namespace agentnic {
namespace {

constexpr const char* kSession = ".build/tests/fixtures/session.bpf.o";
constexpr const char* kConstants = "constants";

template <typename Arguments>
int run_program(int fd, const Arguments& arguments) {
  LIBBPF_OPTS(bpf_test_run_opts, options);
  options.ctx_in = &arguments;
  options.ctx_size_in = sizeof(arguments);
  REQUIRE(bpf_prog_test_run_opts(fd, &options) == 0);
  return static_cast<int>(options.retval);
}

/// Its constants are in a map of the test's, which is not frozen: see TestSession::become().
std::unique_ptr<bpf_object, void (*)(bpf_object*)> load_session(const kern::Maps& maps) {
  std::unique_ptr<bpf_object, void (*)(bpf_object*)> object(bpf_object__open_file(kSession, nullptr),
                                                            bpf_object__close);
  if (!object) FAIL(kSession << ": " << std::strerror(errno));
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, object.get()) {
    const std::string name = bpf_map__name(map);
    if (const int fd = maps.fd(name); fd >= 0) REQUIRE(bpf_map__reuse_fd(map, fd) == 0);
    if (name.find(".rodata") == std::string::npos) continue;
    LIBBPF_OPTS(bpf_map_create_opts, options);
    options.map_flags = bpf_map__map_flags(map);
    REQUIRE(bpf_map__value_size(map) == 2 * sizeof(std::uint64_t));
    const UniqueFd constants(
        bpf_map_create(BPF_MAP_TYPE_ARRAY, kConstants, sizeof(int), bpf_map__value_size(map), 1, &options));
    REQUIRE(bpf_map__reuse_fd(map, constants.get()) == 0);
  }
  REQUIRE(bpf_object__load(object.get()) == 0);
  return object;
}

/// Its slot.
std::uint32_t open_session(const Instance& instance, const anic_grants& asked, std::uint64_t now_ns,
                           std::uint32_t agent) {
  anic_order opening = order_at(now_ns);
  opening.tenants = asked.tenants;
  opening.kinds_classes = std::uint64_t{asked.classes} << 32U | asked.kinds;
  opening.paths_agent = std::uint64_t{agent} << 32U | asked.paths;
  const int slot = order(instance, "open", opening);
  REQUIRE(slot >= 0);
  return static_cast<std::uint32_t>(slot);
}

}  // namespace

int order(const Instance& instance, const char* program, const anic_order& arguments) {
  return run_program(instance.operator_fd(std::string("anic_") + program), arguments);
}

anic_order order_at(std::uint64_t now_ns) {
  anic_order arguments{};
  arguments.now_ns = now_ns;
  return arguments;
}

anic_draining draining_at(std::uint64_t now_ns) {
  return {.now_ns = now_ns, .observe = 0, .unused = {}, .word = ANIC_DRAIN_WORD};
}

anic_grants everything() { return {.tenants = ~0ULL, .kinds = ~0U, .classes = ~0U, .paths = ~0U, ._pad = 0}; }

TestSession::TestSession(const Instance& instance, const anic_grants& asked, std::uint64_t now_ns,
                         std::uint32_t agent)
    : TestSession(instance, open_session(instance, asked, now_ns, agent)) {}

TestSession::TestSession(const Instance& instance, std::uint32_t slot)
    : instance_(instance), object_(load_session(instance.maps())), ring_(nullptr, user_ring_buffer__free) {
  become(slot);
  ring_.reset(user_ring_buffer__new(ring_fd(), nullptr));
  REQUIRE(ring_ != nullptr);
  REQUIRE(bpf_map_freeze(page_fd()) == 0);
  constexpr std::size_t kPage = (sizeof(anic_page) + 4095) / 4096 * 4096;
  void* page = ::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, page_fd(), 0);
  REQUIRE(page != MAP_FAILED);
  page_.reset(static_cast<const anic_page*>(page), [](const anic_page* there) {
    ::munmap(const_cast<anic_page*>(there), kPage);  // NOLINT(cppcoreguidelines-pro-type-const-cast)
  });
}

void TestSession::become(std::uint32_t slot) {
  slot_ = slot;
  id_ = row().id;
  const std::uint64_t constants[] = {slot_, id_};  // in the order of bpf/session/session.bpf.h
  const int first = 0;
  const int fd = bpf_object__find_map_fd_by_name(object_.get(), kConstants);
  REQUIRE(bpf_map_update_elem(fd, &first, constants, BPF_ANY) == 0);
}

anic_session TestSession::row() const {
  anic_session row{};
  REQUIRE(instance_.maps().read("anic_sessions", slot_, row).has_value());
  return row;
}

bool TestSession::write(const void* bytes, std::size_t size) const {
  void* sample = user_ring_buffer__reserve(ring_.get(), static_cast<std::uint32_t>(size));
  if (sample == nullptr) return false;
  std::memcpy(sample, bytes, size);
  user_ring_buffer__submit(ring_.get(), sample);
  return true;
}

bool TestSession::take_back(std::size_t size) const {
  void* sample = user_ring_buffer__reserve(ring_.get(), static_cast<std::uint32_t>(size));
  if (sample == nullptr) return false;
  user_ring_buffer__discard(ring_.get(), sample);
  return true;
}

template <typename Arguments>
int TestSession::run(const char* program, const Arguments& arguments) const {
  return run_program(bpf_program__fd(bpf_object__find_program_by_name(object_.get(), program)), arguments);
}

int TestSession::drain(std::uint64_t now_ns) const { return run("test_drain", draining_at(now_ns)); }

const anic_observation& TestSession::observe(std::uint64_t now_ns) const {
  anic_draining draining = draining_at(now_ns);
  draining.observe = 1;
  REQUIRE(run("test_drain", draining) >= 0);
  CHECK(page_->observation.sequence % 2 == 0);
  CHECK(page_->observation.at_ns == now_ns);
  return page_->observation;
}

void TestSession::observe_alone(std::uint64_t now_ns) const {
  REQUIRE(run("test_observe", order_at(now_ns)) == 0);
}

int TestSession::lock(std::uint64_t now_ns, bool held) const {
  anic_order arguments = order_at(now_ns);
  arguments.what = held ? 1 : 0;
  return run("test_lock", arguments);
}

int TestSession::ring_fd() const { return bpf_object__find_map_fd_by_name(object_.get(), "session_ring"); }
int TestSession::page_fd() const { return bpf_object__find_map_fd_by_name(object_.get(), "session_page"); }
int TestSession::drain_fd() const {
  return bpf_program__fd(bpf_object__find_program_by_name(object_.get(), "test_drain"));
}

anic_answer TestSession::propose(anic_proposal proposal, std::uint64_t now_ns) const {
  proposal.size = sizeof(proposal);
  proposal.cookie = page_->answered + 1;
  REQUIRE(write(&proposal, sizeof(proposal)));
  REQUIRE(drain(now_ns) == 1);
  const anic_answer answer = page_->answers[(page_->answered - 1) % ANIC_DRAIN_MAX];
  REQUIRE(answer.cookie == proposal.cookie);
  return answer;
}

int TestSession::close(std::uint64_t now_ns) const {
  anic_order closing = order_at(now_ns);
  closing.session = id_;
  return order(instance_, "close", closing);
}

Records::Records(const Instance& instance) : ring_(nullptr, ring_buffer__free) {
  ring_.reset(ring_buffer__new(instance.maps().fd("anic_audit"), keep, &taken_, nullptr));
  REQUIRE(ring_ != nullptr);
}

/// A negative answer ends the reading after this one.
int Records::keep(void* taken, void* data, std::size_t size) {
  auto& [records, most] = *static_cast<Taken*>(taken);
  anic_record record{};
  if (size != sizeof(record)) return -EBADMSG;
  std::memcpy(&record, data, size);
  records.push_back(record);
  return records.size() == most ? -ECANCELED : 0;
}

std::vector<anic_record> Records::take(std::size_t most) {
  taken_ = {.records = {}, .most = most};
  const int code = most == 0 ? 0 : ring_buffer__consume(ring_.get());
  REQUIRE((code >= 0 || code == -ECANCELED));
  return std::exchange(taken_.records, {});
}

}  // namespace agentnic
