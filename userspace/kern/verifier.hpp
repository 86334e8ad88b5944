// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What it costs the kernel's verifier to accept each program of the instance object.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace agentnic::kern {

/// The statistics that the verifier prints (BPF_LOG_STATS; print_verification_stats in
/// kernel/bpf/verifier.c of Linux).
struct VerifierStats {
  std::uint64_t instructions = 0;       ///< processed, every path through the program counted
  std::uint64_t instruction_limit = 0;  ///< of this kernel
  std::uint64_t states_total = 0;
  std::uint64_t states_peak = 0;
  std::uint64_t verification_us = 0;  ///< 0 where the kernel does not say

  /// The part of the limit that is used, from 0 to 1.
  [[nodiscard]] double share() const noexcept;
};

/// The part of the limit that no program may exceed. What is left is for kernels that count more.
inline constexpr double kVerifierShareMax = 0.7;

/// Reads them from a verifier's log; an error when they are not in it.
Result<VerifierStats> parse_verifier_stats(std::string_view log);

/// What the verifier objects to, in one line: from its log, the meaning first where it is known.
std::string explain_verifier(std::string_view log);

struct VerifiedProgram {
  std::string name;
  std::string type;  ///< as libbpf calls it: xdp, sched_cls
  bool loads = false;
  VerifierStats stats;  ///< zero unless it loads and this kernel's log has them
  std::string error;    ///< why it does not load, or has no statistics, in plain words; else empty
};

/// Loads each program of the instance and of a session, alone, and drops it again. Takes CAP_BPF and
/// CAP_NET_ADMIN.
Result<std::vector<VerifiedProgram>> verify_programs();

}  // namespace agentnic::kern
