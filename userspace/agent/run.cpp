// SPDX-License-Identifier: Apache-2.0
#include "agent/run.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/close_range.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <iostream>
#include <memory>
#include <optional>
#include <utility>

#include "agent/program.hpp"
#include "base/stop.hpp"
#include "kern/session.hpp"

namespace agentnic::agent {
namespace {

// How the confined process ends, beside 0.
constexpr int kFailed = 1;
constexpr int kProgramEnded = 2;  // the program closed its output: how it ended says whether that is good
constexpr int kNoExec = 127;

constexpr int kEndingMs = 1000;  // what a program that has closed its output may take to end

int report(const Error& error) {
  std::cerr << "agentnic-agent: " << error.text() << std::endl;
  return kFailed;
}

/// Both ends of a pipe.
struct Pipe {
  UniqueFd read;
  UniqueFd write;

  static Result<Pipe> make() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno(errno, "make a pipe");
    return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
  }
};

/// Closes all but standard streams and these, which must be above them.
void close_all_but(std::vector<int> kept) {
  std::ranges::sort(kept);
  unsigned first = STDERR_FILENO + 1;
  for (const int fd : kept) {
    if (static_cast<unsigned>(fd) > first) ::close_range(first, static_cast<unsigned>(fd) - 1, 0);
    first = static_cast<unsigned>(fd) + 1;
  }
  ::close_range(first, ~0U, 0);
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> list;
  for (std::string& word : words) list.push_back(word.data());
  list.push_back(nullptr);
  return list;
}

/// The process that becomes the program. Its answer is its exit status, if it comes to that.
int be_program(const Cgroup& cgroup, Settings& settings, const Pipe& in, const Pipe& out,
               const Pipe& errors) {
  ::dup2(in.read.get(), STDIN_FILENO);
  ::dup2(out.write.get(), STDOUT_FILENO);
  ::dup2(errors.write.get(), STDERR_FILENO);
  if (auto code = give_up_privileges(cgroup, settings.confinement); !code) return report(code.error());
  ::close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
  if (::chdir("/") != 0) return kNoExec;
  ::signal(SIGPIPE, SIG_DFL);
  const std::vector<char*> argv = pointers(settings.command);
  const std::vector<char*> environment = pointers(settings.environment);
  if (auto code = forbid_privileged_calls(settings.confinement.network); !code) return report(code.error());
  ::execvpe(argv[0], argv.data(), environment.data());
  std::cerr << fmt::format("cannot start {}: {}", settings.command[0], std::strerror(errno)) << std::endl;
  return kNoExec;
}

/// The process that has the session: descriptors of its ring, page and drain, and pipes, and nothing else.
int be_agent(const Cgroup& cgroup, const Settings& settings, const kern::Session& session,
             std::optional<Pipes> pipes) {
  std::vector<int> kept = {session.ring_fd(), session.page_fd(), session.drain_fd()};
  if (pipes) kept.insert(kept.end(), {pipes->to.get(), pipes->from.get(), pipes->errors.get()});
  close_all_but(kept);
  catch_stop_signals();
  ::signal(SIGPIPE, SIG_IGN);
  if (auto code = give_up_privileges(cgroup, settings.confinement); !code) return report(code.error());
  std::unique_ptr<Controller> controller;
  const ProgramController* program = nullptr;
  if (pipes) {
    auto made = std::make_unique<ProgramController>(*std::move(pipes), settings.hello, settings.names);
    program = made.get();
    controller = std::move(made);
  } else {
    auto made = make_controller(settings.controller, settings.seed);
    if (!made) return report(made.error());
    controller = *std::move(made);
  }
  if (auto code = allow_drains_alone(); !code) return report(code.error());
  const auto ended = run_loop(session, *controller, Observer(settings.names), settings.loop);
  if (ended) return 0;
  return program != nullptr && program->ended() ? kProgramEnded : report(ended.error());
}

std::string ending(int status) {
  if (WIFSIGNALED(status)) return fmt::format("was killed by signal {}", WTERMSIG(status));
  return fmt::format("ended with status {}", WEXITSTATUS(status));
}

/// The agent's end, as waitpid() has it. Who wants to stop is passed on, once.
int await_agent(pid_t pid) {
  int status = 0;
  for (bool passed = false; ::waitpid(pid, &status, 0) < 0 && errno == EINTR;) {
    if (passed || !stop_requested()) continue;
    ::kill(pid, SIGTERM);
    passed = true;
  }
  return status;
}

/// The program's end; what has not ended after `patience_ms` is killed.
int await_program(pid_t pid, const Cgroup& cgroup, int patience_ms) {
  int status = 0;
  for (int waited_ms = 0; ::waitpid(pid, &status, WNOHANG) == 0; ++waited_ms) {
    if (waited_ms == patience_ms) cgroup.kill();
    ::usleep(1000);
  }
  return status;
}

bool is_good(int status) { return WIFEXITED(status) && WEXITSTATUS(status) == 0; }

/// How the processes ended: nothing when that was well, else why not.
std::optional<std::string> judge(int agent_status, std::optional<int> program_status) {
  if (is_good(agent_status)) return std::nullopt;
  if (WIFEXITED(agent_status) && WEXITSTATUS(agent_status) == kProgramEnded && program_status) {
    if (is_good(*program_status)) return std::nullopt;
    return "the program " + ending(*program_status);
  }
  return "the agent " + ending(agent_status);
}

}  // namespace

Status run(const kern::PinDir& dir, const kern::Maps& maps, Settings settings) {
  catch_stop_signals();
  kern::Session session = ANIC_TRY(kern::Session::open(dir, maps, settings.session));
  settings.hello.session = session.id();
  const Cgroup cgroup = ANIC_TRY(Cgroup::make(fmt::format("session-{}.{}", session.id(), ::getpid()),
                                              settings.processes, settings.memory_bytes));
  std::optional<Pipes> pipes;
  std::optional<pid_t> program;
  if (!settings.command.empty()) {
    Pipe in = ANIC_TRY(Pipe::make());
    Pipe out = ANIC_TRY(Pipe::make());
    Pipe errors = ANIC_TRY(Pipe::make());
    program = ANIC_TRY(start_confined(cgroup, settings.confinement,
                                      [&] { return be_program(cgroup, settings, in, out, errors); }));
    pipes = Pipes{std::move(in.write), std::move(out.read), std::move(errors.read)};
  }
  Confinement offline = settings.confinement;
  offline.network = false;
  const pid_t agent = ANIC_TRY(
      start_confined(cgroup, offline, [&] { return be_agent(cgroup, settings, session, std::move(pipes)); }));
  pipes.reset();
  const int agent_status = await_agent(agent);
  // A program that has closed its output is about to end; any other has nobody to talk to.
  const bool about_to_end = WIFEXITED(agent_status) && WEXITSTATUS(agent_status) == kProgramEnded;
  std::optional<int> program_status;
  if (program) program_status = await_program(*program, cgroup, about_to_end ? kEndingMs : 0);
  if (const auto why = judge(agent_status, program_status)) {
    session.abandon();
    return fail(Exit::Failed, *why, "the guardian enters fail-safe as soon as the heartbeat is missed");
  }
  ANIC_TRY(session.close());
  return {};
}

}  // namespace agentnic::agent
