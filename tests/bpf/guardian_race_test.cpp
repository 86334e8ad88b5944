// SPDX-License-Identifier: Apache-2.0
//
// Proposers beside each other, beside operators and the tick, in real time; and those that are not run.

#include <bpf/bpf.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <map>
#include <string_view>
#include <thread>
#include <vector>

#include "base/clock.hpp"
#include "guarded.hpp"
#include "kern/order.hpp"
#include "policy/model.hpp"

using namespace agentnic;

namespace {

constexpr std::uint64_t kRaceNs = 1'500 * kMs;

/// Programs that are loaded when they are first wanted would be so while others go on.
void load_orders(const Guarded& guarded) {
  for (const char* program : {"anic_commit", "anic_failsafe", "anic_close", "anic_end"})
    (void)guarded.instance().operator_fd(program);
}

/// Rates of change and so on that are no obstacle to as many proposals as can be made.
std::string free_policy(const std::string& name) {
  return guarded_policy(R"("heartbeat": "60s", "changes": {"tenant": 10000000, "total": 10000000},
      "oscillation": {"window": "1us"}, "rejections": 1000000)",
                        "", name);
}

/// Proposes without a pause, and counts its answers. No assertion is made here: they are of one thread alone.
class Proposer final {
 public:
  /// `floods`: asks for what is always rejected, each time for something else.
  Proposer(const TestSession& session, std::uint8_t tenant, bool floods = false)
      : session_(session), tenant_(tenant), floods_(floods) {}

  /// Fills a batch and drains it; false: the session is over.
  bool run_once() {
    for (int i = 0; i < ANIC_DRAIN_MAX / 2; ++i) {
      anic_proposal proposal = weight(tenant_, ANIC_CLASS_RPC, 100 + ++written_ % 100);
      proposal.size = sizeof(proposal);
      if (floods_) proposal.value = written_;
      if (floods_ || written_ % 16 == 0) proposal.cls = ANIC_CLASS_CONTROL;
      if (!session_.write(&proposal, sizeof(proposal))) break;
    }
    const anic_draining draining = draining_at(monotonic_ns());
    LIBBPF_OPTS(bpf_test_run_opts, options);
    options.ctx_in = &draining;
    options.ctx_size_in = sizeof(draining);
    if (bpf_prog_test_run_opts(session_.drain_fd(), &options) != 0) return false;
    const auto code = static_cast<int>(options.retval);
    if (code == -ESTALE) return false;
    if (code > 0) answered += static_cast<std::uint64_t>(code);
    if (code == -EBUSY) ++busy;
    return true;
  }

  void run() {
    while (run_once()) continue;
    over = true;
  }

  std::uint64_t answered = 0;
  std::uint64_t busy = 0;
  std::atomic<bool> over = false;

 private:
  const TestSession& session_;
  std::uint8_t tenant_;
  bool floods_;
  std::uint64_t written_ = 0;
};

/// What the records say was decided, by session; and how much was lost.
struct Decided {
  std::map<std::uint64_t, std::uint64_t> by_session;
  std::uint64_t lost = 0;
  std::uint64_t commits = 0;

  void add(const std::vector<anic_record>& records) {
    for (const anic_record& record : records) {
      if (record.kind == ANIC_RECORD_DECISION) by_session[record.session] += record.count;
      if (record.kind == ANIC_RECORD_COMMIT && record.tenant == 0) ++commits;
      if (record.kind != ANIC_RECORD_LOST) continue;
      anic_lost some{};
      std::memcpy(&some, record.reason, sizeof(some));
      lost += some.by_kind[ANIC_RECORD_DECISION];
    }
  }
};

/// An order, again while a proposer has the lock; the longest that one had to wait.
int order_soon(const Guarded& guarded, const char* program, anic_order arguments, std::uint64_t& longest_ns) {
  const std::uint64_t begun = monotonic_ns();
  for (;;) {
    arguments.now_ns = monotonic_ns();
    const int code = order(guarded.instance(), program, arguments);
    longest_ns = std::max(longest_ns, monotonic_ns() - begun);
    if (code != -EBUSY || monotonic_ns() - begun > kSecond) return code;
  }
}

std::uint64_t thread_ns() {
  timespec time{};
  REQUIRE(::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) == 0);
  return static_cast<std::uint64_t>(time.tv_sec) * kSecond + static_cast<std::uint64_t>(time.tv_nsec);
}

anic_order failsafe_order(anic_order_kind kind, std::uint32_t tenant) {
  anic_order made{};
  made.what = std::uint64_t{tenant} << 32U | kind;
  return made;
}

void pin_to(unsigned cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  ::sched_setaffinity(0, sizeof(set), &set);
}

