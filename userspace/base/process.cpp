// SPDX-License-Identifier: Apache-2.0
#include "base/process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <utility>

#include "base/clock.hpp"

namespace agentnic {
namespace {

std::string joined(const Argv& argv) {
  std::string text;
  for (const auto& word : argv) text += (text.empty() ? "" : " ") + word;
  return text;
}

std::string last_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  const auto start = text.rfind('\n');
  return start == std::string::npos ? text : text.substr(start + 1);
}

int left_ms(std::uint64_t deadline_ns) {
  const std::uint64_t now = monotonic_ns();
  return now >= deadline_ns ? 0 : static_cast<int>((deadline_ns - now) / 1'000'000 + 1);
}

std::uint64_t deadline_in(int timeout_ms) {
  return monotonic_ns() + static_cast<std::uint64_t>(timeout_ms) * 1'000'000;
}

}  // namespace

Child::Child(Argv argv, pid_t pid, UniqueFd out, UniqueFd err)
    : argv_(std::move(argv)), pid_(pid), out_(std::move(out)), err_(std::move(err)) {}

Child::Child(Child&& other) noexcept
    : argv_(std::move(other.argv_)),
      pid_(std::exchange(other.pid_, -1)),
      out_(std::move(other.out_)),
      err_(std::move(other.err_)),
      output_(std::move(other.output_)),
      errors_(std::move(other.errors_)) {}

Child::~Child() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

Result<Child> Child::start(const Argv& argv) {
  int out[2];
  int err[2];
  if (::pipe2(out, O_CLOEXEC) != 0) return fail_errno(errno, "make a pipe");
  UniqueFd out_read(out[0]);
  const UniqueFd out_write(out[1]);
  if (::pipe2(err, O_CLOEXEC) != 0) return fail_errno(errno, "make a pipe");
  UniqueFd err_read(err[0]);
  const UniqueFd err_write(err[1]);
  std::vector<char*> words;
  for (const auto& word : argv) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(errno, "start " + argv[0]);
  if (pid == 0) {
    // Between fork and exec: only what is safe there.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127);
    ::dup2(out_write.get(), STDOUT_FILENO);
    ::dup2(err_write.get(), STDERR_FILENO);
    ::execvp(words[0], words.data());
    ::_exit(127);
  }
  return Child(argv, pid, std::move(out_read), std::move(err_read));
}

Result<Child> Child::start(const std::string& name, const std::function<void(int out_fd)>& call) {
  int out[2];
  if (::pipe2(out, O_CLOEXEC) != 0) return fail_errno(errno, "make a pipe");
  UniqueFd out_read(out[0]);
  const UniqueFd out_write(out[1]);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(errno, "start " + name);
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127);
    call(out_write.get());
    ::_exit(0);
  }
  return Child({name}, pid, std::move(out_read), UniqueFd());
}

Result<bool> Child::pump(int timeout_ms) {
  pollfd waiting[2] = {{out_ ? out_.get() : -1, POLLIN, 0}, {err_ ? err_.get() : -1, POLLIN, 0}};
  if (!out_ && !err_) return false;
  const int ready = ::poll(waiting, 2, timeout_ms);
  if (ready < 0 && errno == EINTR) return true;
  if (ready < 0) return fail_errno(errno, "wait for " + argv_[0]);
  if (ready == 0) return fail(Exit::Failed, joined(argv_) + ": no answer in time");
  const auto take = [](const pollfd& one, UniqueFd& fd, std::string& text) {
    if (one.revents == 0) return;
    char buffer[65536];
    const ssize_t got = ::read(fd.get(), buffer, sizeof(buffer));
    if (got > 0) {
      text.append(buffer, static_cast<std::size_t>(got));
    } else if (got == 0 || errno != EINTR) {
      fd.reset();
    }
  };
  take(waiting[0], out_, output_);
  take(waiting[1], err_, errors_);
  return true;
}

Result<std::string> Child::read_line(int timeout_ms) {
  const std::uint64_t deadline = deadline_in(timeout_ms);
  for (;;) {
    if (const auto end = output_.find('\n'); end != std::string::npos) {
      std::string line = output_.substr(0, end);
      output_.erase(0, end + 1);
      return line;
    }
    if (!ANIC_TRY(pump(left_ms(deadline))))
      return fail(Exit::Failed,
                  joined(argv_) + ": ended early" + (errors_.empty() ? "" : ": " + last_line(errors_)));
  }
}

void Child::ask_to_stop() const noexcept {
  if (pid_ > 0) ::kill(pid_, SIGTERM);
}

Result<Child::Outcome> Child::wait(int timeout_ms) {
  const std::uint64_t deadline = deadline_in(timeout_ms);
  while (ANIC_TRY(pump(left_ms(deadline)))) {
  }
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return Outcome{WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), std::move(output_),
                 std::move(errors_)};
}

Error program_error(const Argv& argv, const Child::Outcome& outcome) {
  if (outcome.status == 127) return {Exit::Failed, argv[0] + ": no such program", "make deps"};
  const std::string said = last_line(outcome.errors);
  return {Exit::Failed,
          joined(argv) + ": " + (said.empty() ? "exit status " + std::to_string(outcome.status) : said), ""};
}

Result<std::string> run_program(const Argv& argv, int timeout_ms) {
  Child child = ANIC_TRY(Child::start(argv));
  Child::Outcome outcome = ANIC_TRY(child.wait(timeout_ms));
  if (outcome.status != 0) return fail(program_error(argv, outcome));
  return std::move(outcome.output);
}

}  // namespace agentnic
