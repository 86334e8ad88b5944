// SPDX-License-Identifier: Apache-2.0
//
// What those who are confined can do, and all that they try and cannot: the process that has a session, and
// the one that becomes somebody's program.

#include <bpf/bpf.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/landlock.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <catch2/catch_test_macros.hpp>
#include <cerrno>
#include <cstdint>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "agent/sandbox.hpp"
#include "base/file.hpp"
#include "base/unique_fd.hpp"
#include "guarded.hpp"

using namespace agentnic;

namespace {

enum class Kind { Agent, Program };

constexpr std::uint32_t kProcesses = 8;
constexpr std::uint64_t kMemory = 64U << 20U;
constexpr int kSucceeded = 100;  // what must not
constexpr int kNotConfined = 101;

agent::Confinement nobody() {
  const auto confinement = agent::confinement_of("nobody");
  REQUIRE(confinement);
  return *confinement;
}

/// The same in a copy of the process.
const std::string& cgroup_name() {
  static const std::string name = "test-" + std::to_string(::getpid());
  return name;
}

agent::Cgroup make_cgroup() {
  auto cgroup = agent::Cgroup::make(cgroup_name(), kProcesses, kMemory);
  if (!cgroup) FAIL(cgroup.error().text());
  return *std::move(cgroup);
}

/// Those of this test that are there, in any hierarchy.
std::vector<std::string> cgroups() {
  std::vector<std::string> found;
  for (const char* root :
       {"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/memory"}) {
    const std::string parent = std::string(root) + "/agentnic-agents";
    for (const std::string& name : list_folder(parent)) {
      if (name.starts_with(cgroup_name() + ".")) found.push_back(parent + "/" + name);
    }
  }
  return found;
}

/// Both ends of a pipe; whoever has the other end of it closed sees its end.
struct Pipe {
  std::array<int, 2> ends{};
  Pipe() { REQUIRE(::pipe(ends.data()) == 0); }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  ~Pipe() {
    close_writer();
    ::close(ends[0]);
  }
  void close_writer() {
    if (ends[1] >= 0) ::close(ends[1]);
    ends[1] = -1;
  }
  void say() const { static_cast<void>(::write(ends[1], "", 1) < 0); }
  /// Whether nobody can write to it any more, or so soon.
  [[nodiscard]] bool ends_in(int milliseconds) const {
    pollfd waiting{ends[0], 0, 0};
    return ::poll(&waiting, 1, milliseconds) == 1;
  }
  /// Whether something comes; false: nobody can write to it any more.
  [[nodiscard]] bool heard() const {
    char byte = 0;
    return ::read(ends[0], &byte, 1) == 1;
  }
};

int await(pid_t pid) {
  int status = 0;
  REQUIRE(::waitpid(pid, &status, 0) == pid);
  return status;
}

/// The exit status of what a confined process calls; -1 if it was killed.
int confined(Kind kind, const std::function<int()>& call, bool network = false) {
  agent::Confinement confinement = nobody();
  confinement.network = network;
  const agent::Cgroup cgroup = make_cgroup();
  const auto pid = agent::start_confined(cgroup, confinement, [&] {
    ::signal(SIGSEGV, SIG_DFL);  // not the test's report
    if (!agent::give_up_privileges(cgroup, confinement)) return kNotConfined;
    const auto filtered =
        kind == Kind::Agent ? agent::allow_drains_alone() : agent::forbid_privileged_calls(network);
    return filtered ? call() : kNotConfined;
  });
  REQUIRE(pid);
  const int status = await(*pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/// What a call that must fail came to: its errno.
int failed(long result) { return result < 0 ? errno : kSucceeded; }

/// The errno of `call` in both kinds, which must fail in both.
void refused(const std::function<long()>& call, int agent_errno = EPERM, int program_errno = EPERM) {
  CHECK(confined(Kind::Agent, [&] { return failed(call()); }) == agent_errno);
  CHECK(confined(Kind::Program, [&] { return failed(call()); }) == program_errno);
}

long pair_of(int type) {
  std::array<int, 2> pair{};
  return ::socketpair(AF_UNIX, type, 0, pair.data());
}

long bpf_call(bpf_cmd command, bpf_attr& attributes) {
  return ::syscall(SYS_bpf, command, &attributes, sizeof(attributes));
}

}  // namespace

TEST_CASE("sandbox: who has a session can drain it, a program that gets hold of it cannot", "[smoke]") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  const anic_draining draining = draining_at(kStart);
  const auto drain = [&]() -> long {
    bpf_attr attributes{};
    attributes.test.prog_fd = static_cast<__u32>(session.drain_fd());
    attributes.test.ctx_in = reinterpret_cast<std::uintptr_t>(&draining);
    attributes.test.ctx_size_in = sizeof(draining);
    return bpf_call(BPF_PROG_TEST_RUN, attributes);
  };
  CHECK(confined(Kind::Agent, [&] { return drain() == 0 ? 0 : 1; }) == 0);
  CHECK(session.row().heard_ns == kStart);
  CHECK(confined(Kind::Program, [&] { return failed(drain()); }) == EPERM);
}

TEST_CASE("sandbox: a lane is not changed by who holds its map") {
  Guarded guarded;
  const std::uint32_t key = ANIC_LANE(kAcme, ANIC_CLASS_RPC);
  const anic_lane lane{};
  refused([&] {
    bpf_attr attributes{};
    attributes.map_fd = static_cast<__u32>(guarded.instance().maps().fd("anic_lanes"));
    attributes.key = reinterpret_cast<std::uintptr_t>(&key);
    attributes.value = reinterpret_cast<std::uintptr_t>(&lane);
    return bpf_call(BPF_MAP_UPDATE_ELEM, attributes);
  });
}

TEST_CASE("sandbox: answers and observations are not written to by who reads them") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  refused([&] {
    void* at = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, session.page_fd(), 0);
    return at == MAP_FAILED ? -1L : 0L;
  });
}

