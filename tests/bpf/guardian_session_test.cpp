// SPDX-License-Identifier: Apache-2.0
//
// Sessions: who may have one, what its holder can do and what he cannot, whatever he tries.

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <grp.h>
#include <linux/bpf.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "guarded.hpp"

using namespace agentnic;

namespace {

constexpr std::size_t kRingBytes = 1 << 16;
constexpr std::size_t kTakes = sizeof(anic_proposal) + BPF_RINGBUF_HDR_SZ;

const char* const kFrozen[] = {"anic_state",   "anic_lanes",    "anic_buckets",  "anic_claims",
                               "anic_levels",  "anic_sharing",  "anic_steering", "anic_turns",
                               "anic_modes",   "anic_guarding", "anic_guard",    "anic_wards",
                               "anic_actions", "anic_sessions", "anic_dumps",    "anic_chain",
                               "anic_waiting", "anic_scratch",  "anic_escalated"};

/// A proposal that would be approved.
anic_proposal good_one() {
  anic_proposal proposal = weight(kAcme, ANIC_CLASS_RPC, 150);
  proposal.size = sizeof(proposal);
  proposal.cookie = 77;
  return proposal;
}

/// Whether a call failed with this error.
bool failed_with(int code, int error) { return code < 0 && errno == error; }

bool map_is_closed(int fd) {
  std::vector<std::byte> value(1 << 20);
  const std::uint64_t key = 0;
  return failed_with(bpf_map_update_elem(fd, &key, value.data(), BPF_ANY), EPERM) &&
         failed_with(bpf_map_delete_elem(fd, &key), EPERM);
}

/// What a holder without privileges does with the descriptors; 0, or the number of what was not as it must
/// be.
int unprivileged(const TestSession& session, const std::vector<int>& maps, std::uint32_t map_id,
                 std::uint32_t prog_id) {
  if (::setgroups(0, nullptr) != 0 || ::setresgid(65534, 65534, 65534) != 0 ||
      ::setresuid(65534, 65534, 65534) != 0 || ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    return 1;
  const std::unique_ptr<user_ring_buffer, void (*)(user_ring_buffer*)> ring(
      user_ring_buffer__new(session.ring_fd(), nullptr), user_ring_buffer__free);
  if (!ring) return 2;
  void* sample = user_ring_buffer__reserve(ring.get(), sizeof(anic_proposal));
  if (sample == nullptr) return 3;
  const anic_proposal proposal = good_one();
  std::memcpy(sample, &proposal, sizeof(proposal));
  user_ring_buffer__submit(ring.get(), sample);
  const anic_draining draining = draining_at(kStart);
  LIBBPF_OPTS(bpf_test_run_opts, options);
  options.ctx_in = &draining;
  options.ctx_size_in = sizeof(draining);
  if (bpf_prog_test_run_opts(session.drain_fd(), &options) != 0 || options.retval != 1) return 4;
  const void* page = ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, session.page_fd(), 0);
  if (page == MAP_FAILED) return 5;
  if (static_cast<const anic_page*>(page)->answers[0].decided != ANIC_DECIDED_APPROVE) return 6;
  if (::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, session.page_fd(), 0) != MAP_FAILED) return 7;
  if (!std::ranges::all_of(maps, map_is_closed)) return 8;
  if (bpf_map_get_fd_by_id(map_id) >= 0 || errno != EPERM) return 9;
  if (bpf_prog_get_fd_by_id(prog_id) >= 0 || errno != EPERM) return 10;
  // Nor does it run anywhere but when it is asked to.
  for (const char* tracepoint : {"sys_enter", "sched_switch", "net_dev_xmit"})
    if (bpf_raw_tracepoint_open(tracepoint, session.drain_fd()) >= 0) return 12;
  // Where the consumer is, is the kernel's to say.
  if (::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, session.ring_fd(), 0) != MAP_FAILED)
    return 11;
  return 0;
}

std::uint32_t id_of_program(int fd) {
  bpf_prog_info info{};
  std::uint32_t size = sizeof(info);
  REQUIRE(bpf_prog_get_info_by_fd(fd, &info, &size) == 0);
  return info.id;
}

