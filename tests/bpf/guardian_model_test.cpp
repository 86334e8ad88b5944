// SPDX-License-Identifier: Apache-2.0
//
// The guardian against its reference model: random policies, sessions, proposals, orders and times. After
// each step what maps hold must be what the model says, and so must each answer and each record, whose MACs
// are checked too.

#include <bpf/bpf.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <catch2/catch_test_macros.hpp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "../model/guardian.hpp"
#include "../model/guardian_random.hpp"
#include "audit/chain.hpp"
#include "audit/sentence.hpp"
#include "base/clock.hpp"
#include "instance.hpp"
#include "kern/generation.hpp"
#include "policy/validate.hpp"
#include "session.hpp"

using namespace agentnic;

namespace {

constexpr std::uint64_t kStart = 1'000'000'000'000;
constexpr std::uint32_t kTenants = 16;  ///< ids that are compared to the last detail: no policy has more
constexpr std::size_t kSeldom = 16;     ///< steps between two looks at what is large
constexpr int kAgents = 3;
constexpr std::size_t kLog = 40;  ///< steps that a failure shows

std::uint32_t seed() {
  const char* given = std::getenv("AGENTNIC_SEED");
  return given != nullptr ? static_cast<std::uint32_t>(std::strtoul(given, nullptr, 0))
                          : std::random_device()();
}

/// One line for each word that differs.
template <typename T>
std::string differences(const T& expected, const T& found) {
  static_assert(sizeof(T) % sizeof(std::uint32_t) == 0);
  std::array<std::uint32_t, sizeof(T) / sizeof(std::uint32_t)> a{};
  std::array<std::uint32_t, sizeof(T) / sizeof(std::uint32_t)> b{};
  std::memcpy(a.data(), &expected, sizeof(T));
  std::memcpy(b.data(), &found, sizeof(T));
  std::string text;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a.at(i) != b.at(i))
      text += fmt::format("\n  at byte {}: expected {:#x}, found {:#x}", i * 4, a.at(i), b.at(i));
  }
  return text;
}

std::string text(const anic_record& record) {
  const auto number = [](std::uint32_t id) { return fmt::format("#{}", id); };
  return audit::sentence(record, {.tenant = number, .service = number, .agent = number});
}

/// A session with an agent that may be dead: nobody runs its drain any more.
struct Agent {
  std::unique_ptr<TestSession> session;
  std::deque<model::Sample> ring = {};
  bool dead = false;
};

/// An instance and its model, in step.
class Pair {
 public:
  explicit Pair(std::uint32_t seed) : random_(seed), records_(instance_), started_ns_(wall_ns()) {
    anic_chain chain{};
    REQUIRE(instance_.maps().read("anic_chain", 0, chain));
    chain_.key = {.low = chain.key[0], .high = chain.key[1]};
    commit();
    for (int i = 0; i < kAgents; ++i) add_agent();
  }

  void step(std::size_t number) {
    ++steps_;
    if (number % 1000 == 600) return fill_ring();
    if (number % 1000 == 700) return fill_reserve();
    if (number % 1000 == 800) return take(~0ULL);
    if (number % 200 == 199) return commit();
    const std::uint64_t which = random_.below(100);
    if (which < 40) return propose();
    if (which < 65) return tick();
    if (which < 72) return answer_turns();
    if (which < 80) return order_failsafe();
    if (which < 87) return open();
    if (which < 89) return close();
    if (which < 90) any_agent().dead = true;
    if (which < 91) return refuse_commits();
    if (which < 92) return find_lock_held();
    if (which < 94) return drain_dead();
    if (which < 96) return note_read();
    if (number % 1000 < 600) take(random_.below(200));
  }

  void compare() {
    const model::GuardianState& state = model_.state();
    compare_word();
    anic_modes modes{};
    std::ranges::copy(state.modes, modes.words);
    same("anic_modes", 0, modes, read<anic_modes>("anic_modes", 0));
    compare_rows("anic_wards", 0, kTenants, state.wards);
    compare_rows("anic_actions", 0, kTenants * ANIC_ACTIONS_MAX, state.actions);
    const std::uint32_t slot = state.generation % ANIC_SLOTS;
    const std::uint32_t tuned = (slot * ANIC_PROFILE__MAX + ANIC_PROFILE_TUNED) * ANIC_LANES_MAX;
    compare_rows("anic_lanes", tuned, kTenants * ANIC_CLASS__MAX, state.tuned);
    compare_sessions();
    compare_guard();
    compare_chain();
    if (steps_ % kSeldom == 0) {
      compare_dumps();
      compare_steering();
    }
    if (!differences_.empty()) FAIL(differences_);
  }

