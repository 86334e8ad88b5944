// SPDX-License-Identifier: Apache-2.0
#include "kern/verifier.hpp"

#include <bpf/libbpf.h>
#include <fmt/format.h>

#include <instance.skel.h>
#include <session.skel.h>
#include <array>
#include <cerrno>
#include <charconv>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>

#include "kern/libbpf_log.hpp"

namespace agentnic::kern {
namespace {

constexpr std::uint32_t kLogStats = 4;  // BPF_LOG_STATS of include/linux/bpf_verifier.h
constexpr std::uint32_t kLogSteps = 1;  // BPF_LOG_LEVEL1
constexpr std::size_t kStatsLogBytes = std::size_t{1} << 16U;  // it names every function
constexpr std::size_t kStepsLogBytes = std::size_t{1} << 24U;  // what kernels before 6.4 take at most

using BpfObject = std::unique_ptr<bpf_object, decltype(&bpf_object__close)>;

/// The number that follows `word` in `text`.
std::optional<std::uint64_t> number_after(std::string_view text, std::string_view word) {
  const auto at = text.find(word);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view rest = text.substr(at + word.size());
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
  if (error != std::errc()) return std::nullopt;
  return number;
}

/// The bytes of an object: the instance's, and that of a session.
using Elf = const void* (*)(std::size_t*);
constexpr std::array<Elf, 2> kObjects = {instance_bpf::elf_bytes, session_bpf::elf_bytes};

/// An object, with one of its programs to be loaded.
BpfObject open_with(Elf elf_bytes, std::string_view wanted) {
  std::size_t size = 0;
  const void* elf = elf_bytes(&size);
  BpfObject object(bpf_object__open_mem(elf, size, nullptr), bpf_object__close);
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, object.get()) {
    bpf_program__set_autoload(program, bpf_program__name(program) == wanted);
  }
  return object;
}

/// Loads one program; 0 or -errno, and the verifier's log.
int load_one(Elf elf, const std::string& name, std::uint32_t level, std::size_t log_bytes, std::string& log) {
  const BpfObject object = open_with(elf, name);
  bpf_program* program = object ? bpf_object__find_program_by_name(object.get(), name.c_str()) : nullptr;
  if (program == nullptr) return -EINVAL;
  log.assign(log_bytes, '\0');
  bpf_program__set_log_level(program, level);
  bpf_program__set_log_buf(program, log.data(), log.size());
  const int code = bpf_object__load(object.get());
  log.resize(std::string_view(log.data()).size());
  return code;
}

VerifiedProgram verify(Elf elf, const bpf_program* program) {
  VerifiedProgram verified;
  verified.name = bpf_program__name(program);
  const char* type = libbpf_bpf_prog_type_str(bpf_program__type(program));
  verified.type = type != nullptr ? type : "?";
  std::string log;
  int code = load_one(elf, verified.name, kLogStats, kStatsLogBytes, log);
  if (code == 0) {
    const auto stats = parse_verifier_stats(log);
    verified.loads = true;
    if (stats) verified.stats = *stats;
    if (!stats) verified.error = stats.error().what;
    return verified;
  }
  const std::string said = take_libbpf_warning();
  // Statistics alone do not say why: once more, with the steps that the verifier took.
  if (load_one(elf, verified.name, kLogSteps, kStepsLogBytes, log) != 0 && !log.empty()) {
    verified.error = explain_verifier(log);
  } else {
    verified.error = fmt::format("{} ({})", std::generic_category().message(-code), said);
  }
  static_cast<void>(take_libbpf_warning());
  return verified;
}

}  // namespace

double VerifierStats::share() const noexcept {
  return instruction_limit != 0 ? static_cast<double>(instructions) / static_cast<double>(instruction_limit)
                                : 0;
}

Result<VerifierStats> parse_verifier_stats(std::string_view log) {
  const auto start = log.rfind("processed ");
  const std::string_view line = start == std::string_view::npos ? std::string_view() : log.substr(start);
  const auto instructions = number_after(line, "processed ");
  const auto limit = number_after(line, "(limit ");
  const auto total = number_after(line, " total_states ");
  const auto peak = number_after(line, " peak_states ");
  if (!instructions || !limit || !total || !peak) {
    return fail(Exit::Failed,
                "read the verifier's statistics: this kernel's log has none, or in other words");
  }
  return VerifierStats{.instructions = *instructions,
                       .instruction_limit = *limit,
                       .states_total = *total,
                       .states_peak = *peak,
                       .verification_us = number_after(log, "verification time ").value_or(0)};
}

std::string explain_verifier(std::string_view log) {
  // Beginnings of what the verifier says, and what that means to somebody who did not write the program.
  constexpr std::array<std::pair<std::string_view, std::string_view>, 6> kMeanings = {{
      {"BPF program is too large", "it is too complex for this kernel's verifier"},
      {"unknown func", "this kernel lacks a helper that it calls"},
      {"invalid func", "this kernel lacks a helper that it calls"},
      {"program of this type cannot use helper", "this kernel forbids a helper to programs of this type"},
      {"invalid access to packet", "it reads a packet beyond what this verifier sees as checked"},
      {"infinite loop", "this verifier does not see that a loop ends"},
  }};
  std::string_view reason;
  while (!log.empty()) {  // the last line that is neither empty nor statistics
    const auto end = log.find('\n');
    const std::string_view line = log.substr(0, end);
    log = end == std::string_view::npos ? std::string_view() : log.substr(end + 1);
    if (line.empty() || line.starts_with("processed ") || line.starts_with("verification time ") ||
        line.starts_with("stack depth ")) {
      continue;
    }
    reason = line;
  }
  for (const auto& [words, meaning] : kMeanings) {
    if (reason.find(words) != std::string_view::npos) return fmt::format("{}: {}", meaning, reason);
  }
  return reason.empty() ? "the verifier gave no reason" : fmt::format("the verifier says: {}", reason);
}

Result<std::vector<VerifiedProgram>> verify_programs() {
  std::vector<VerifiedProgram> verified;
  for (const Elf elf : kObjects) {
    const BpfObject all = open_with(elf, "");
    if (!all) return fail_errno(errno, "open the BPF object");
    bpf_program* program = nullptr;
    bpf_object__for_each_program(program, all.get()) verified.push_back(verify(elf, program));
  }
  return verified;
}

}  // namespace agentnic::kern
