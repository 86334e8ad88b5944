// SPDX-License-Identifier: Apache-2.0
#pragma once

/// BPF_PROG_TEST_RUN: one packet through one program, without an interface.

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.hpp"
#include "base/unique_fd.hpp"

namespace agentnic::kern {

/// The verdict of an XDP or TC program for a frame.
Result<std::uint32_t> run_once(int prog_fd, std::span<const std::byte> frame);

/// Whole nanoseconds a run, over `repeat` runs.
Result<std::uint32_t> time_runs(int prog_fd, std::span<const std::byte> frame, std::uint32_t repeat);

/// An XDP program of two instructions that passes everything: what any XDP program costs at least.
Result<UniqueFd> load_noop_xdp();

}  // namespace agentnic::kern