  /// Detaching is the last record, and nothing follows it.
  void finish() {
    take(~0ULL);
    now_ns_ += 1;
    tick();
    take(~0ULL);
    anic_order order = order_at(now_ns_);
    order.wall_ns = wall_ns();
    CHECK(agentnic::order(instance_, "end", order) == 0);
    model_.end(now_ns_);
    order_failsafe();
    propose();
    take(~0ULL);
    compare();
  }

  /// That everything came up; in a short run, much of it.
  void check_coverage(bool long_run) const {
    constexpr std::size_t kMuch = 10;
    CHECK(saw_invariants_.size() >= kMuch);
    CHECK(saw_records_.contains(ANIC_RECORD_DETACH));
    if (!long_run) return;
    for (const int invariant :
         {ANIC_INVARIANT_FORM, ANIC_INVARIANT_C1, ANIC_INVARIANT_C2, ANIC_INVARIANT_I1, ANIC_INVARIANT_I2,
          ANIC_INVARIANT_I3, ANIC_INVARIANT_R1, ANIC_INVARIANT_R2, ANIC_INVARIANT_R3, ANIC_INVARIANT_R4,
          ANIC_INVARIANT_R5, ANIC_INVARIANT_R6, ANIC_INVARIANT_A1, ANIC_INVARIANT_L1, ANIC_INVARIANT_L2,
          ANIC_INVARIANT_L3, ANIC_INVARIANT_L4}) {
      INFO("invariant " << invariant);
      CHECK(saw_invariants_.contains(invariant));
    }
    for (int kind = ANIC_RECORD_ATTACH; kind < ANIC_RECORD__MAX; ++kind) {
      INFO("kind of record " << kind);
      CHECK(saw_records_.contains(kind));
    }
    for (int failsafe = ANIC_FAILSAFE_HEARTBEAT; failsafe < ANIC_FAILSAFE_STUCK; ++failsafe) {
      INFO("fail-safe " << failsafe);
      CHECK(saw_failsafes_.contains(failsafe));
    }
    CHECK(saw_rolled_back_);
  }

  [[nodiscard]] std::string log() const {
    std::string lines;
    for (const std::string& line : log_) lines += line + "\n";
    return lines;
  }

 private:
  // --- what happens ---

  template <typename... Args>
  void note(fmt::format_string<Args...> format, Args&&... args) {
    log_.push_back(
        fmt::format("{} {}: {}", steps_, now_ns_ - kStart, fmt::format(format, std::forward<Args>(args)...)));
    if (log_.size() > kLog) log_.pop_front();
  }

  void commit() {
    const policy::Policy policy = random_.policy();
    REQUIRE_NOTHROW(policy::validate(policy));
    policy::Tables tables;
    note("commit");
    instance_.install(
        policy,
        [&](policy::Tables& edited) {
          random_.unspread(edited);
          tables = edited;
        },
        now_ns_);
    REQUIRE(model_.commit(tables, now_ns_) == 0);
  }

  /// Another generation than the one in force, and more than the link carries.
  void refuse_commits() {
    anic_order order = order_at(now_ns_);
    order.what = model_.state().generation + 1;
    CHECK(agentnic::order(instance_, "commit", order) == -ESTALE);
    policy::Tables tables = model_.tables();
    const std::uint64_t link = tables.lanes[0].ceiling_bps;
    tables.lanes[policy::lane_index(ANIC_PROFILE_POLICY, 1, ANIC_CLASS_NONE)].rate_bps = link + 1;
    note("commit of too much");
    CHECK_FALSE(kern::install(instance_.maps(), instance_.commit(), tables, now_ns_));
    CHECK(model_.commit(tables, now_ns_) == -ERANGE);
  }

