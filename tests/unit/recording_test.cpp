// SPDX-License-Identifier: Apache-2.0
//
// What agents did, written down, read back and done again.

#include <sys/mman.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "agent/recording.hpp"
#include "agent/replay.hpp"
#include "agent/wire.hpp"
#include "base/json.hpp"

using namespace agentnic;

namespace {

constexpr std::uint64_t kSession = 5;

agent::Names names() { return {.tenants = {{1, "acme"}, {2, "globex"}}, .services = {{1, "chat"}}}; }

agent::Hello hello() {
  agent::Hello told{.ifname = "eth1",
                    .agent = "tuner",
                    .session = kSession,
                    .interval_ns = 10,
                    .grants = {},
                    .spreads = {}};
  told.grants.kinds = 1U << ANIC_CHANGE_PATH_SWITCH | 1U << ANIC_CHANGE_QUOTA_BORROW;
  told.grants.classes = 1U << ANIC_CLASS_RPC;
  told.grants.paths = 1U << ANIC_PATH_KERNEL;
  told.spreads.push_back({.tenant = "acme", .cls = "rpc", .cpus = {2, 0}});
  return told;
}

agent::Observation observation(std::uint64_t tick) {
  agent::Observation seen;
  seen.tick = tick;
  seen.tenants.resize(1);
  seen.tenants[0].tenant = "acme";
  seen.tenants[0].failsafe = "heartbeat";
  seen.lanes.resize(1);
  seen.lanes[0].tenant = "acme";
  seen.lanes[0].cls = "rpc";
  seen.lanes[0].path = "kernel";
  seen.lanes[0].slo_ns = 7;
  return seen;
}

agent::Proposal proposal(std::uint8_t kind, std::uint64_t value, std::uint64_t id = 0) {
  agent::Proposal made{.change = {}, .id = id};
  made.change.kind = kind;
  made.change.tenant = 1;
  made.change.cls =
      kind == ANIC_CHANGE_QUEUE_WEIGHT_ADJUST || kind == ANIC_CHANGE_QUEUE_REBALANCE ? ANIC_CLASS_RPC : 0;
  made.change.service = kind == ANIC_CHANGE_FLOW_CLASS_ESCALATE ? 1 : 0;
  made.change.value = value;
  made.change.reason[0] = 'x';
  return made;
}

agent::Decision decision(const agent::Proposal& asked, std::uint8_t decided, std::uint8_t invariant) {
  agent::Decision made{.proposal = asked, .answer = {}};
  made.answer.decided = decided;
  made.answer.invariant = invariant;
  made.answer.observed = 1;
  made.answer.requested = asked.change.value;
  made.answer.approved = decided == ANIC_DECIDED_REJECT ? 1 : asked.change.value;
  made.answer.seq = 12;
  return made;
}

/// Asks, at each observation, what it is given; remembers what was decided.
class Script final : public agent::Controller {
 public:
  explicit Script(std::vector<std::vector<agent::Proposal>> asks,
                  std::vector<agent::Decision>* told = nullptr)
      : asks_(std::move(asks)), told_(told) {}

  Result<std::optional<std::vector<agent::Proposal>>> decide(const agent::Observation& /*seen*/) override {
    return asks_.at(number_++);
  }
  Status decided(const std::vector<agent::Decision>& decisions) override {
    if (told_ != nullptr) told_->insert(told_->end(), decisions.begin(), decisions.end());
    return {};
  }

 private:
  std::vector<std::vector<agent::Proposal>> asks_;
  std::vector<agent::Decision>* told_;
  std::size_t number_ = 0;
};

/// A file in memory, and another descriptor of it that reads from its beginning.
struct Tape {
  UniqueFd file{::memfd_create("tape", 0)};