/// A process that runs `work` for ever on the last CPU with this scheduling policy, and is killed at the end.
class Process final {
 public:
  template <typename Work>
  Process(int policy, Work work) : pid_(::fork()) {
    REQUIRE(pid_ >= 0);
    if (pid_ != 0) return;
    pin_to(static_cast<unsigned>(::sysconf(_SC_NPROCESSORS_ONLN)) - 1);
    const sched_param none{};
    if (::sched_setscheduler(0, policy, &none) != 0) ::_exit(1);
    for (;;) work();
  }
  ~Process() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  /// True once it is stopped.
  [[nodiscard]] bool stop() const {
    int status = 0;
    return ::kill(pid_, SIGSTOP) == 0 && ::waitpid(pid_, &status, WUNTRACED) == pid_ && WIFSTOPPED(status);
  }
  void go_on() const { ::kill(pid_, SIGCONT); }

 private:
  pid_t pid_;
};

/// Waits until a proposer that was just started has got somewhere: a busy machine takes its time.
void await_answers(const TestSession& session) {
  constexpr std::uint64_t kPatienceNs = 30 * kSecond;
  const std::uint64_t begun = monotonic_ns();
  while (session.row().answered == 0) {
    REQUIRE(monotonic_ns() - begun < kPatienceNs);
    ::usleep(1000);
  }
}

}  // namespace

TEST_CASE("guardian: two proposers at once, beside updates, orders, ticks and the end: all is recorded") {
  Guarded guarded(free_policy("first"));
  load_orders(guarded);
  const std::uint64_t begun = monotonic_ns();
  const TestSession acme(guarded.instance(), everything_of(1), begun);
  const TestSession globex(guarded.instance(), everything_of(2), begun);
  Proposer proposers[] = {{acme, kAcme}, {globex, kGlobex}};
  std::array<std::thread, 2> threads = {std::thread([&] { proposers[0].run(); }),
                                        std::thread([&] { proposers[1].run(); })};
  Decided decided;
  std::uint64_t longest_ns = 0;
  std::uint64_t installed = 0;
  int refused = 0;
  while (monotonic_ns() - begun < kRaceNs) {
    guarded.install(free_policy(++installed % 2 == 0 ? "first" : "second"), monotonic_ns());
    for (const std::uint32_t tenant : {std::uint32_t{kAcme}, 0U}) {
      refused += order_soon(guarded, "failsafe", failsafe_order(ANIC_ORDER_ENTER, tenant), longest_ns) != 0;
      (void)guarded.instance().try_tick(monotonic_ns());
      refused += order_soon(guarded, "failsafe", failsafe_order(ANIC_ORDER_EXIT, tenant), longest_ns) != 0;
      decided.add(guarded.take());
    }
  }
  for (int i = 0; i < 100; ++i) {  // room for what is still to be said
    decided.add(guarded.take());
    (void)guarded.instance().try_tick(monotonic_ns());
  }
  refused += order_soon(guarded, "end", anic_order{}, longest_ns) != 0;
  for (std::thread& thread : threads) thread.join();
  decided.add(guarded.take());

  CHECK(refused == 0);
  CHECK(longest_ns < kSecond);
  CHECK(decided.commits == installed + 1);  // and the first
  CHECK(proposers[0].over);
  CHECK(proposers[1].over);
  CHECK(proposers[0].answered > 0);
  CHECK(proposers[1].answered > 0);
  const std::uint64_t recorded = decided.by_session[acme.id()] + decided.by_session[globex.id()];
  CHECK(recorded + decided.lost == proposers[0].answered + proposers[1].answered);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_RPC).weight == 100);
  CHECK(guarded.tuned(kGlobex, ANIC_CLASS_RPC).weight == 100);
  CHECK(guarded.only<anic_guard>("anic_guard").lock == 0);
}

TEST_CASE("guardian: a flood of rejections that nobody reads leaves an operator the room that is his") {
  constexpr int kOrders = 300;
  Guarded guarded(free_policy("first"));
  load_orders(guarded);
  const TestSession session(guarded.instance(), everything_of(1), monotonic_ns());
  Proposer flooder(session, kAcme, true);
  std::thread thread([&] { flooder.run(); });
  await_answers(session);
  std::uint64_t longest_ns = 0;
  int refused = 0;
  for (int i = 0; i < kOrders; ++i) {
    refused += order_soon(guarded, "failsafe", failsafe_order(ANIC_ORDER_ENTER, kGlobex), longest_ns) != 0;
    refused += order_soon(guarded, "failsafe", failsafe_order(ANIC_ORDER_EXIT, kGlobex), longest_ns) != 0;
  }
  anic_order closing{};
  closing.session = session.id();
  refused += order_soon(guarded, "close", closing, longest_ns) != 0;
  thread.join();
  const auto records = guarded.take();
  CHECK(refused == 0);
  CHECK(of_kind(records, ANIC_RECORD_FAILSAFE).size() == 2 * kOrders);
  CHECK(of_kind(records, ANIC_RECORD_CLOSE).size() == 1);
  Decided decided;
  decided.add(records);
  (void)guarded.instance().try_tick(monotonic_ns());
  decided.add(guarded.take());
  CHECK(decided.by_session[session.id()] + decided.lost == flooder.answered);
  CHECK(flooder.answered > 0);
}

