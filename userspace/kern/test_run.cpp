// SPDX-License-Identifier: Apache-2.0
#include "kern/test_run.hpp"

#include <bpf/bpf.h>

#include <cerrno>

#include "base/clock.hpp"

namespace agentnic::kern {
namespace {

Result<std::uint32_t> run(int prog_fd, std::span<const std::byte> frame, std::uint32_t repeat) {
  LIBBPF_OPTS(bpf_test_run_opts, options);
  options.data_in = frame.data();
  options.data_size_in = static_cast<std::uint32_t>(frame.size());
  options.repeat = static_cast<int>(repeat);
  if (bpf_prog_test_run_opts(prog_fd, &options) != 0)
    return fail_errno(errno, "run a BPF program on a test packet");
  return options.retval;
}

}  // namespace

Result<std::uint32_t> run_once(int prog_fd, std::span<const std::byte> frame) {
  return run(prog_fd, frame, 1);
}

Result<double> time_runs(int prog_fd, std::span<const std::byte> frame, std::uint32_t repeat) {
  // The kernel's own figure is in whole nanoseconds; a clock around a million runs is finer.
  const std::uint64_t start = monotonic_ns();
  ANIC_TRY(run(prog_fd, frame, repeat));
  return static_cast<double>(monotonic_ns() - start) / repeat;
}

Result<UniqueFd> load_noop_xdp() {
  const bpf_insn program[] = {
      {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .src_reg = 0, .off = 0, .imm = XDP_PASS},
      {.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0},
  };
  UniqueFd fd(bpf_prog_load(BPF_PROG_TYPE_XDP, "anic_noop", "GPL", program, std::size(program), nullptr));
  if (!fd)
    return fail_errno(errno, "load a no-op XDP program", "run as root, or with CAP_BPF and CAP_NET_ADMIN");
  return fd;
}

}  // namespace agentnic::kern
