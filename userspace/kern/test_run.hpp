// SPDX-License-Identifier: Apache-2.0
#pragma once

/// BPF_PROG_TEST_RUN: one packet through one program, without an interface.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/result.hpp"
#include "base/unique_fd.hpp"

struct bpf_object;

namespace agentnic::kern {

/// The verdict of an XDP or TC program for a frame.
Result<std::uint32_t> run_once(int prog_fd, std::span<const std::byte> frame);

/// Whole nanoseconds a run, over `repeat` runs.
Result<std::uint32_t> time_runs(int prog_fd, std::span<const std::byte> frame, std::uint32_t repeat);

/// Runs again and again, until a signal comes. Runs that were counted are not known.
Status run_until_signal(int prog_fd, std::span<const std::byte> frame);

/// An XDP program of two instructions that passes everything: what any XDP program costs at least.
Result<UniqueFd> load_noop_xdp();

/// A program of somebody else, from an object file of xdp-tools: what ours is held against.
class PeerProgram final {
 public:
  /// The first program of the file, which is looked for where libxdp keeps its objects.
  static Result<PeerProgram> load(const std::string& file);
  [[nodiscard]] int fd() const noexcept;

 private:
  std::unique_ptr<bpf_object, void (*)(bpf_object*)> object_{nullptr, nullptr};
};

}  // namespace agentnic::kern