  [[nodiscard]] UniqueFd writer() const { return UniqueFd(::dup(file.get())); }
  [[nodiscard]] UniqueFd reader() const {
    REQUIRE(::lseek(file.get(), 0, SEEK_SET) == 0);
    return UniqueFd(::dup(file.get()));
  }
};

/// Two observations, with two proposals for the first.
void record(const Tape& tape, const std::vector<agent::Proposal>& asked) {
  agent::Recorder recorder(std::make_unique<Script>(std::vector<std::vector<agent::Proposal>>{asked, {}}),
                           tape.writer(), {.controller = "static", .seed = 9}, hello(), names());
  REQUIRE(recorder.decide(observation(1)));
  std::vector<agent::Decision> decisions;
  for (const agent::Proposal& one : asked)
    decisions.push_back(decision(one, ANIC_DECIDED_APPROVE, ANIC_INVARIANT_NONE));
  REQUIRE(recorder.decided(decisions));
  REQUIRE(recorder.decide(observation(2)));
}

agent::Replayed replay(const Tape& tape, agent::Controller& controller) {
  auto recording = agent::Recording::begin(tape.reader());
  REQUIRE(recording);
  auto result = agent::replay(*recording, controller);
  REQUIRE(result);
  return *std::move(result);
}

std::string error_of(const std::vector<std::string>& lines) {
  agent::RecordingParser parser;
  for (const std::string& line : lines) {
    const auto step = parser.add(line.substr(0, line.find('\n')));
    if (!step) return step.error().text();
  }
  return "";
}

constexpr const char* kHead =
    R"({"type":"recording","schema":"agentnic.recording/1","controller":null,"seed":0})";

}  // namespace

TEST_CASE("recording: what an agent is told first is read back") {
  const std::string line = agent::hello_line(hello(), names());
  const auto told = agent::parse_hello(line);
  REQUIRE(told);
  CHECK(agent::hello_line(told->hello, told->names) == line);
  REQUIRE(told->hello.spreads.size() == 1);
  CHECK(told->hello.spreads[0].cpus == std::vector<std::uint64_t>{2, 0});
}

TEST_CASE("recording: a decision of each kind is read back") {
  for (std::uint8_t kind = 1; kind < ANIC_CHANGE__MAX; ++kind) {
    for (const std::uint8_t decided : {ANIC_DECIDED_APPROVE, ANIC_DECIDED_REWRITE, ANIC_DECIDED_REJECT}) {
      for (std::uint8_t invariant = 0; invariant < ANIC_INVARIANT__MAX; ++invariant) {
        agent::Decision made = decision(proposal(kind, 2, 4), decided, invariant);
        if (decided == ANIC_DECIDED_REWRITE)
          made.answer.rewritten = 1U << ANIC_INVARIANT_R1 | 1U << ANIC_INVARIANT_R6;
        if (kind == ANIC_CHANGE_QUEUE_REBALANCE) made.answer.observed = UINT32_MAX;  // no CPU
        if (decided == ANIC_DECIDED_REJECT) made.answer.approved = made.answer.observed;
        made.answer.until_ns = kind;
        made.answer.seq = invariant;
        const std::string line = agent::decision_line(made, 3, kSession, names());
        CAPTURE(line);
        const auto read = agent::parse_decision(line, made.proposal);
        REQUIRE(read);
        CHECK(agent::decision_line(*read, 3, kSession, names()) == line);
        CHECK(read->answer.decided == decided);
        CHECK(read->answer.until_ns == kind);
      }
    }
  }
}

TEST_CASE("recording: a replay asks the same, and is told what was decided") {
  const std::vector<agent::Proposal> asked = {proposal(ANIC_CHANGE_QUEUE_WEIGHT_ADJUST, 150, 1),
                                              proposal(ANIC_CHANGE_QUOTA_BORROW, 1000, 2)};
  const Tape tape;
  record(tape, asked);
  std::vector<agent::Decision> told;
  Script same({asked, {}}, &told);
  const agent::Replayed result = replay(tape, same);
  CHECK(result.observations == 2);
  CHECK(result.proposals == 2);
  CHECK(result.different == 0);
  CHECK_FALSE(result.first);
  CHECK_FALSE(result.cut);
  REQUIRE(told.size() == 2);
  CHECK(told[1].proposal.id == 2);
  CHECK(told[1].answer.approved == 1000);
}

TEST_CASE("recording: a replay that asks something else is told nothing, and where that was") {
  const std::vector<agent::Proposal> asked = {proposal(ANIC_CHANGE_QUEUE_WEIGHT_ADJUST, 150)};
  const Tape tape;
  record(tape, asked);
  std::vector<agent::Decision> told;
  Script another({{}, asked}, &told);
  const agent::Replayed result = replay(tape, another);
  CHECK(result.different == 2);
  REQUIRE(result.first);
  CHECK(result.first->line == 3);
  CHECK(result.first->tick == 1);
  CHECK(result.first->recorded == agent::answer_line(asked, 1, names()));
  CHECK(result.first->replayed == agent::answer_line({}, 1, names()));
  CHECK(told.empty());
}

