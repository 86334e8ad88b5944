// SPDX-License-Identifier: Apache-2.0
#include "kern/verifier.hpp"

#include <catch2/catch_test_macros.hpp>

using namespace agentnic;

TEST_CASE("verifier: its statistics are read, the limit included") {
  const auto stats = kern::parse_verifier_stats(
      "verification time 412 usec\nstack depth 64+0\n"
      "processed 1234 insns (limit 1000000) max_states_per_insn 4 total_states 56 peak_states 42 mark_read "
      "7\n");
  REQUIRE(stats);
  CHECK(stats->instructions == 1234);
  CHECK(stats->instruction_limit == 1'000'000);
  CHECK(stats->states_total == 56);
  CHECK(stats->states_peak == 42);
  CHECK(stats->verification_us == 412);
  CHECK(stats->share() == 0.001234);
}

TEST_CASE("verifier: the last statistics count, and a kernel that does not tell the time is one") {
  const auto stats = kern::parse_verifier_stats(
      "processed 1 insns (limit 2) max_states_per_insn 0 total_states 0 peak_states 0\n"
      "processed 3 insns (limit 4) max_states_per_insn 0 total_states 5 peak_states 6 mark_read 0");
  REQUIRE(stats);
  CHECK(stats->instructions == 3);
  CHECK(stats->states_peak == 6);
  CHECK(stats->verification_us == 0);
}

TEST_CASE("verifier: a log without statistics is an error, not a zero") {
  for (const char* log : {"", "processed", "processed \n", "processed many insns (limit 1000000)",
                          "processed 12 insns (limit ) total_states 1 peak_states 1",
                          "processed 12 insns (limit 1000000) total_states 1",
                          "processed 99999999999999999999999 insns (limit 1) total_states 1 peak_states 1"}) {
    INFO(log);
    CHECK_FALSE(kern::parse_verifier_stats(log));
  }
  CHECK(kern::VerifierStats{}.share() == 0);
}

TEST_CASE("verifier: an error is the last thing it said, with the meaning where that is known") {
  CHECK(kern::explain_verifier("0: (85) call unknown#999\ninvalid func unknown#999\n"
                               "processed 1 insns (limit 1000000) max_states_per_insn 0\n") ==
        "this kernel lacks a helper that it calls: invalid func unknown#999");
  CHECK(kern::explain_verifier("BPF program is too large. Processed 1000001 insn\n")
            .starts_with("it is too complex"));
  CHECK(kern::explain_verifier("R1 type=ctx expected=fp") == "the verifier says: R1 type=ctx expected=fp");
  CHECK(kern::explain_verifier("\n\n") == "the verifier gave no reason");
}