TEST_CASE("sandbox: an agent's page has what its session was granted, and no other tenant's numbers") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything_of(1U << (kAcme - 1)), kStart);
  anic_draining draining = draining_at(kStart);
  draining.observe = 1;
  const auto others = [&] {
    bpf_attr attributes{};
    attributes.test.prog_fd = static_cast<__u32>(session.drain_fd());
    attributes.test.ctx_in = reinterpret_cast<std::uintptr_t>(&draining);
    attributes.test.ctx_size_in = sizeof(draining);
    if (bpf_call(BPF_PROG_TEST_RUN, attributes) != 0) return kNotConfined;
    void* at = ::mmap(nullptr, sizeof(anic_page), PROT_READ, MAP_SHARED, session.page_fd(), 0);
    if (at == MAP_FAILED) return kNotConfined;
    const anic_observation& seen = static_cast<const anic_page*>(at)->observation;
    int lanes = 0;
    for (const anic_observed_lane& lane : seen.lanes) {
      if (lane.tenant != 0 && lane.tenant != kAcme) return kSucceeded;
      lanes += lane.tenant == kAcme ? 1 : 0;
    }
    for (std::size_t i = 0; i < std::size(seen.tenants); ++i) {
      if (i != kAcme - 1 && seen.tenants[i].tenant != 0) return kSucceeded;
    }
    return lanes;
  };
  CHECK(confined(Kind::Agent, others) == ANIC_OBSERVED_CLASSES);
}

TEST_CASE("sandbox: no BPF program is loaded", "[smoke]") {
  constexpr std::array<bpf_insn, 2> kReturnZero = {
      {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0},
       {.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0}}};
  refused([&] {
    bpf_attr attributes{};
    attributes.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
    attributes.insns = reinterpret_cast<std::uintptr_t>(kReturnZero.data());
    attributes.insn_cnt = kReturnZero.size();
    attributes.license = reinterpret_cast<std::uintptr_t>("GPL");
    return bpf_call(BPF_PROG_LOAD, attributes);
  });
}

TEST_CASE("sandbox: no pin is opened", "[smoke]") {
  refused([] {
    bpf_attr attributes{};
    attributes.pathname = reinterpret_cast<std::uintptr_t>("/sys/fs/bpf/agentnic");
    return bpf_call(BPF_OBJ_GET, attributes);
  });
}