/// Writes over what is in a session's ring for as long as it lives, all but headers.
class Rewriter {
 public:
  explicit Rewriter(int ring_fd) {
    void* at = ::mmap(nullptr, kRingBytes * 2, PROT_READ | PROT_WRITE, MAP_SHARED, ring_fd, 2 * 4096);
    REQUIRE(at != MAP_FAILED);
    data_ = static_cast<std::byte*>(at);
    thread_ = std::thread([this] { run(); });
  }
  ~Rewriter() {
    stop_ = true;
    thread_.join();
    ::munmap(data_, kRingBytes * 2);
  }
  Rewriter(const Rewriter&) = delete;
  Rewriter& operator=(const Rewriter&) = delete;

  /// Samples from here on are about to be judged.
  void aim(std::uint64_t first) { first_ = first; }

 private:
  void run() {
    for (std::uint32_t i = 0; !stop_; ++i) {
      const std::uint64_t number = first_ + i % ANIC_DRAIN_MAX;
      std::byte* sample = data_ + number * kTakes % kRingBytes + BPF_RINGBUF_HDR_SZ;
      put<std::uint64_t>(sample + offsetof(anic_proposal, value), i % 3 == 0 ? 5000 : 1 + i % 1000);
      put<std::uint8_t>(sample + offsetof(anic_proposal, cls),
                        i % 7 == 0 ? ANIC_CLASS_CONTROL : ANIC_CLASS_RPC);
      put<std::uint8_t>(sample + offsetof(anic_proposal, tenant), i % 5 == 0 ? 9 : kAcme);
      put<std::uint32_t>(sample + offsetof(anic_proposal, size), i % 11 == 0 ? 79 : sizeof(anic_proposal));
    }
  }

  template <typename Word>
  static void put(std::byte* at, Word word) {
    __atomic_store_n(reinterpret_cast<Word*>(at), word, __ATOMIC_RELAXED);
  }

  std::byte* data_ = nullptr;
  std::atomic<std::uint64_t> first_ = 0;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

/// A session's ring as a holder can fill it who does not keep to its rules: with samples of no length, all of
/// which were taken back, as many as he says.
class EndlessRing {
 public:
  explicit EndlessRing(int ring_fd) {
    constexpr std::size_t kPage = 4096;
    void* read = ::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, ring_fd, 0);
    void* written =
        ::mmap(nullptr, kPage + 2 * kRingBytes, PROT_READ | PROT_WRITE, MAP_SHARED, ring_fd, kPage);
    REQUIRE((read != MAP_FAILED && written != MAP_FAILED));
    consumer_ = static_cast<std::uint64_t*>(read);
    producer_ = static_cast<std::uint64_t*>(written);
    for (std::size_t at = 0; at < kRingBytes; at += BPF_RINGBUF_HDR_SZ)
      producer_[(kPage + at) / sizeof(*producer_)] = BPF_RINGBUF_DISCARD_BIT;
  }

  /// So many bytes of them.
  void fill(std::uint64_t bytes) { __atomic_store_n(producer_, consumed() + bytes, __ATOMIC_RELEASE); }
  [[nodiscard]] std::uint64_t consumed() const { return __atomic_load_n(consumer_, __ATOMIC_ACQUIRE); }

 private:
  std::uint64_t* consumer_ = nullptr;
  std::uint64_t* producer_ = nullptr;
};

/// What one record says of a decision goes together.
void check_sense(const anic_record& record) {
  CHECK(record.proposed == ANIC_CHANGE_QUEUE_WEIGHT_ADJUST);
  switch (record.decided) {
    case ANIC_DECIDED_APPROVE:
    case ANIC_DECIDED_REWRITE:
      CHECK(record.tenant == kAcme);
      CHECK(record.cls == ANIC_CLASS_RPC);
      CHECK(record.approved == std::min<std::uint64_t>(record.requested, 1000));
      CHECK((record.decided == ANIC_DECIDED_REWRITE) == (record.requested > 1000));
      break;
    case ANIC_DECIDED_REJECT:
      CHECK((record.invariant == ANIC_INVARIANT_C1) ==
            (record.tenant == kAcme && record.cls == ANIC_CLASS_CONTROL));
      CHECK((record.invariant == ANIC_INVARIANT_FORM) == (record.tenant == 0));
      break;
    default:
      FAIL("decided " << int{record.decided});
  }
}

}  // namespace

