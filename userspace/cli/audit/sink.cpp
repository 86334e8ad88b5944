// SPDX-License-Identifier: Apache-2.0
#include "cli/audit/sink.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <thread>
#include <utility>

#include "base/clock.hpp"
#include "base/file.hpp"
#include "base/unique_fd.hpp"

namespace agentnic::cli {

Status FileSink::offer(const std::string& note) { return write_file(path_, note); }

CommandSink::~CommandSink() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

Status CommandSink::offer(const std::string& note) {
  waiting_ = note;
  return poll();
}

Status CommandSink::start(const std::string& note) {
  const std::string what = "hand a checkpoint to " + argv_.front();
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno(errno, what);
  const UniqueFd out(ends[0]);
  const UniqueFd in(ends[1]);
  // A note is far smaller than a pipe.
  if (::write(in.get(), note.data(), note.size()) != static_cast<ssize_t>(note.size()))
    return fail(Exit::Failed, what + ": its pipe takes no note");
  std::vector<char*> argv;
  for (std::string& word : argv_) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, out.get(), STDIN_FILENO);
  const int code = ::posix_spawnp(&pid_, argv.front(), &actions, nullptr, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (code != 0) {
    pid_ = -1;
    return fail_errno(code, what);
  }
  started_ns_ = monotonic_ns();
  return {};
}

Status CommandSink::poll() {
  Status told;
  if (pid_ >= 0) {
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) == 0) {
      if (monotonic_ns() - started_ns_ < std::uint64_t{kSinkMs} * 1'000'000) return {};
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, &status, 0);
    }
    pid_ = -1;
    if (status != 0) {
      told = fail(Exit::Failed, fmt::format("hand a checkpoint to {}: it ended with {}", argv_.front(),
                                            WIFEXITED(status) ? fmt::format("status {}", WEXITSTATUS(status))
                                                              : fmt::format("signal {}", WTERMSIG(status))));
    }
  }
  if (!waiting_.empty()) {
    if (Status started = start(std::exchange(waiting_, {})); !started) return started;
  }
  return told;
}

Status CommandSink::finish(int timeout_ms) {
  const std::uint64_t end = monotonic_ns() + static_cast<std::uint64_t>(timeout_ms) * 1'000'000;
  Status told;
  while ((pid_ >= 0 || !waiting_.empty()) && monotonic_ns() < end) {
    if (Status polled = poll(); !polled) told = std::move(polled);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return told;
}

}  // namespace agentnic::cli