TEST_CASE("sandbox: no object is got by its id") {
  Guarded guarded;
  bpf_map_info info{};
  std::uint32_t size = sizeof(info);
  REQUIRE(bpf_map_get_info_by_fd(guarded.instance().maps().fd("anic_lanes"), &info, &size) == 0);
  refused([&] {
    bpf_attr attributes{};
    attributes.map_id = info.id;
    return bpf_call(BPF_MAP_GET_FD_BY_ID, attributes);
  });
}

TEST_CASE("sandbox: nobody is traced, and nobody's memory is read") {
  const pid_t parent = ::getpid();
  refused([&] { return ::ptrace(PTRACE_ATTACH, parent, nullptr, nullptr); });
  std::uint64_t word = 0;
  iovec here{&word, sizeof(word)};
  refused([&] { return ::process_vm_readv(parent, &here, 1, &here, 1, 0); });
}

TEST_CASE("sandbox: who started it, and all others, cannot be sent signals") {
  const pid_t parent = ::getpid();
  refused([&] { return ::kill(parent, 0); }, EPERM, ESRCH);  // a program does not even see them
}

TEST_CASE("sandbox: no file is written, wherever all others may write") {
  for (const char* path : {"/tmp/agentnic-test", "/var/tmp/agentnic-test"}) {
    INFO(path);
    refused([&] { return ::open(path, O_CREAT | O_WRONLY, 0600); }, EPERM, EROFS);
  }
  refused([] { return ::open("/dev/shm/agentnic-test", O_CREAT | O_WRONLY, 0600); }, EPERM, ENOENT);
}

TEST_CASE("sandbox: no device is opened, but those that nobody else hears of") {
  const std::string node = "/tmp/" + cgroup_name() + "-null";
  REQUIRE(::mknod(node.c_str(), S_IFCHR, makedev(1, 3)) == 0);
  REQUIRE(::chmod(node.c_str(), 0666) == 0);
  refused([&] { return ::open(node.c_str(), O_WRONLY); }, EPERM, EACCES);
  REQUIRE(::unlink(node.c_str()) == 0);
  refused([] { return ::open("/dev/ptmx", O_RDWR); }, EPERM, ENOENT);
  CHECK(confined(Kind::Program, [] {
          for (const std::string& name : list_folder("/dev")) {
            if (name.starts_with("std") || name == "fd") continue;
            if (::open(("/dev/" + name).c_str(), O_RDWR) < 0) return errno;
          }
          return ::open("/dev/urandom", O_RDONLY) < 0 ? errno : 0;
        }) == 0);
}

TEST_CASE("sandbox: nobody is written to by a FIFO of the host, where the kernel has Landlock") {
  if (::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION) < 1)
    SKIP("this kernel has no Landlock");
  const std::string fifo = "/tmp/" + cgroup_name() + "-fifo";
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  REQUIRE(::chmod(fifo.c_str(), 0666) == 0);
  const UniqueFd reader(::open(fifo.c_str(), O_RDONLY | O_NONBLOCK));
  refused([&] { return ::open(fifo.c_str(), O_WRONLY | O_NONBLOCK); }, EPERM, EACCES);
  REQUIRE(::unlink(fifo.c_str()) == 0);
}

TEST_CASE("sandbox: no socket is opened, by no way", "[smoke]") {
  refused([] { return ::socket(AF_INET, SOCK_DGRAM, 0); });
  refused([] { return ::socket(AF_UNIX, SOCK_STREAM, 0); });
  for (const int type : std::to_array<int>({SOCK_DGRAM, SOCK_RAW, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK}))
    refused([&] { return pair_of(type); });
  refused([] { return ::syscall(SYS_socketpair, AF_UNIX, 1ULL << 32U | SOCK_DGRAM, 0, nullptr); });
  std::array<std::uint32_t, 30> parameters{};
  refused([&] { return ::syscall(SYS_io_uring_setup, 1, parameters.data()); });
}

TEST_CASE("sandbox: a program without network has pairs of sockets that are connected to each other") {
  CHECK(confined(Kind::Program, [] { return pair_of(SOCK_STREAM | SOCK_CLOEXEC) == 0 ? 0 : 1; }) == 0);
}