TEST_CASE("guardian: a weight is changed, recorded, and given back when the session closes", "[smoke]") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  const auto before = guarded.take();
  REQUIRE(before.size() == 5);
  CHECK(before[0].kind == ANIC_RECORD_ATTACH);
  CHECK(before[1].kind == ANIC_RECORD_COMMIT);
  CHECK(before[1].tenant == 0);
  CHECK(before[2].kind == ANIC_RECORD_COMMIT);
  CHECK(before[2].tenant == kAcme);
  CHECK(before[3].kind == ANIC_RECORD_COMMIT);
  CHECK(before[3].tenant == kGlobex);
  CHECK(before[4].kind == ANIC_RECORD_OPEN);
  const anic_answer answer = guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, 150), kStart);
  CHECK(answer.observed == 100);
  CHECK(answer.seq == 6);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_RPC).weight == 150);
  CHECK(session.close(kStart + kMs) == 0);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_RPC).weight == 100);
  CHECK(guarded.mode(kAcme) == 0);
  const auto closed = guarded.take();
  REQUIRE(closed.size() == 2);
  CHECK(closed[0].kind == ANIC_RECORD_REVERT);
  CHECK(closed[0].observed == 150);
  CHECK(closed[0].approved == 100);
  CHECK(closed[1].kind == ANIC_RECORD_CLOSE);
  CHECK(session.drain(kStart + 2 * kMs) == -ESTALE);
  CHECK(session.close(kStart + 2 * kMs) == -ESRCH);
}

TEST_CASE("guardian: a tenant is governed by one session at a time") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything_of(1), kStart);
  CHECK(try_open(guarded, 1, kStart) == -EEXIST);
  CHECK(try_open(guarded, 3, kStart) == -EEXIST);
  CHECK(try_open(guarded, 2, kStart) >= 0);
  CHECK(try_open(guarded, 0, kStart) == -EINVAL);
  CHECK(session.close(kStart) == 0);
  CHECK(try_open(guarded, 1, kStart) >= 0);
}

TEST_CASE("guardian: there are sixteen sessions at once, and a place is not taken for the one before") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything_of(1), kStart);
  for (unsigned tenant = 1; tenant < ANIC_SESSIONS_MAX; ++tenant)
    CHECK(try_open(guarded, 1ULL << tenant, kStart) == static_cast<int>(tenant));
  CHECK(try_open(guarded, 1ULL << ANIC_SESSIONS_MAX, kStart) == -ENOSPC);
  CHECK(session.close(kStart) == 0);
  CHECK(try_open(guarded, 1ULL << ANIC_SESSIONS_MAX, kStart) == static_cast<int>(session.slot()));
  CHECK(session.row().id > session.id());
  CHECK(session.drain(kStart) == -ESTALE);
  CHECK(session.close(kStart) == -ESRCH);
}

TEST_CASE("guardian: a session gives back what it changed, and not what another did") {
  Guarded guarded;
  const TestSession first(guarded.instance(), everything_of(1), kStart);
  const TestSession second(guarded.instance(), everything_of(2), kStart);
  guarded.approves(first, weight(kAcme, ANIC_CLASS_RPC, 150), kStart);
  guarded.approves(second, weight(kGlobex, ANIC_CLASS_RPC, 150), kStart);
  CHECK(first.close(kStart) == 0);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_RPC).weight == 100);
  CHECK(guarded.tuned(kGlobex, ANIC_CLASS_RPC).weight == 150);
}

TEST_CASE("guardian: a call judges 64 proposals at most, and each has its own answer") {
  Guarded guarded(guarded_policy(R"("rejections": 1000)"));
  const TestSession session(guarded.instance(), everything(), kStart);
  for (std::uint64_t cookie = 1; cookie <= 100; ++cookie) {
    anic_proposal proposal = good_one();
    proposal.cls = ANIC_CLASS_CONTROL;
    proposal.cookie = cookie;
    REQUIRE(session.write(&proposal, sizeof(proposal)));
  }
  CHECK(session.drain(kStart) == ANIC_DRAIN_MAX);
  CHECK(session.page().answered == ANIC_DRAIN_MAX);
  for (std::uint64_t i = 0; i < ANIC_DRAIN_MAX; ++i) CHECK(session.page().answers[i].cookie == i + 1);
  CHECK(session.drain(kStart) == 100 - ANIC_DRAIN_MAX);
  CHECK(session.drain(kStart) == 0);
  CHECK(session.page().answered == 100);
  CHECK(session.row().decided[ANIC_DECIDED_REJECT] == 100);
}