  /// With a session of one tenant, which may ask for nothing, to begin with.
  void add_agent() {
    anic_order order = order_at(now_ns_);
    order.tenants = std::uint64_t{1} << agents_.size();
    const int slot = model_.open(order);
    REQUIRE(agentnic::order(instance_, "open", order) == slot);
    agents_.push_back(
        {.session = std::make_unique<TestSession>(instance_, static_cast<std::uint32_t>(slot))});
  }

  void open() {
    anic_order order = random_.opening(model_);
    order.now_ns = now_ns_;
    const int slot = agentnic::order(instance_, "open", order);
    note("open {:#x} by {}: {}", order.tenants, order.paths_agent >> 32U, slot);
    REQUIRE(slot == model_.open(order));
    const auto idle =
        std::ranges::find_if(agents_, [&](const Agent& agent) { return is_over(*agent.session); });
    if (slot < 0 || idle == agents_.end() || random_.one_in(16)) return;  // it is never heard of
    idle->session->become(static_cast<std::uint32_t>(slot));
    idle->dead = false;
  }

  void close() {
    const auto& sessions = model_.state().sessions;
    anic_order order = order_at(now_ns_);
    order.session = random_.one_in(5) ? random_.below(3) : sessions.at(random_.below(4)).id;
    note("close {}", order.session);
    REQUIRE(agentnic::order(instance_, "close", order) == model_.close(order));
  }

  Agent& any_agent() { return agents_[random_.below(agents_.size())]; }

  void propose() {
    Agent& agent = any_agent();
    if (agent.dead) return;
    for (std::uint64_t count = random_.one_in(20) ? 80 : random_.below(6); count > 0; --count)
      write(agent, random_.sample(model_, random_.below(1'000'000)));
    drain(agent);
  }

  static void write(Agent& agent, const model::Sample& sample) {
    if (agent.session->write(sample.data(), sample.size())) agent.ring.push_back(sample);
  }