TEST_CASE(
    "sandbox: a program with network has sockets of the Internet, and none that tell of others' "
    "connections") {
  const auto with_network = [](int family, int type, int protocol) {
    return confined(Kind::Program, [=] { return failed(::socket(family, type, protocol)); }, true);
  };
  CHECK(with_network(AF_INET, SOCK_STREAM, 0) == kSucceeded);
  CHECK(with_network(AF_INET6, SOCK_DGRAM, 0) == kSucceeded);
  CHECK(with_network(AF_UNIX, SOCK_DGRAM, 0) == kSucceeded);
  CHECK(with_network(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE) == kSucceeded);
  CHECK(with_network(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG) == EPERM);
  CHECK(with_network(AF_ALG, SOCK_SEQPACKET, 0) == EPERM);
  CHECK(with_network(AF_VSOCK, SOCK_STREAM, 0) == EPERM);
  CHECK(with_network(AF_PACKET, SOCK_RAW, 0) == EPERM);
  CHECK(with_network(AF_UNSPEC, SOCK_DGRAM, 0) == EPERM);
}

#ifdef __x86_64__
TEST_CASE("sandbox: calls of other tables of the kernel end a process") {
  constexpr long kGetpidOf32Bits = 20;
  constexpr long kX32 = 0x40000000;
  for (const Kind kind : {Kind::Agent, Kind::Program}) {
    CHECK(confined(kind, [] {
            long answer = kGetpidOf32Bits;
            asm volatile("int $0x80" : "+a"(answer) : : "memory");
            return 0;
          }) == -1);
    CHECK(confined(kind, [] { return failed(::syscall(kX32 | SYS_getpid)); }) == -1);
  }
}
#endif

TEST_CASE("sandbox: no privilege is got back") {
  refused([] { return ::setuid(0); });
  refused([] { return ::unshare(CLONE_NEWUSER); });
  refused([] { return ::mount("none", "/tmp", "tmpfs", 0, nullptr); });
  refused([] { return ::setns(::open("/proc/1/ns/net", O_RDONLY), CLONE_NEWNET); });
}

TEST_CASE("sandbox: nobody gets out of ending with its supervisor", "[smoke]") {
  refused([] { return ::prctl(PR_SET_PDEATHSIG, 0); });
  refused([] { return ::syscall(SYS_prctl, 1ULL << 32U | PR_SET_PDEATHSIG, 0); });  // as the kernel reads it
}

TEST_CASE("sandbox: an agent starts nothing") {
  CHECK(confined(Kind::Agent, [] { return failed(::fork()); }) == EPERM);
  CHECK(confined(Kind::Agent, [] { return failed(::execl("/bin/true", "true", nullptr)); }) == EPERM);
}