TEST_CASE("guardian: what is recorded is what was decided, whoever writes over a proposal meanwhile") {
  constexpr std::uint64_t kRounds = 320;
  Guarded guarded(guarded_policy(R"("heartbeat": "60s", "changes": {"tenant": 10000000, "total": 10000000},
      "weight": {"step": 1000}, "oscillation": {"window": "1us", "flips": 1000}, "rejections": 1000000)"));
  const TestSession session(guarded.instance(), everything(), kStart);
  (void)guarded.take();
  std::uint64_t rounds = 0;
  std::uint64_t decided = 0;
  std::uint64_t approved = 0;
  {
    Rewriter rewriter(session.ring_fd());
    // On a busy machine the writer may have no CPU for some time.
    const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    const auto met = [&] { return approved > 0 && approved < decided; };
    for (; rounds < kRounds || (!met() && std::chrono::steady_clock::now() < patience); ++rounds) {
      const std::uint64_t now = kStart + rounds * kMs;
      rewriter.aim(rounds * ANIC_DRAIN_MAX);
      for (int i = 0; i < ANIC_DRAIN_MAX; ++i) {
        const anic_proposal proposal = good_one();
        REQUIRE(session.write(&proposal, sizeof(proposal)));
      }
      REQUIRE(session.drain(now) == ANIC_DRAIN_MAX);
      guarded.tick(now);  // what is counted together comes out
      for (const anic_record& record : guarded.take()) {
        check_sense(record);
        decided += record.count;
        if (record.decided == ANIC_DECIDED_REJECT) continue;
        ++approved;
      }
    }
  }
  CHECK(decided == rounds * ANIC_DRAIN_MAX);
  CHECK(approved > 0);
  CHECK(approved < decided);
}

TEST_CASE("guardian: samples that were taken back are passed over, those between are judged") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  for (int i = 0; i < 300; ++i) {
    REQUIRE(session.take_back(8));
    if (i % 100 != 99) continue;
    const anic_proposal proposal = good_one();
    REQUIRE(session.write(&proposal, sizeof(proposal)));
  }
  CHECK(session.drain(kStart) == 3);
  CHECK(session.page().answered == 3);
  CHECK(session.drain(kStart) == 0);
}

TEST_CASE("guardian: a drain that finds the lock taken reads nothing, so that its ring delays nobody") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  while (session.take_back(8)) continue;
  REQUIRE(session.lock(kStart, true) == 0);
  CHECK(session.drain(kStart) == -EBUSY);
  CHECK_FALSE(session.take_back(8));  // it is still full
  REQUIRE(session.lock(kStart, false) == 0);
  CHECK(session.drain(kStart) == 0);
  CHECK(session.take_back(8));
}

TEST_CASE(
    "guardian: L2: a ring from which as much was taken back as it holds is read, more ends its session") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything_of(1), kStart);
  guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, 150), kStart);
  EndlessRing ring(session.ring_fd());
  for (int i = 0; i < 3; ++i) {
    ring.fill(kRingBytes);
    CHECK(session.drain(kStart) == 0);
  }
  CHECK(guarded.mode(kAcme) == 0);
  CHECK(guarded.take().empty());
  ring.fill(kRingBytes + BPF_RINGBUF_HDR_SZ);
  CHECK(session.drain(kStart) == 0);
  CHECK(session.drain(kStart) == -ESTALE);
  CHECK(guarded.mode(kAcme) == (ANIC_FAILSAFE_RING | ANIC_MODE_ALARM));
  CHECK(guarded.mode(kGlobex) == 0);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_RPC).weight == 100);
  const auto records = guarded.take();
  REQUIRE(records.size() == 3);
  CHECK(records[0].kind == ANIC_RECORD_FAILSAFE);
  CHECK(records[0].failsafe == ANIC_FAILSAFE_RING);
  CHECK(records[0].invariant == ANIC_INVARIANT_L2);
  CHECK(records[0].session == session.id());
  CHECK(records[1].kind == ANIC_RECORD_REVERT);
  CHECK(records[2].kind == ANIC_RECORD_CLOSE);
}

