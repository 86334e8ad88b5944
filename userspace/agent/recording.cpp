// SPDX-License-Identifier: Apache-2.0
#include "agent/recording.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <iostream>
#include <utility>

#include "base/json.hpp"
#include "policy/json_reader.hpp"

namespace agentnic::agent {
namespace {

constexpr std::string_view kSchema = "agentnic.recording/1";
constexpr std::string_view kType = "recording";

std::string head_line(const Decider& decider) {
  const Json json = {
      {"type", kType},
      {"schema", kSchema},
      {"controller", decider.controller.empty() ? Json(nullptr) : Json(decider.controller)},
      {"seed", decider.seed},
  };
  return json.dump() + "\n";
}

Result<Decider> parse_head(std::string_view line) {
  constexpr std::array<std::string_view, 4> kKeys = {"type", "schema", "controller", "seed"};
  try {
    const nlohmann::json json = policy::parse_json(line);
    const policy::ObjectReader object(json, policy::Pointer(), kKeys);
    policy::expect_word(object.need("type"), object.at("type"), kType);
    policy::expect_word(object.need("schema"), object.at("schema"), kSchema);
    Decider decider;
    if (!object.need("controller").is_null()) decider.controller = object.name("controller");
    const nlohmann::json& seed = object.need("seed");
    if (!seed.is_number_unsigned()) throw policy::Fault{"/seed", "not a whole number of 64 bits", ""};
    decider.seed = seed.get<std::uint64_t>();
    return decider;
  } catch (const policy::Fault& fault) {
    return fail(Exit::BadInput, fault.text(), fault.hint);
  }
}

}  // namespace

Recorder::Recorder(std::unique_ptr<Controller> controller, UniqueFd file, const Decider& decider,
                   const Hello& hello, Names names)
    : controller_(std::move(controller)),
      file_(std::move(file)),
      session_(hello.session),
      names_(std::move(names)) {
  write(head_line(decider) + hello_line(hello, names_));
}

Result<std::optional<std::vector<Proposal>>> Recorder::decide(const Observation& observation) {
  tick_ = observation.tick;
  write(observation_line(observation));
  auto proposals = controller_->decide(observation);
  if (proposals && *proposals) write(answer_line(**proposals, tick_, names_));
  return proposals;
}

Status Recorder::decided(const std::vector<Decision>& decisions) {
  std::string lines;
  for (const Decision& decision : decisions) lines += decision_line(decision, tick_, session_, names_);
  write(lines);
  return controller_->decided(decisions);
}

void Recorder::write(std::string_view lines) {
  while (file_ && !lines.empty()) {
    const ssize_t written = ::write(file_.get(), lines.data(), lines.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      std::cerr << fmt::format("agentnic-agent: the recording ends here: write to it: {}",
                               std::strerror(errno))
                << std::endl;
      file_.reset();
      return;
    }
    lines.remove_prefix(static_cast<std::size_t>(written));
  }
}

Result<std::optional<Step>> RecordingParser::add(std::string_view line) {
  ++lines_;
  auto step = parse(line);
  if (step) return step;
  return fail(Exit::BadInput, fmt::format("line {} of the recording: {}", lines_, step.error().what),
              step.error().hint);
}

Result<std::optional<Step>> RecordingParser::parse(std::string_view line) {
  if (lines_ == 1) {
    decider_ = ANIC_TRY(parse_head(line));
    return std::nullopt;
  }
  if (lines_ == 2) {
    told_ = ANIC_TRY(parse_hello(line));
    return std::nullopt;
  }
  if (!step_) {
    step_ = Step{
        .line = lines_, .observation = ANIC_TRY(parse_observation(line)), .proposals = {}, .decisions = {}};
    return std::nullopt;
  }
  if (!answered_) {
    step_->proposals = ANIC_TRY(parse_answer(line, step_->observation.tick, told_.names));
    answered_ = true;
  } else {
    const Proposal& proposal = step_->proposals[step_->decisions.size()];
    step_->decisions.push_back(ANIC_TRY(parse_decision(line, proposal)));
  }
  if (step_->decisions.size() < step_->proposals.size()) return std::nullopt;
  answered_ = false;
  return std::exchange(step_, std::nullopt);
}

std::optional<Step> RecordingParser::rest() {
  if (!std::exchange(answered_, false)) step_.reset();
  return std::exchange(step_, std::nullopt);
}

Result<Recording> Recording::begin(UniqueFd file) {
  Recording recording(std::move(file));
  while (!recording.parser_.begun()) {
    const auto line = ANIC_TRY(recording.line());
    if (!line)
      return fail(Exit::BadInput,
                  fmt::format("the recording ends after {} lines", recording.parser_.lines()));
    ANIC_TRY(recording.parser_.add(*line));
  }
  return recording;
}

Result<std::optional<Step>> Recording::next() {
  while (const auto line = ANIC_TRY(this->line())) {
    auto step = ANIC_TRY(parser_.add(*line));
    if (step) return step;
  }
  return parser_.rest();
}

Result<std::optional<std::string>> Recording::line() {
  for (;;) {
    if (lines_.too_long())
      return fail(Exit::BadInput, fmt::format("line {} of the recording: longer than {} bytes",
                                              parser_.lines() + 1, kMaxRecordedLine));
    if (auto line = lines_.take()) return line;
    std::array<char, 65536> part{};
    const ssize_t got = ::read(file_.get(), part.data(), part.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno(errno, "read the recording");
    if (got == 0) return std::nullopt;
    lines_.add({part.data(), static_cast<std::size_t>(got)});
  }
}

}  // namespace agentnic::agent
