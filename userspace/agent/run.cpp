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
#include "agent/recording.hpp"
#include "base/clock.hpp"
#include "base/stop.hpp"
#include "kern/session.hpp"

namespace agentnic::agent {
namespace {

// How the confined process ends, beside 0.
constexpr int kProgramEnded = 100;  // the program closed its output: how it ended says whether that is good
constexpr int kNoExec = 127;

// What a program that has closed its output may take to end, and half the heartbeat, for there is none now.
constexpr std::uint64_t kEndingNs = 1'000'000'000;

int report(const Error& error) {
  std::cerr << "agentnic-agent: " << error.text() << std::endl;
  return static_cast<int>(error.exit);
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

/// What those who are started here are kept in; without a cgroup, they are this user's.
struct Keep {
  std::optional<Cgroup> cgroup;

  [[nodiscard]] Result<pid_t> start(const Confinement& confinement, const std::function<int()>& run) const {
    return cgroup ? start_confined(*cgroup, confinement, run) : start_unconfined(run);
  }
  /// Of what was started, first of all.
  [[nodiscard]] Status give_up(const Confinement& confinement) const {
    return cgroup ? give_up_privileges(*cgroup, confinement) : give_up_chances();
  }
  void kill(pid_t pid) const {
    ::kill(pid, SIGKILL);
    if (cgroup) cgroup->kill();
  }
};

/// The process that becomes the program. Its answer is its exit status, if it comes to that.
int be_program(const Keep& keep, Settings& settings, const Pipe& in, const Pipe& out, const Pipe& errors) {
  ::dup2(in.read.get(), STDIN_FILENO);
  ::dup2(out.write.get(), STDOUT_FILENO);
  ::dup2(errors.write.get(), STDERR_FILENO);
  if (auto code = keep.give_up(settings.confinement); !code) return report(code.error());
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

/// The controller of a confined process.
class Chosen {
 public:
  /// The program behind the pipes, or a built-in one; with a recorder, if there is a file to write to.
  static Result<Chosen> make(std::optional<Pipes> pipes, const Decider& built_in, UniqueFd record,
                             const Hello& hello, const Names& names) {
    Chosen chosen;
    Decider decider;  // of the recording: a program
    if (pipes) {
      auto made = std::make_unique<ProgramController>(*std::move(pipes), hello, names);
      chosen.program_ = made.get();
      chosen.controller_ = std::move(made);
    } else {
      decider = built_in;
      chosen.controller_ = ANIC_TRY(make_controller(decider.controller, decider.seed));
    }
    if (record)
      chosen.controller_ =
          std::make_unique<Recorder>(std::move(chosen.controller_), std::move(record), decider, hello, names);
    return chosen;
  }

  Controller& operator*() const { return *controller_; }

  /// The exit status of the process, when what it did with the controller came to this end.
  [[nodiscard]] int failed(const Error& error) const {
    return program_ != nullptr && program_->ended() ? kProgramEnded : report(error);
  }

 private:
  std::unique_ptr<Controller> controller_;
  const ProgramController* program_ = nullptr;
};

/// What a confined process does, when it is confined; its answer is its exit status.
using Work = std::function<int(std::optional<Pipes> pipes, UniqueFd record)>;

/// The process that has the controller: these descriptors, where to write what passes, pipes, and nothing
/// else.
int be_agent(const Keep& keep, const Confinement& confinement, std::vector<int> kept,
             std::optional<Pipes> pipes, UniqueFd record, const Work& work) {
  if (record) kept.push_back(record.get());
  if (pipes) {
    for (const UniqueFd* fd : {&pipes->to, &pipes->from, &pipes->errors}) {
      ::fcntl(fd->get(), F_SETFL, O_NONBLOCK);
      kept.push_back(fd->get());
    }
  }
  catch_stop_signals();
  ::signal(SIGPIPE, SIG_IGN);
  const UniqueFd nothing(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (::dup2(nothing.get(), STDIN_FILENO) < 0) return report(Error::from_errno(errno, "open /dev/null"));
  if (auto code = keep.give_up(confinement); !code) return report(code.error());
  close_all_but(kept);
  if (auto code = allow_drains_alone(); !code) return report(code.error());
  return work(std::move(pipes), std::move(record));
}

std::string ending(int status) {
  if (WIFSIGNALED(status)) return fmt::format("was killed by signal {}", WTERMSIG(status));
  return fmt::format("ended with status {}", WEXITSTATUS(status));
}

/// The agent's end, as waitpid() has it. Who wants to stop is passed on, once.
int await_agent(pid_t pid) {
  const WakeUps wake_ups;
  int status = 0;
  for (bool passed = false; ::waitpid(pid, &status, 0) < 0 && errno == EINTR;) {
    if (passed || !stop_requested()) continue;
    ::kill(pid, SIGTERM);
    passed = true;
  }
  return status;
}

/// The program's end; what has not ended after `patience_ns` is killed.
int await_program(pid_t pid, const Keep& keep, std::uint64_t patience_ns) {
  const std::uint64_t until_ns = monotonic_ns() + patience_ns;
  int status = 0;
  for (bool killed = false; ::waitpid(pid, &status, WNOHANG) == 0; ::usleep(1000)) {
    if (killed || monotonic_ns() < until_ns) continue;
    keep.kill(pid);
    killed = true;
  }
  return status;
}

bool is_good(int status) { return WIFEXITED(status) && WEXITSTATUS(status) == 0; }

/// How the processes ended, as waitpid() has it.
struct Ends {
  int agent = 0;
  std::optional<int> program;

  /// Whether the program ended first.
  [[nodiscard]] bool by_program() const {
    return WIFEXITED(agent) && WEXITSTATUS(agent) == kProgramEnded && program;
  }
  /// Nothing when that was well, else why not.
  [[nodiscard]] std::optional<std::string> why_bad() const {
    if (is_good(agent) || (by_program() && is_good(*program))) return std::nullopt;
    return by_program() ? "the program " + ending(*program) : "the agent " + ending(agent);
  }
};

/// Starts the program, if there is one, then the agent, and waits for both. `kept`: descriptors of the agent.
/// `ended_well`: called as soon as the agent has. `patience_ns`: of a program that has closed its output.
Result<Ends> run_both(const Keep& keep, Settings& settings, const std::vector<int>& kept, const Work& work,
                      const std::function<Status()>& ended_well, std::uint64_t patience_ns) {
  std::optional<Pipes> pipes;
  std::optional<pid_t> program;
  if (!settings.command.empty()) {
    Pipe in = ANIC_TRY(Pipe::make());
    Pipe out = ANIC_TRY(Pipe::make());
    Pipe errors = ANIC_TRY(Pipe::make());
    program = ANIC_TRY(
        keep.start(settings.confinement, [&] { return be_program(keep, settings, in, out, errors); }));
    pipes = Pipes{std::move(in.write), std::move(out.read), std::move(errors.read)};
  }
  Confinement offline = settings.confinement;
  offline.network = false;
  const pid_t agent = ANIC_TRY(keep.start(offline, [&] {
    return be_agent(keep, offline, kept, std::move(pipes), std::move(settings.record), work);
  }));
  pipes.reset();
  Ends ends;
  ends.agent = await_agent(agent);
  if (is_good(ends.agent)) ANIC_TRY(ended_well());
  // A program that has closed its output is about to end; any other has nobody to talk to.
  if (program) {
    ends.program = 0;
    const bool about_to_end = ends.by_program();
    ends.program = await_program(*program, keep, about_to_end ? patience_ns : 0);
  }
  return ends;
}

/// Closes the session of an agent that has ended well.
Status close(kern::Session& session) {
  const std::uint64_t id = session.id();
  if (!ANIC_TRY(session.close())) return ended_by_guardian(id);
  return {};
}

/// Leaves the session of one that has not to the guardian: an error.
Status leave(kern::Session& session, const kern::Maps& maps, const std::string& why) {
  const auto row = ANIC_TRY(session.look(maps));
  if (row && row->heard_ns == 0) {  // the guardian would wait for it to begin
    ANIC_TRY(session.close());
    return fail(Exit::Failed, why, "it had not begun, and its session was closed");
  }
  session.abandon();
  return fail(Exit::Failed, why,
              row ? "the guardian enters fail-safe as soon as the heartbeat is missed"
                  : "the guardian had ended its session: agentnic-audit tail says why");
}

}  // namespace

Status run(const kern::PinDir& dir, const kern::Maps& maps, Start start, Settings settings) {
  catch_stop_signals();
  kern::Session session = ANIC_TRY(kern::Session::open(dir, maps, start.session));
  start.hello.session = session.id();
  const Keep keep{ANIC_TRY(
      Cgroup::make(fmt::format("session-{}", session.id()), settings.processes, settings.memory_bytes))};
  const auto work = [&](std::optional<Pipes> pipes, UniqueFd record) {
    auto chosen =
        Chosen::make(std::move(pipes), *settings.decider, std::move(record), start.hello, start.names);
    if (!chosen) return report(chosen.error());
    const auto ended = run_loop(session, **chosen, Observer(start.names), start.loop);
    return ended ? 0 : chosen->failed(ended.error());
  };
  const Ends ends = ANIC_TRY(run_both(
      keep, settings, {session.ring_fd(), session.page_fd(), session.drain_fd()}, work,
      [&] { return close(session); }, std::min(kEndingNs, start.heartbeat_ns / 2)));
  if (const auto why = ends.why_bad()) return leave(session, maps, *why);
  if (ends.by_program()) ANIC_TRY(close(session));
  return {};
}

Result<int> run_replay(UniqueFd recording, Settings settings, bool confined,
                       const std::function<int(const Replayed&)>& report_result) {
  catch_stop_signals();
  Keep keep;
  if (confined)
    keep.cgroup.emplace(ANIC_TRY(Cgroup::make("replay", settings.processes, settings.memory_bytes)));
  const auto work = [&](std::optional<Pipes> pipes, UniqueFd record) {
    auto begun = Recording::begin(std::move(recording));
    if (!begun) return report(begun.error());
    const Decider decider = settings.decider.value_or(begun->decider());
    if (!pipes && decider.controller.empty())
      return report({.exit = Exit::BadInput,
                     .what = "the recording is that of a program",
                     .hint = "--exec PROGRAM ARGUMENTS..., or --controller NAME"});
    auto chosen =
        Chosen::make(std::move(pipes), decider, std::move(record), begun->told().hello, begun->told().names);
    if (!chosen) return report(chosen.error());
    const auto replayed = replay(*begun, **chosen);
    return replayed ? report_result(*replayed) : chosen->failed(replayed.error());
  };
  const Ends ends =
      ANIC_TRY(run_both(keep, settings, {recording.get()}, work, [] { return Status(); }, kEndingNs));
  if (ends.by_program())
    return fail(Exit::Failed, "the program " + ending(*ends.program) + " before the recording did");
  if (!WIFEXITED(ends.agent)) return fail(Exit::Failed, *ends.why_bad());
  return WEXITSTATUS(ends.agent);  // which has said why
}

}  // namespace agentnic::agent
