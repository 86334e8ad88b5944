// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch_test_macros.hpp>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "kern/hook.hpp"
#include "lab/experiment.hpp"
#include "lab/load.hpp"
#include "lab/measure.hpp"
#include "path/sockets/udp.hpp"

using namespace agentnic;

TEST_CASE("spread: median, least and greatest") {
  const auto odd = lab::spread({3, 1, 2});
  CHECK(odd.median == 2);
  CHECK(odd.low == 1);
  CHECK(odd.high == 3);
  CHECK(lab::spread({4, 1, 2, 3}).median == 2.5);
}

TEST_CASE("load: an impossible size or rate is bad input") {
  const auto line = lab::open_udp_line(path::Address::parse("127.0.0.1", 9).value()).value();
  const auto exit_of = [&](const lab::LoadOptions& options) {
    return lab::run_load(*line, options).error().exit;
  };
  CHECK(exit_of({.size = 23}) == Exit::BadInput);
  CHECK(exit_of({.size = 65508}) == Exit::BadInput);
  CHECK(exit_of({.loop = lab::Loop::Open}) == Exit::BadInput);
}

TEST_CASE("load: a run that nobody answers is not valid and has no percentiles") {
  const auto line = lab::open_udp_line(path::Address::parse("127.0.0.1", 9).value()).value();
  const lab::LoadOptions options{.warmup_s = 0, .duration_s = 0.05};
  const auto result = lab::run_load(*line, options);
  REQUIRE(result);
  CHECK_FALSE(result->invalid.empty());
  const Json json = lab::to_json(options, *result);
  CHECK(json.at("p50_ns").is_null());
  CHECK(json.at("valid") == false);
}

namespace {

/// Answers in its own way: each request as it is, but every `lose`th not at all, and every `twice`th again.
class OddLine final : public lab::Line {
 public:
  OddLine(std::uint64_t lose, std::uint64_t twice) : lose_(lose), twice_(twice) {}
  bool send(std::span<const std::byte> payload) noexcept override {
    ++count_;
    if (lose_ != 0 && count_ % lose_ == 0) return true;
    for (int i = twice_ != 0 && count_ % twice_ == 0 ? 2 : 1; i > 0; --i)
      answers_.emplace_back(payload.begin(), payload.end());
    return true;
  }
  std::optional<std::span<const std::byte>> receive(path::Wait /*wait*/) noexcept override {
    if (answers_.empty()) return std::nullopt;
    taken_ = std::move(answers_.back());  // the last comes first
    answers_.pop_back();
    return taken_;
  }
  void wait_readable(std::uint64_t /*timeout_ns*/) noexcept override {}
  [[nodiscard]] std::uint64_t drops() const noexcept override { return 0; }
  [[nodiscard]] std::uint64_t count() const { return count_; }

 private:
  std::uint64_t lose_;
  std::uint64_t twice_;
  std::uint64_t count_ = 0;
  std::vector<std::vector<std::byte>> answers_;
  std::vector<std::byte> taken_;
};

}  // namespace

TEST_CASE("load: of many outstanding requests each is answered once, or lost after 100 ms") {
  const lab::LoadOptions options{.outstanding = 8, .warmup_s = 0, .duration_s = 0.35};
  SECTION("all are answered, in any order") {
    OddLine line(0, 0);
    const auto result = lab::run_load(line, options);
    REQUIRE(result);
    CHECK(result->lost + result->stale + result->damaged == 0);
    CHECK(result->received + 8 >= result->sent);
  }
  SECTION("an answer that comes again is none") {
    OddLine line(0, 5);
    const auto result = lab::run_load(line, options);
    REQUIRE(result);
    CHECK(result->lost == 0);
    CHECK(result->stale + 8 >= line.count() / 5);
    CHECK(result->received <= result->sent);
  }
  SECTION("what is lost is counted beside answers that come, and recorded with its time") {
    OddLine line(1000, 0);
    const auto result = lab::run_load(line, options);
    REQUIRE(result);
    // The window has 8 places, and each is lost for 100 ms.
    CHECK(result->lost >= 8);
    CHECK(result->lost <= 32);
    CHECK(result->latency_ns.max() >= lab::kAnswerTimeoutNs);
  }
}

TEST_CASE("load: the histogram survives JSON") {
  Histogram histogram;
  for (std::uint64_t i = 0; i < 5000; ++i) histogram.record(i * 37);
  CHECK(lab::histogram_from_json(Json::parse(lab::to_json(histogram).dump())).buckets() ==
        histogram.buckets());
}

TEST_CASE("report: what is not a result is bad input, not a crash") {
  for (const char* text : {"{}", "[]", "7", R"({"schema": "agentnic.result/1"})",
                           R"({"schema": "agentnic.result/2", "rows": []})"}) {
    INFO(text);
    const auto said = lab::report(Json::parse(text));
    REQUIRE_FALSE(said);
    CHECK(said.error().exit == Exit::BadInput);
  }
}

TEST_CASE("mode: auto wants XDP for an xsk service or for CPUs and TC for none, and says why") {
  policy::Policy xsk;
  xsk.services.emplace_back().path = ANIC_PATH_XSK;
  const auto with = kern::plan_modes(kern::ModeRequest::Auto, xsk);
  CHECK(with.modes == std::vector{ANIC_MODE_NATIVE, ANIC_MODE_SKB});
  CHECK(with.why.find("xsk") != std::string::npos);
  CHECK(kern::plan_modes(kern::ModeRequest::Tc, xsk).why.find("path A") != std::string::npos);

  policy::Policy steering;
  steering.classes[ANIC_CLASS_RPC].cpus = {1};
  CHECK(kern::plan_modes(kern::ModeRequest::Auto, steering).modes ==
        std::vector{ANIC_MODE_NATIVE, ANIC_MODE_TC});

  const auto without = kern::plan_modes(kern::ModeRequest::Auto, policy::Policy{});
  CHECK(without.modes.front() == ANIC_MODE_TC);
  CHECK_FALSE(without.why.empty());
}

TEST_CASE("address: IPv4 and IPv6 are read, names are not looked up") {
  CHECK(path::Address::parse("192.0.2.1", 1).value().storage.ss_family == AF_INET);
  CHECK(path::Address::parse("2001:db8::1", 1).value().storage.ss_family == AF_INET6);
  CHECK(path::Address::parse("localhost", 1).error().exit == Exit::BadInput);
}