TEST_CASE("guardian: L2: a ring without end is read once, also where its session's end has to wait") {
  constexpr std::uint64_t kEndless = std::uint64_t{1} << 40;
  Guarded guarded;
  const TestSession session(guarded.instance(), everything_of(1), kStart);
  EndlessRing ring(session.ring_fd());
  REQUIRE(session.lock(kStart, true) == 0);
  CHECK(guarded.failsafe(ANIC_ORDER_EXIT, 0, kStart) == -EBUSY);
  REQUIRE(session.lock(kStart, false) == 0);
  ring.fill(kEndless);
  CHECK(session.drain(kStart) == -EBUSY);  // the operator comes first
  const std::uint64_t read = ring.consumed();
  CHECK(read > kRingBytes);
  CHECK(guarded.mode(kAcme) == 0);
  CHECK(session.drain(kStart) == -EBUSY);
  CHECK(session.drain(kStart + ANIC_LOCK_WANTED_NS) == 0);
  CHECK(ring.consumed() == read);
  CHECK(guarded.mode(kAcme) == (ANIC_FAILSAFE_RING | ANIC_MODE_ALARM));
}

TEST_CASE("guardian: a drain without its word does nothing, and is no sign of life") {
  const Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  const anic_proposal proposal = good_one();
  REQUIRE(session.write(&proposal, sizeof(proposal)));
  anic_draining draining = draining_at(kStart);
  draining.word = 0;
  LIBBPF_OPTS(bpf_test_run_opts, options);
  options.ctx_in = &draining;
  options.ctx_size_in = sizeof(draining);
  REQUIRE(bpf_prog_test_run_opts(session.drain_fd(), &options) == 0);
  CHECK(static_cast<int>(options.retval) == -EINVAL);
  CHECK(session.row().heard_ns == 0);
  options.ctx_size_in = sizeof(draining) - sizeof(draining.word);
  CHECK(failed_with(bpf_prog_test_run_opts(session.drain_fd(), &options), EINVAL));
  CHECK(session.drain(kStart) == 1);
}

TEST_CASE("guardian: an agent governs the tenants that it was granted, whatever its session asked for") {
  const std::string narrow = R"({"name": "tuner", "tenants": ["acme"], "kinds": ["queue_weight_adjust"]})";
  const std::string wide =
      R"({"name": "tuner", "tenants": ["acme", "globex"], "kinds": ["queue_weight_adjust"]})";
  const auto policy = [](const std::string& agent) {
    return guarded_policy(R"("rejections": 1)", R"("agents": [)" + agent + "]");
  };
  Guarded guarded(policy(wide));
  const TestSession session(guarded.instance(), everything(), kStart, 1);
  CHECK(try_open(guarded, 2, kStart) == -EEXIST);
  guarded.install(policy(narrow), kStart);  // globex is taken from it
  CHECK(try_open(guarded, 2, kStart) >= 0);
  CHECK(session.propose(weight(kGlobex, ANIC_CLASS_RPC, 150), kStart).invariant == ANIC_INVARIANT_I3);
  CHECK(ANIC_MODE_FAILSAFE(guarded.mode(kAcme)) == ANIC_FAILSAFE_REJECTIONS);
  CHECK(guarded.mode(kGlobex) == 0);
}

TEST_CASE("guardian: what BPF programs alone write, nobody else does") {
  const Guarded guarded;
  std::vector<std::byte> value(1 << 20);
  const std::uint64_t key = 0;
  for (const char* name : kFrozen) {
    CAPTURE(name);
    const int fd = guarded.instance().maps().fd(name);
    CHECK(failed_with(bpf_map_update_elem(fd, &key, value.data(), BPF_ANY), EPERM));
    CHECK(failed_with(bpf_map_delete_elem(fd, &key), EPERM));
  }
}

TEST_CASE("guardian: who holds a session and no privileges can propose, and nothing else") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything_of(1), kStart);
  std::vector<int> maps = {session.page_fd()};
  for (const char* name : kFrozen) maps.push_back(guarded.instance().maps().fd(name));
  const std::uint32_t map_id = kern::map_id(guarded.instance().maps().fd("anic_lanes"));
  const std::uint32_t prog_id = id_of_program(guarded.instance().object().commit().commit_fd);
  REQUIRE(map_id != 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) ::_exit(unprivileged(session, maps, map_id, prog_id));
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_RPC).weight == 150);
  CHECK(session.row().heard_ns == kStart);
}
