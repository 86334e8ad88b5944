// SPDX-License-Identifier: Apache-2.0
#include "agent/sandbox.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/bpf.h>
#include <linux/landlock.h>
#include <linux/mount.h>
#include <linux/netlink.h>
#include <linux/sched.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <memory>
#include <utility>
#include <vector>

#include "base/unique_fd.hpp"
#include "base/user.hpp"

namespace agentnic::agent {
namespace {

constexpr std::uint64_t kNamespaces = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS;

struct ReleaseFilter {
  void operator()(void* filter) const noexcept { ::seccomp_release(filter); }
};
using Filter = std::unique_ptr<void, ReleaseFilter>;

/// Adds rules, and keeps the first error.
class Rules {
 public:
  explicit Rules(std::uint32_t otherwise) : filter_(::seccomp_init(otherwise)) {}

  /// `call`: its number, which libseccomp may have no name for.
  template <typename... Arguments>
  void add(std::uint32_t action, long call, Arguments... arguments) {
    const auto number = static_cast<int>(call);
    const std::array<scmp_arg_cmp, sizeof...(arguments)> list{arguments...};
    const int code = ::seccomp_rule_add_array(filter_.get(), action, number,
                                              static_cast<unsigned>(list.size()), list.data());
    if (code != 0 && code_ == 0) code_ = code;
  }

  Status load() {
    if (!filter_) return fail(Exit::Failed, "make a seccomp filter");
    if (code_ == 0) code_ = ::seccomp_load(filter_.get());
    if (code_ != 0) return fail_errno(code_, "put a seccomp filter in force");
    return {};
  }