TEST_CASE("guardian: a proposer that is stopped, wherever that is, never has the lock") {
  constexpr int kStops = 200;
  Guarded guarded(free_policy("first"));
  load_orders(guarded);
  const TestSession session(guarded.instance(), everything_of(1), monotonic_ns());
  Proposer proposer(session, kAcme);
  const Process process(SCHED_OTHER, [&] { (void)proposer.run_once(); });
  await_answers(session);
  for (int i = 0; i < kStops; ++i) {
    ::usleep(static_cast<useconds_t>(100 + i * 37 % 400));
    REQUIRE(process.stop());
    CHECK(guarded.failsafe(ANIC_ORDER_ENTER, kGlobex, monotonic_ns()) == 0);  // at the first try
    CHECK(guarded.failsafe(ANIC_ORDER_EXIT, kGlobex, monotonic_ns()) == 0);
    CHECK(guarded.instance().try_tick(monotonic_ns()) == 0);
    (void)guarded.take();
    process.go_on();
  }
}

TEST_CASE("guardian: while nobody gives the lock back, the tick goes on sharing rates") {
  constexpr std::uint64_t kPatienceNs = 30 * kSecond;
  Guarded guarded(free_policy("first"));
  const TestSession session(guarded.instance(), everything_of(1), monotonic_ns());
  const auto rounds = [&] { return guarded.only<anic_sharing>("anic_sharing").rounds; };
  const auto until = [&](auto is_true) {
    for (const std::uint64_t begun = monotonic_ns(); !is_true(); ::usleep(1000))
      REQUIRE(monotonic_ns() - begun < kPatienceNs);
  };
  REQUIRE(guarded.instance().object().start());
  REQUIRE(session.lock(monotonic_ns(), true) == 0);
  until([&] { return guarded.mode(0) == (ANIC_FAILSAFE_STUCK | ANIC_MODE_ALARM); });
  const std::uint64_t before = rounds();
  until([&] { return rounds() >= before + 3; });  // by what is in force now
  REQUIRE(session.lock(monotonic_ns(), false) == 0);
  until([&] { return !of_kind(guarded.take(), ANIC_RECORD_FAILSAFE).empty(); });
}

TEST_CASE("guardian: orders are of the time at which they are obeyed, whatever they say") {
  Guarded guarded(free_policy("first"));
  (void)guarded.take();
  const std::uint64_t begun = monotonic_ns();
  for (const auto& [name, fd] : guarded.instance().object().pinned_programs()) {
    if (name != std::string_view("failsafe")) continue;
    anic_order order = failsafe_order(ANIC_ORDER_ENTER, 0);
    order.now_ns = 4711;
    REQUIRE(kern::run_order(fd, order, "order fail-safe").value_or(-1) == 0);
  }
  const auto records = guarded.take();
  REQUIRE(records.size() == 1);
  CHECK(records[0].time_ns >= begun);
  CHECK(records[0].time_ns <= monotonic_ns());
}

TEST_CASE("guardian: a proposer that a busy CPU hardly ever runs delays nobody") {
  constexpr int kOrders = 300;
  Guarded guarded(free_policy("first"));
  load_orders(guarded);
  const TestSession session(guarded.instance(), everything_of(1), monotonic_ns());
  Proposer proposer(session, kAcme);
  const Process idle(SCHED_IDLE, [&] { (void)proposer.run_once(); });
  await_answers(session);
  const Process hog(SCHED_OTHER, [] { (void)monotonic_ns(); });
  std::uint64_t longest_ns = 0;
  std::uint64_t worked_ns = 0;  // of this thread: what others take from it is not the lock's
  for (int i = 0; i < kOrders; ++i) {
    for (const anic_order_kind kind : {ANIC_ORDER_ENTER, ANIC_ORDER_EXIT}) {
      const std::uint64_t begun = thread_ns();
      REQUIRE(order_soon(guarded, "failsafe", failsafe_order(kind, kGlobex), longest_ns) == 0);
      worked_ns = std::max(worked_ns, thread_ns() - begun);
    }
    (void)guarded.take();
    ::usleep(1000);
  }
  CHECK(worked_ns < policy::kDefaultEnvelope.tick_ns);
  CHECK(longest_ns < ANIC_LOCK_STUCK_NS);
  CHECK(guarded.mode(0) == 0);  // it was never taken for stuck
}
