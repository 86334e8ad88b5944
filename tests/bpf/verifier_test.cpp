// SPDX-License-Identifier: Apache-2.0
//
// What this kernel's verifier makes of each program.

#include "kern/verifier.hpp"

#include <fmt/format.h>

#include <catch2/catch_test_macros.hpp>

using namespace agentnic;

TEST_CASE("verifier: every program stays 30 % below the limit of this kernel", "[smoke]") {
  const auto programs = kern::verify_programs();
  if (!programs) FAIL(programs.error().text());
  REQUIRE_FALSE(programs->empty());
  for (const auto& program : *programs) {
    INFO(fmt::format("{} ({}): {} of {} instructions, {} states, {} at a time; {}", program.name,
                     program.type, program.stats.instructions, program.stats.instruction_limit,
                     program.stats.states_total, program.stats.states_peak, program.error));
    CHECK(program.loads);
    CHECK(program.error.empty());
    CHECK(program.stats.instructions > 0);
    CHECK(program.stats.instruction_limit >= 1'000'000);
    CHECK(program.stats.share() <= kern::kVerifierShareMax);
  }
}