 private:
  Filter filter_;
  int code_ = 0;
};

constexpr std::uint32_t kRefused = SCMP_ACT_ERRNO(EPERM);

/// None, but for pairs that are connected: one of datagrams could send to any socket with a path.
void refuse_sockets(Rules& rules) {
  constexpr std::uint64_t kTypeMask = 0xf;  // the kernel's, beside flags
  rules.add(kRefused, SYS_socket);
  for (std::uint64_t type = 0; type <= kTypeMask; ++type) {
    if (type != SOCK_STREAM && type != SOCK_SEQPACKET)
      rules.add(kRefused, SYS_socketpair, SCMP_A1_64(SCMP_CMP_MASKED_EQ, kTypeMask, type));
  }
}

/// Those of the Internet, of the host, and of what names and addresses there are: no kernel crypto, no
/// virtual machines, no sock_diag, which tells of all connections.
void allow_known_sockets(Rules& rules) {
  constexpr std::uint64_t kLast = AF_NETLINK;
  for (std::uint64_t family = 0; family < kLast; ++family) {
    if (family != AF_UNIX && family != AF_INET && family != AF_INET6)
      rules.add(kRefused, SYS_socket, SCMP_A0_64(SCMP_CMP_EQ, family));
  }
  rules.add(kRefused, SYS_socket, SCMP_A0_64(SCMP_CMP_GT, kLast));
  rules.add(kRefused, SYS_socket, SCMP_A0_64(SCMP_CMP_EQ, kLast),
            SCMP_A2_64(SCMP_CMP_NE, std::uint64_t{NETLINK_ROUTE}));
}

Status set_mount_attributes(int fd, const char* path, unsigned flags, std::uint64_t set,
                            std::uint64_t clear) {
  mount_attr attributes{};
  attributes.attr_set = set;
  attributes.attr_clr = clear;
  if (::syscall(SYS_mount_setattr, fd, path, flags, &attributes, sizeof(attributes)) != 0)
    return fail_errno(errno, fmt::format("change the mount {}", path));
  return {};
}

/// A mount of a device, for another place.
struct Device {
  const char* path;
  UniqueFd mount;
};

/// A /dev with places for devices that nobody talks to others by, and nothing else; and these devices.
Result<std::vector<Device>> make_devices() {
  std::vector<Device> devices;
  for (const char* path : {"/dev/full", "/dev/null", "/dev/random", "/dev/urandom", "/dev/zero"}) {
    UniqueFd mount(::open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
    if (!mount && errno == ENOENT) continue;
    if (!mount) return fail_errno(errno, fmt::format("open the mount {}", path));
    ANIC_TRY(set_mount_attributes(mount.get(), "", AT_EMPTY_PATH,
                                  MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
                                  MOUNT_ATTR_NODEV));
    devices.push_back({.path = path, .mount = std::move(mount)});
  }
  if (::mount("tmpfs", "/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755") != 0)
    return fail_errno(errno, "mount /dev");
  for (const Device& device : devices) {
    const UniqueFd place(::open(device.path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    if (!place) return fail_errno(errno, fmt::format("make {}", device.path));
  }
  for (const auto& [path, target] : {std::pair{"/dev/fd", "/proc/self/fd"},
                                     {"/dev/stdin", "/proc/self/fd/0"},
                                     {"/dev/stdout", "/proc/self/fd/1"},
                                     {"/dev/stderr", "/proc/self/fd/2"}}) {
    if (::symlink(target, path) != 0) return fail_errno(errno, fmt::format("make {}", path));
  }
  return devices;
}

/// Opens nothing to write to, but below /dev: FIFOs of others can be written to on file systems that are
/// read-only. Where the kernel has Landlock.
Status refuse_writing() {
  landlock_ruleset_attr handled{};
  handled.handled_access_fs = LANDLOCK_ACCESS_FS_WRITE_FILE;
  const UniqueFd rules(
      static_cast<int>(::syscall(SYS_landlock_create_ruleset, &handled, sizeof(handled), 0)));
  if (!rules && (errno == ENOSYS || errno == EOPNOTSUPP)) return {};
  const UniqueFd dev(::open("/dev", O_PATH | O_CLOEXEC));
  landlock_path_beneath_attr allowed{};
  allowed.allowed_access = LANDLOCK_ACCESS_FS_WRITE_FILE;
  allowed.parent_fd = dev.get();
  if (!rules || !dev ||
      ::syscall(SYS_landlock_add_rule, rules.get(), LANDLOCK_RULE_PATH_BENEATH, &allowed, 0) != 0 ||
      ::syscall(SYS_landlock_restrict_self, rules.get(), 0) != 0)
    return fail_errno(errno, "have Landlock refuse writing");
  return {};
}

/// Its own /proc, /dev, and, unless it uses the host's network, its own /sys, which has neither pins nor
/// cgroups; and nothing that can be written to.
Status make_read_only(bool network) {
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return fail_errno(errno, "make mounts private");
  if (::mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0)
    return fail_errno(errno, "mount /proc");
  if (!network && ::mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0)
    return fail_errno(errno, "mount /sys");
  const std::vector<Device> devices = ANIC_TRY(make_devices());
  ANIC_TRY(set_mount_attributes(AT_FDCWD, "/", AT_RECURSIVE,
                                MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, 0));
  for (const Device& device : devices) {
    if (::move_mount(device.mount.get(), "", AT_FDCWD, device.path, MOVE_MOUNT_F_EMPTY_PATH) != 0)
      return fail_errno(errno, fmt::format("mount {}", device.path));
  }
  return refuse_writing();
}

/// A copy of this process that calls `run`.
Result<pid_t> start(std::uint64_t flags, int cgroup, const std::function<int()>& run) {
  clone_args arguments{};
  arguments.flags = flags;
  arguments.exit_signal = SIGCHLD;
  arguments.cgroup = static_cast<__u64>(cgroup);
  const long pid = ::syscall(SYS_clone3, &arguments, sizeof(arguments));
  if (pid < 0) return fail_errno(errno, "start a process in namespaces of its own");
  if (pid == 0) ::_exit(run());
  return static_cast<pid_t>(pid);
}

/// From now on the kernel kills this process when who started it ends. `is_there`: whether it has not ended
/// yet; asked after that.
void end_with_supervisor(const std::function<bool()>& is_there) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (!is_there()) ::_exit(1);
}

void end_with_holder(const Cgroup& cgroup) {
  end_with_supervisor([&] { return cgroup.is_held(); });
}

}  // namespace

Result<Confinement> confinement_of(const std::string& user) {
  const User found = ANIC_TRY(find_user(user, "--user"));
  return Confinement{.uid = found.uid, .gid = found.gid, .network = false};
}

Result<pid_t> start_confined(const Cgroup& cgroup, const Confinement& confinement,
                             const std::function<int()>& run) {
  return start(kNamespaces | CLONE_INTO_CGROUP | (confinement.network ? 0 : CLONE_NEWNET), cgroup.fd(), [&] {
    end_with_holder(cgroup);
    cgroup.leave_to_holder();
    return run();
  });
}

Result<pid_t> start_unconfined(const std::function<int()>& run) {
  return start(0, 0, [&run, supervisor = ::getpid()] {
    end_with_supervisor([&] { return ::getppid() == supervisor; });
    return run();
  });
}

Status give_up_chances() {
  if (::setsid() < 0) return fail_errno(errno, "begin a session");  // no terminal to write to
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return fail_errno(errno, "set no_new_privs");
  return {};
}

Status give_up_privileges(const Cgroup& cgroup, const Confinement& confinement) {
  ANIC_TRY(cgroup.join());
  ANIC_TRY(make_read_only(confinement.network));
  const rlimit none{.rlim_cur = 0, .rlim_max = 0};
  ::setrlimit(RLIMIT_CORE, &none);
  ANIC_TRY(become_user({.uid = confinement.uid, .gid = confinement.gid}));
  ANIC_TRY(give_up_chances());
  end_with_holder(cgroup);  // who becomes another user has no death signal any more
  return {};
}

Status allow_drains_alone() {
  Rules rules(kRefused);
  for (const char* name :
       {"read",          "readv",           "write",           "writev",       "poll",   "ppoll",
        "clock_gettime", "clock_nanosleep", "nanosleep",       "gettimeofday", "munmap", "mremap",
        "brk",           "madvise",         "futex",           "close",        "exit",   "exit_group",
        "rt_sigreturn",  "rt_sigprocmask",  "restart_syscall", "sched_yield",  "getpid", "gettid",
        "getrandom",     "fstat",           "newfstatat",      "lseek",        "fsync",  "fdatasync"}) {
    const int call = ::seccomp_syscall_resolve_name(name);
    if (call != __NR_SCMP_ERROR) rules.add(SCMP_ACT_ALLOW, call);  // this machine's kernels may have none
  }
  for (const long call : {SYS_mmap, SYS_mprotect})
    rules.add(SCMP_ACT_ALLOW, call, SCMP_A2_64(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
  rules.add(SCMP_ACT_ALLOW, SYS_bpf, SCMP_A0_64(SCMP_CMP_EQ, BPF_PROG_TEST_RUN));
  return rules.load();
}

Status forbid_privileged_calls(bool network) {
  Rules rules(SCMP_ACT_ALLOW);
  for (const long call : {SYS_bpf,
                          SYS_ptrace,
                          SYS_process_vm_readv,
                          SYS_process_vm_writev,
                          SYS_process_madvise,
                          SYS_pidfd_getfd,
                          SYS_kcmp,
                          SYS_perf_event_open,
                          SYS_mount,
                          SYS_umount2,
                          SYS_pivot_root,
                          SYS_chroot,
                          SYS_move_mount,
                          SYS_open_tree,
                          SYS_fsopen,
                          SYS_fsconfig,
                          SYS_fsmount,
                          SYS_fspick,
                          SYS_mount_setattr,
                          SYS_unshare,
                          SYS_setns,
                          SYS_keyctl,
                          SYS_add_key,
                          SYS_request_key,
                          SYS_io_uring_setup,
                          SYS_io_uring_enter,
                          SYS_io_uring_register,
                          SYS_userfaultfd,
                          SYS_name_to_handle_at,
                          SYS_open_by_handle_at,
                          SYS_init_module,
                          SYS_finit_module,
                          SYS_delete_module,
                          SYS_kexec_load,
                          SYS_kexec_file_load,
                          SYS_fanotify_init,
                          SYS_acct,
                          SYS_quotactl,
                          SYS_swapon,
                          SYS_swapoff,
                          SYS_reboot,
                          SYS_syslog,
                          SYS_personality})
    rules.add(kRefused, call);
  for (const std::uint64_t flag :
       {CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWUTS, CLONE_NEWCGROUP})
    rules.add(kRefused, SYS_clone, SCMP_A0_64(SCMP_CMP_MASKED_EQ, flag, flag));
  rules.add(SCMP_ACT_ERRNO(ENOSYS), SYS_clone3);  // its flags are in memory: libraries go back to clone
  for (const std::uint64_t request : {TIOCSTI, TIOCLINUX})
    rules.add(kRefused, SYS_ioctl, SCMP_A1_64(SCMP_CMP_MASKED_EQ, 0xffffffff, request));
  // The kernel looks at 32 bits of the option. Without this signal it would outlive its supervisor.
  rules.add(kRefused, SYS_prctl, SCMP_A0_64(SCMP_CMP_MASKED_EQ, 0xffffffff, PR_SET_PDEATHSIG));
  if (network) {
    allow_known_sockets(rules);
  } else {
    refuse_sockets(rules);
  }
  return rules.load();
}

}  // namespace agentnic::agent