TEST_CASE("recording: who decided is read back, and what was cut off is left out") {
  const Tape tape;
  record(tape, {proposal(ANIC_CHANGE_QUEUE_WEIGHT_ADJUST, 150)});
  auto recording = agent::Recording::begin(tape.reader());
  REQUIRE(recording);
  CHECK(recording->decider().controller == "static");
  CHECK(recording->decider().seed == 9);
  CHECK(recording->told().hello.session == kSession);
  const off_t size = ::lseek(tape.file.get(), 0, SEEK_END);
  REQUIRE(::ftruncate(tape.file.get(), size - 1) == 0);
  Script script(std::vector<std::vector<agent::Proposal>>(2));
  const agent::Replayed result = replay(tape, script);
  CHECK(result.observations == 1);
  CHECK(result.cut);
}

TEST_CASE("recording: without its last decisions the last answer is compared all the same") {
  const agent::Proposal asked = proposal(ANIC_CHANGE_QUEUE_WEIGHT_ADJUST, 150);
  agent::RecordingParser parser;
  REQUIRE(parser.add(kHead));
  REQUIRE(parser.add(agent::hello_line(hello(), names())));
  REQUIRE(parser.add(agent::observation_line(observation(4))));
  CHECK_FALSE(parser.rest());
  REQUIRE(parser.add(agent::observation_line(observation(4))));
  REQUIRE(parser.add(agent::answer_line({asked}, 4, names())));
  const auto step = parser.rest();
  REQUIRE(step);
  CHECK(step->proposals.size() == 1);
  CHECK(step->decisions.empty());
}

TEST_CASE("recording: one of before there were some keys is read, and what they say is not known") {
  Json json = Json::parse(agent::observation_line(observation(4)));
  for (const char* key : {"bulk_low_bps", "bulk_high_bps", "escalations", "rebalances", "duration_high_ns"})
    REQUIRE(json.at("tenants").at(0).erase(key) == 1);
  for (const char* key : {"age_ns", "over_slo_percent"}) REQUIRE(json.at("lanes").at(0).erase(key) == 1);
  const auto read = agent::parse_observation(json.dump());
  REQUIRE(read);
  CHECK_FALSE(read->tenants[0].bulk_low_bps);
  CHECK_FALSE(read->tenants[0].duration_high_ns);
  CHECK(read->tenants[0].escalations.empty());
  CHECK(read->tenants[0].rebalances.empty());
  CHECK_FALSE(read->lanes[0].age_ns);
  CHECK_FALSE(read->lanes[0].over_slo_percent);
}

TEST_CASE("recording: a fault is named with its line") {
  const std::string told = agent::hello_line(hello(), names());
  const std::string seen = agent::observation_line(observation(4));
  const agent::Proposal asked = proposal(ANIC_CHANGE_QUEUE_WEIGHT_ADJUST, 150, 3);
  const std::string answer = agent::answer_line({asked}, 4, names());
  CHECK(error_of({"[]"}).starts_with("line 1 of the recording: /: an object belongs here"));
  CHECK(error_of({told}).starts_with("line 1 of the recording: /"));
  CHECK(error_of({kHead, kHead})
            .starts_with("line 2 of the recording: /type: \"recording\" is not known here"));
  CHECK(error_of({kHead, told, answer}).starts_with("line 3 of the recording: /type"));
  CHECK(error_of({kHead, told, seen, seen}).starts_with("line 4 of the recording: /"));
  CHECK(error_of({kHead, told, seen, agent::answer_line({asked}, 5, names())})
            .starts_with("line 4 of the recording: /tick: 5 is not 4"));
  agent::Decision other = decision(asked, ANIC_DECIDED_APPROVE, 0);
  other.proposal.id = 2;
  CHECK(error_of({kHead, told, seen, answer, agent::decision_line(other, 4, kSession, names())})
            .starts_with("line 5 of the recording: /id: not 3"));
  std::string negative = seen;
  negative.replace(negative.find("\"tick\":4"), 8, "\"tick\":-4");
  CHECK(error_of({kHead, told, negative}) == "line 3 of the recording: /tick: not a whole number of 64 bits");
  std::string name = seen;
  name.replace(name.find("heartbeat\""), 10, "heart\\\"beat\"");
  CHECK(error_of({kHead, told, name}).starts_with("line 3 of the recording: /tenants/0/failsafe"));
}
