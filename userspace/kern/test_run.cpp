// SPDX-License-Identifier: Apache-2.0
#include "kern/test_run.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <cerrno>
#include <optional>

#include "kern/libbpf_log.hpp"

namespace agentnic::kern {
namespace {

/// The answer of the kernel: the last verdict, and the mean duration of a run in whole nanoseconds. Nothing:
/// a signal came.
Result<std::optional<bpf_test_run_opts>> try_run(int prog_fd, std::span<const std::byte> frame,
                                                 std::uint32_t repeat) {
  LIBBPF_OPTS(bpf_test_run_opts, options);
  options.data_in = frame.data();
  options.data_size_in = static_cast<std::uint32_t>(frame.size());
  options.repeat = static_cast<int>(repeat);
  if (bpf_prog_test_run_opts(prog_fd, &options) == 0) return options;
  if (errno == EINTR) return std::nullopt;
  return fail_errno(errno, "run a BPF program on a test packet");
}

Result<bpf_test_run_opts> run(int prog_fd, std::span<const std::byte> frame, std::uint32_t repeat) {
  for (;;) {
    if (const auto done = ANIC_TRY(try_run(prog_fd, frame, repeat))) return *done;
  }
}

}  // namespace

Result<std::uint32_t> run_once(int prog_fd, std::span<const std::byte> frame) {
  return ANIC_TRY(run(prog_fd, frame, 1)).retval;
}

Result<std::uint32_t> time_runs(int prog_fd, std::span<const std::byte> frame, std::uint32_t repeat) {
  // Not by a clock around the call: it also enters the program into the XDP dispatcher, which takes
  // milliseconds.
  return ANIC_TRY(run(prog_fd, frame, repeat)).duration;
}

Status run_until_signal(int prog_fd, std::span<const std::byte> frame) {
  constexpr std::uint32_t kMany = 1U << 30U;
  while (ANIC_TRY(try_run(prog_fd, frame, kMany))) {
  }
  return {};
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

Result<PeerProgram> PeerProgram::load(const std::string& file) {
  constexpr const char* kFolders[] = {"/usr/lib/x86_64-linux-gnu/bpf", "/usr/lib/aarch64-linux-gnu/bpf",
                                      "/usr/lib/bpf", "/usr/lib64/bpf"};
  for (const char* folder : kFolders) {
    const std::string path = fmt::format("{}/{}", folder, file);
    if (::access(path.c_str(), R_OK) != 0) continue;
    PeerProgram peer;
    peer.object_ = {bpf_object__open_file(path.c_str(), nullptr), bpf_object__close};
    if (!peer.object_) return fail_errno(errno, "open " + path, take_libbpf_warning());
    bpf_program* program = nullptr;
    bpf_object__for_each_program(program, peer.object_.get())
        bpf_program__set_type(program, BPF_PROG_TYPE_XDP);
    if (const int code = bpf_object__load(peer.object_.get()); code != 0)
      return fail_errno(code, "load " + path, take_libbpf_warning());
    take_libbpf_warning();
    return peer;
  }
  return fail(Exit::BadInput,
              fmt::format("find {}, which comes with xdp-tools: it is in none of {}", file,
                          fmt::join(kFolders, ", ")),
              "make deps");
}

int PeerProgram::fd() const noexcept {
  return bpf_program__fd(bpf_object__next_program(object_.get(), nullptr));
}

}  // namespace agentnic::kern