TEST_CASE("sandbox: a program starts no more than it may have, and what it starts ends with it") {
  const agent::Confinement confinement = nobody();
  const agent::Cgroup cgroup = make_cgroup();
  Pipe pipe;
  const auto pid = agent::start_confined(cgroup, confinement, [&] {
    if (!agent::give_up_privileges(cgroup, confinement) || !agent::forbid_privileged_calls(false))
      return kNotConfined;
    int started = 0;
    for (; started <= static_cast<int>(kProcesses); ++started) {
      const pid_t child = ::fork();
      if (child < 0) break;
      if (child != 0) continue;
      ::setsid();  // away from whoever might look for it
      for (;;) ::pause();
    }
    return started;
  });
  pipe.close_writer();
  REQUIRE(pid);
  const int status = await(*pid);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == static_cast<int>(kProcesses) - 1);
  CHECK(pipe.ends_in(10'000));
}

TEST_CASE("sandbox: who takes more memory than it may have is killed, and nobody else") {
  const int outcome = confined(Kind::Program, [] {
    constexpr std::size_t kTooMuch = 4 * kMemory;
    auto* bytes = static_cast<volatile char*>(
        ::mmap(nullptr, kTooMuch, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (bytes == MAP_FAILED) return 1;
    for (std::size_t i = 0; i < kTooMuch; i += 4096) bytes[i] = 1;
    return 0;
  });
  CHECK(outcome == -1);
}

TEST_CASE("sandbox: a cgroup takes what is in it along, and leaves nothing") {
  const agent::Confinement confinement = nobody();
  pid_t pid = -1;
  {
    const agent::Cgroup cgroup = make_cgroup();
    const auto started = agent::start_confined(cgroup, confinement, [] {
      for (;;) ::pause();
      return 0;
    });
    REQUIRE(started);
    pid = *started;
    cgroup.kill();
    const int status = await(pid);
    CHECK(WIFSIGNALED(status));
  }
  CHECK(cgroups().empty());
}

TEST_CASE("sandbox: who outlives its supervisor ends when the next agent starts", "[alone]") {
  REQUIRE(cgroups().empty());
  Pipe alive;
  Pipe ready;
  const pid_t supervisor = ::fork();
  if (supervisor == 0) {
    const agent::Cgroup cgroup = make_cgroup();
    const auto pid = agent::start_confined(cgroup, nobody(), [&] {
      ::prctl(PR_SET_PDEATHSIG, 0);
      ready.say();
      for (;;) ::pause();
      return 0;
    });
    for (;;) ::pause();
  }
  alive.close_writer();
  REQUIRE(ready.heard());
  ::kill(supervisor, SIGKILL);
  await(supervisor);
  CHECK_FALSE(alive.ends_in(100));
  {
    const agent::Cgroup next = make_cgroup();
    CHECK(alive.ends_in(10'000));
  }
  CHECK(cgroups().empty());
}

TEST_CASE("sandbox: who loses its supervisor while it gives up privileges goes no further") {
  Pipe supervised;
  Pipe alive;
  Pipe ready;
  const pid_t supervisor = ::fork();
  if (supervisor == 0) {
    const agent::Cgroup cgroup = make_cgroup();
    const auto pid = agent::start_confined(cgroup, nobody(), [&] {
      supervised.close_writer();
      ::prctl(PR_SET_PDEATHSIG, 0);  // as it is for a moment when the user changes
      ready.say();
      if (!supervised.ends_in(10'000)) return 1;
      if (!agent::give_up_privileges(cgroup, nobody())) return 1;
      ready.say();
      for (;;) ::pause();
    });
    for (;;) ::pause();
  }
  supervised.close_writer();
  alive.close_writer();
  REQUIRE(ready.heard());
  ready.close_writer();
  ::kill(supervisor, SIGKILL);
  await(supervisor);
  CHECK(alive.ends_in(10'000));
  CHECK_FALSE(ready.heard());  // it did not get there
  static_cast<void>(make_cgroup());
}

TEST_CASE("sandbox: two agents that start at once leave each other's cgroup alone") {
  const agent::Cgroup first = make_cgroup();
  const agent::Cgroup second = make_cgroup();  // before there is anybody in the first
  for (const agent::Cgroup* cgroup : {&first, &second}) {
    const auto pid =
        agent::start_confined(*cgroup, nobody(), [&] { return cgroup->join() ? 0 : kNotConfined; });
    REQUIRE(pid);
    CHECK(await(*pid) == 0);
  }
}

TEST_CASE("sandbox: what is swapped out counts as memory, where the kernel counts it") {
  const agent::Cgroup cgroup = make_cgroup();
  int counted = 0;
  for (const std::string& folder : cgroups()) {
    for (const auto& [file, wanted] : {std::pair<std::string, std::string>{"memory.swap.max", "0\n"},
                                       {"memory.memsw.limit_in_bytes", std::to_string(kMemory) + "\n"}}) {
      std::ifstream limit(folder + "/" + file);
      const std::string text{std::istreambuf_iterator<char>(limit), {}};
      if (text.empty()) continue;
      CHECK(text == wanted);
      ++counted;
    }
  }
  if (counted == 0) SKIP("this kernel does not count swap");
}

TEST_CASE("sandbox: it is for users without privileges that there are") {
  CHECK_FALSE(agent::confinement_of("root"));
  CHECK_FALSE(agent::confinement_of("no-such-user"));
}