  void drain(Agent& agent) {
    const TestSession& session = *agent.session;
    std::vector<anic_answer> expected;
    const int code = model_.drain(session.slot(), session.id(), agent.ring, now_ns_, expected);
    note("drain {}: {}", session.id(), code);
    REQUIRE(session.drain(now_ns_) == code);
    if (code < 0) return;
    const std::uint64_t answered = model_.state().sessions.at(session.slot()).answered;
    if (!expected.empty()) REQUIRE(session.page().answered == answered);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const std::uint64_t number = answered - expected.size() + i;
      const std::string differing = differences(expected[i], session.page().answers[number % ANIC_DRAIN_MAX]);
      if (!differing.empty()) FAIL("answer " << number << differing);
      saw_invariants_.insert(expected[i].invariant);
      saw_rolled_back_ = saw_rolled_back_ || expected[i].invariant == ANIC_INVARIANT_L3;
    }
  }

  /// Sessions that are over are void.
  void drain_dead() {
    for (Agent& agent : agents_) {
      if (is_over(*agent.session)) drain(agent);
    }
  }

  [[nodiscard]] bool is_over(const TestSession& session) const {
    return model_.state().sessions.at(session.slot()).id != session.id();
  }

  /// Agents are mostly heard of just before.
  void tick() {
    now_ns_ = random_.later(model_, now_ns_);
    for (Agent& agent : agents_) {
      if (!agent.dead && !random_.one_in(20)) drain(agent);
    }
    tick_now();
  }

  void tick_now() {
    note("tick");
    const model::Wanted wanted = this->wanted();
    instance_.tick(now_ns_);
    model_.tick(now_ns_, wanted);
  }

  /// Sharing out finds it anew, which is a model of its own: here it is read.
  [[nodiscard]] model::Wanted wanted() const {
    model::Wanted wanted{};
    for (std::uint32_t tenant = 0; tenant < kTenants; ++tenant) {
      for (std::uint32_t way = 0; way < ANIC_DIRECTION__MAX; ++way) {
        anic_bucket bucket{};
        const std::uint32_t lane = ANIC_LANE(tenant, ANIC_CLASS_BULK);
        REQUIRE(instance_.maps().read("anic_buckets", way * ANIC_LANES_MAX + lane, bucket));
        wanted.at(tenant) = std::max<std::uint64_t>(wanted.at(tenant), bucket.wanted_bps);
      }
    }
    return wanted;
  }

  /// Answers of some lanes, as many too late as it takes or one more; and what bulk asked for.
  void answer_turns() {
    const anic_envelope& envelope = model_.envelope();
    for (std::uint64_t i = random_.below(4); i > 0; --i) {
      const std::uint32_t tenant = random_.tenant(model_);
      const std::uint64_t cls = ANIC_CLASS_DEFAULT + random_.below(4);
      const std::uint64_t samples = envelope.slo_samples + random_.below(3) - 1;
      const std::uint64_t over = samples * envelope.slo_percent / 100 + random_.below(3);
      const auto bps = [&] { return random_.one_in(3) ? 0 : random_.below(4'000'000'000); };
      const std::uint64_t in = bps();
      const anic_test_turn turn{.lane = ANIC_LANE(tenant, cls),
                                .samples = samples,
                                .over_slo = std::min(samples, over),
                                .wanted_bps_in = in,
                                .wanted_bps_out = bps(),
                                .bucket = 0};
      note("lane {}: {} of {} too late", turn.lane, turn.over_slo, turn.samples);
      instance_.count_turns(turn);
      model_.count_turns(static_cast<std::uint32_t>(turn.lane), turn.samples, turn.over_slo);
    }
    now_ns_ = std::max<std::uint64_t>(now_ns_, model_.state().guard.slo_ns + envelope.slo_interval_ns);
    for (Agent& agent : agents_) {
      if (!agent.dead) drain(agent);
    }
    tick_now();
  }

  void order_failsafe() {
    const std::uint64_t tenant =
        random_.one_in(3) ? random_.below(random_.one_in(8) ? 80 : 2) : random_.tenant(model_);
    std::uint64_t kind = random_.one_in(20) ? random_.below(9) : ANIC_ORDER_EXIT + random_.below(2);
    if (random_.one_in(4)) kind = ANIC_ORDER_ENTER;
    if (ANIC_MODE_FAILSAFE(model_.state().modes[0]) != 0 && random_.one_in(2)) {
      order_failsafe(0, ANIC_ORDER_EXIT);
    } else {
      order_failsafe(tenant, kind);
    }
  }

  void order_failsafe(std::uint64_t tenant, std::uint64_t kind) {
    anic_order order = order_at(now_ns_);
    order.what = tenant << 32U | kind;
    std::ranges::copy(std::string_view("ordered"), order.reason);
    note("order {:#x}", order.what);
    REQUIRE(agentnic::order(instance_, "failsafe", order) == model_.failsafe(order));
  }

  /// Mostly of a tenant that there is.
  void note_read() {
    anic_order order = order_at(now_ns_);
    const std::uint64_t kind =
        random_.one_in(8) ? random_.below(ANIC_RECORD__MAX + 1) : ANIC_RECORD_READ + random_.below(2);
    const std::uint64_t tenant = random_.one_in(4) ? random_.below(70) : random_.tenant(model_);
    order.what = tenant << 32U | kind;
    order.session = random_.below(70'000);
    order.wall_ns = random_.below(1'000'000);
    std::ranges::copy(std::string_view("to see it"), order.reason);
    const int code = agentnic::order(instance_, "note", order);
    note("note {:#x}: {}", order.what, code);
    REQUIRE(code == model_.note(order));
  }

  /// Nobody waits for the lock, and nothing is changed.
  void find_lock_held() {
    const TestSession& session = *any_agent().session;
    note("lock");
    REQUIRE(session.lock(now_ns_, true) == 0);
    CHECK(session.drain(now_ns_) == (is_over(session) ? -ESTALE : -EBUSY));
    for (const char* program : {"open", "close", "failsafe", "commit", "end"})
      CHECK(agentnic::order(instance_, program, order_at(now_ns_)) == -EBUSY);
    anic_order note = order_at(now_ns_);
    note.what = ANIC_RECORD_READ;
    CHECK(agentnic::order(instance_, "note", note) == -EBUSY);
    REQUIRE(session.lock(now_ns_, false) == 0);
    // Drains leave it to those who wanted it, until one of them has had it.
    CHECK(session.drain(now_ns_) == (is_over(session) ? -ESTALE : -EBUSY));
    CHECK(agentnic::order(instance_, "failsafe", order_at(now_ns_)) == model_.failsafe(order_at(now_ns_)));
  }

  // --- records ---

  /// Nobody reads, and an agent's rejections take what they may.
  void fill_ring() {
    note("an agent fills the ring");
    for (std::uint64_t i = 0; i < 200 && model_.ring().may_add(1); ++i) {
      Agent& agent = any_agent();
      for (std::uint64_t value = 0; value < ANIC_DRAIN_MAX; ++value) {
        anic_proposal malformed{};
        malformed.value = value;
        model::Sample sample(sizeof(malformed));
        std::memcpy(sample.data(), &malformed, sizeof(malformed));
        write(agent, sample);
      }
      drain(agent);
    }
  }

  /// Then the operator takes the rest, and more, until records are lost. All are out of fail-safe again.
  void fill_reserve() {
    note("the operator fills the ring");
    const std::uint64_t enough = model_.ring().chain().lost_total + 1 + random_.below(20);
    while (model_.ring().chain().lost_total < enough) order_failsafe();
    for (std::uint64_t tenant = 0; tenant < kTenants; ++tenant) order_failsafe(tenant, ANIC_ORDER_EXIT);
  }

  void take(std::uint64_t most) {
    std::vector<anic_record> found = records_.take(most);
    const std::vector<anic_record> expected = model_.take(most);
    note("take {}: {}", most, expected.size());
    REQUIRE(found.size() == expected.size());
    const auto bad = audit::first_bad(chain_, found);
    REQUIRE_FALSE(bad.has_value());
    for (std::size_t i = 0; i < found.size(); ++i) compare_record(expected[i], found[i]);
  }

  void compare_record(anic_record expected, anic_record found) {
    if (has_kernel_time(found)) {
      CHECK((found.time_ns >= started_monotonic_ns_ && found.time_ns <= monotonic_ns()));
      expected.time_ns = found.time_ns;
    }
    if (has_wall_clock(found)) {
      CHECK((found.requested >= started_ns_ && found.requested <= wall_ns()));
      expected.requested = found.requested;
    }
    std::ranges::fill(found.mac, 0);
    const std::string differing = differences(expected, found);
    if (!differing.empty())
      FAIL("record " << differing << "\nexpected " << text(expected) << "\nfound    " << text(found));
    saw_records_.insert(found.kind);
    saw_invariants_.insert(found.invariant);
    for (int invariant = 0; invariant < ANIC_INVARIANT__MAX; ++invariant) {
      if ((found.rewritten >> invariant & 1U) != 0) saw_invariants_.insert(invariant);
    }
    if (found.kind == ANIC_RECORD_FAILSAFE) saw_failsafes_.insert(found.failsafe);
  }

  /// The model knows no wall clock.
  static bool has_wall_clock(const anic_record& record) {
    return record.kind == ANIC_RECORD_ATTACH || record.kind == ANIC_RECORD_COMMIT ||
           record.kind == ANIC_RECORD_DETACH;
  }

  /// Whoever has this program does not say what time it is.
  static bool has_kernel_time(const anic_record& record) {
    return record.kind == ANIC_RECORD_READ || record.kind == ANIC_RECORD_EXPORT;
  }

  // --- what stands in maps ---

  template <typename T>
  T read(const char* map, std::uint32_t index) const {
    T value{};
    REQUIRE(instance_.maps().read(map, index, value));
    return value;
  }

  template <typename T>
  void same(const char* what, std::uint32_t number, const T& expected, const T& found) {
    if (std::memcmp(&expected, &found, sizeof(T)) == 0) return;
    differences_ += fmt::format("{} {}{}\n", what, number, differences(expected, found));
  }

  /// So many rows from `first` on, at once: there are many.
  template <typename T>
  std::vector<T> read_rows(const char* map, std::uint32_t first, std::uint32_t count) const {
    std::vector<T> rows(count);
    std::vector<std::uint32_t> indices(count);
    std::uint32_t before = first - 1;
    std::uint32_t last = 0;
    std::uint32_t found = count;
    LIBBPF_OPTS(bpf_map_batch_opts, batch);
    REQUIRE(bpf_map_lookup_batch(instance_.maps().fd(map), first == 0 ? nullptr : &before, &last,
                                 indices.data(), rows.data(), &found, &batch) == 0);
    REQUIRE(found == count);
    return rows;
  }

  template <typename T, std::size_t N>
  void compare_rows(const char* map, std::uint32_t first, std::uint32_t count,
                    const std::array<T, N>& expected) {
    const std::vector<T> found = read_rows<T>(map, first, count);
    for (std::uint32_t i = 0; i < count; ++i) same(map, i, expected.at(i), found[i]);
  }

  void compare_word() const {
    const std::uint64_t word = read<anic_state>("anic_state", 0).word;
    REQUIRE(static_cast<std::uint32_t>(word) == model_.state().generation);
    REQUIRE(((word >> 32U & ANIC_USES_ESCALATIONS) != 0) == !model_.state().escalated.empty());
    for (const auto& [key, cls] : model_.state().escalated) {
      const anic_escalation escalation{.tenant = key.first, .service = key.second};
      std::uint32_t found = 0;
      REQUIRE(bpf_map_lookup_elem(instance_.maps().fd("anic_escalated"), &escalation, &found) == 0);
      REQUIRE(found == cls);
    }
  }

  void compare_dumps() {
    const std::vector<anic_dump> found = read_rows<anic_dump>("anic_dumps", 0, kTenants);
    for (std::uint32_t tenant = 0; tenant < kTenants; ++tenant) {
      anic_dump dump = found[tenant];
      std::memset(dump.wanted_bps, 0, sizeof(dump.wanted_bps));
      same("anic_dumps", tenant, model_.state().dumps.at(tenant), dump);
    }
  }

  void compare_sessions() {
    // one by one: a batch of all ends with ENOENT
    for (std::uint32_t slot = 0; slot < ANIC_SESSIONS_MAX; ++slot) {
      anic_session expected = model_.state().sessions.at(slot);
      auto found = read<anic_session>("anic_sessions", slot);
      found.drained = 0;
      for (anic_session* session : {&expected, &found}) {
        if (session->pending == 0) session->rejection = {};
      }
      same("anic_sessions", slot, expected, found);
    }
  }

  void compare_guard() {
    auto found = read<anic_guard>("anic_guard", 0);
    REQUIRE(found.lock == 0);
    found.locked_ns = 0;
    same("anic_guard", 0, model_.state().guard, found);
  }

  void compare_chain() {
    auto found = read<anic_chain>("anic_chain", 0);
    std::ranges::fill(found.mac, 0);
    std::ranges::fill(found.key, 0);
    found.waiting_first = 0;
    same("anic_chain", 0, model_.ring().chain(), found);
  }

  void compare_steering() {
    const std::uint32_t count = kTenants * ANIC_CLASS__MAX;
    const std::vector<anic_steering> found = read_rows<anic_steering>("anic_steering", 0, count);
    for (std::uint32_t lane = 0; lane < count; ++lane) {
      same("anic_steering", lane, model_.state().steered.at(lane), found[lane].to);
      same("anic_steering (stated)", lane, model_.tables().spread[lane], found[lane].stated);
    }
  }

  model::GuardianRandom random_;
  Instance instance_;
  model::Guardian model_;
  Records records_;
  audit::Chain chain_;
  std::vector<Agent> agents_;
  std::uint64_t started_ns_;
  std::uint64_t started_monotonic_ns_ = monotonic_ns();
  std::uint64_t now_ns_ = kStart;
  std::size_t steps_ = 0;
  std::deque<std::string> log_;
  std::string differences_;  ///< of maps
  std::set<int> saw_invariants_;
  std::set<int> saw_records_;
  std::set<int> saw_failsafes_;
  bool saw_rolled_back_ = false;  ///< a proposal met what was rolled back
};

void compare_guardian(std::size_t steps, bool long_run) {
  const std::uint32_t start = seed();
  INFO("AGENTNIC_SEED=" << start);
  Pair pair(start);
  try {
    for (std::size_t i = 0; i < steps; ++i) {
      pair.step(i);
      pair.compare();
    }
    pair.finish();
  } catch (...) {  // Catch2's: something is not as it should be
    fmt::print(stderr, "{}", pair.log());
    throw;
  }
  pair.check_coverage(long_run);
}

}  // namespace

TEST_CASE("guardian model: answers, records and maps are what the model says, step by step") {
  compare_guardian(2'000, false);
}

TEST_CASE("guardian model: a hundred thousand steps", "[.soak]") { compare_guardian(100'000, true); }
