// SPDX-License-Identifier: Apache-2.0
#include "cli/load/serve.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <linux/capability.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "base/clock.hpp"
#include "base/stop.hpp"
#include "base/user.hpp"
#include "cli/common/names.hpp"
#include "cli/load/grants.hpp"
#include "cli/load/metrics.hpp"
#include "kern/queue_rules.hpp"

namespace agentnic::cli {
namespace {

constexpr std::size_t kWaitingMax = 32;           // connections that have not asked yet
constexpr std::uint64_t kAskNs = 1'000'000'000;   // that long they may take to
constexpr std::uint64_t kLookNs = 1'000'000'000;  // between two looks at the interface
constexpr int kBacklog = 32;
constexpr unsigned kSaidMax = 20;  // lines between two looks
constexpr const char* kRunDir = "/run/agentnic";

struct ServeOptions {
  std::string ifname;
  std::string netns;
  std::string socket;
  std::string metrics;
  std::uint32_t frames_max = 1 << 16;
  std::vector<std::uint32_t> zero_copy_queues;
  bool steered_elsewhere = false;
  bool dry_run = false;
  bool json = false;
};

void say(const std::string& text) { std::cerr << "agentnic-load: " << text << std::endl; }

std::string socket_path(const ServeOptions& options) {
  if (!options.socket.empty()) return options.socket;
  return path::xsk_socket_path(options.netns.empty() ? options.ifname : options.netns + "-" + options.ifname);
}

/// Whether somebody listens at this path; a file that nobody listens at is what a killed serve left.
bool somebody_listens(const sockaddr_un& address) {
  const UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  return ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ||
         errno != ECONNREFUSED;
}

constexpr int kLockTries = 50;  // anybody who can read the directory can lock it
constexpr std::chrono::milliseconds kLockPause(20);

/// Of the directory that a path is in: who looks whether somebody listens there, and takes the place of what
/// a killed serve left, does so alone.
Result<UniqueFd> lock_directory_of(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  const std::string directory = parent.empty() ? "." : parent.string();
  UniqueFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, fmt::format("lock {}", directory));
  for (int tries = 0; ::flock(fd.get(), LOCK_EX | LOCK_NB) != 0; ++tries) {
    if (errno != EWOULDBLOCK || tries == kLockTries)
      return fail_errno(errno, fmt::format("lock {}", directory), "somebody holds a lock on this directory");
    std::this_thread::sleep_for(kLockPause);
  }
  return fd;
}

/// Anybody may ask: who it is, the kernel says.
class Listener final {
 public:
  static Result<Listener> open(const std::string& path) {
    Listener made;
    if (const int count = ::sd_listen_fds(1); count > 0) {
      made.fd_.reset(SD_LISTEN_FDS_START);
      if (count != 1 || ::sd_is_socket(SD_LISTEN_FDS_START, AF_UNIX, SOCK_SEQPACKET, 1) <= 0)
        return fail(Exit::BadInput, "serve: what systemd handed over is no unix socket that listens",
                    "ListenSequentialPacket=");
      return made;
    }
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof(address.sun_path))
      return fail(Exit::BadInput, fmt::format("serve: the path {} is too long for a unix socket", path));
    std::memcpy(address.sun_path, path.data(), path.size());
    const std::string what = fmt::format("listen at {}", path);
    if (path.starts_with(std::string(kRunDir) + "/") && ::mkdir(kRunDir, 0755) == 0) ::chmod(kRunDir, 0755);
    const UniqueFd lock = ANIC_TRY(lock_directory_of(path));
    struct stat info{};
    if (::lstat(path.c_str(), &info) == 0) {
      if (!S_ISSOCK(info.st_mode))
        return fail(Exit::BadInput, what + ": there is something that is no socket");
      if (somebody_listens(address)) return fail(Exit::Failed, what + ": another agentnic-load serve does");
      ::unlink(path.c_str());
    }
    made.fd_.reset(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const mode_t usual = ::umask(0111);  // anybody may ask
    const bool bound =
        made.fd_ && ::bind(made.fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
    const int code = errno;
    ::umask(usual);
    if (!bound) return fail_errno(code, what);
    made.path_ = path;
    if (::listen(made.fd_.get(), kBacklog) != 0) return fail_errno(errno, what);
    return made;
  }
  Listener(Listener&& other) noexcept : fd_(std::move(other.fd_)), path_(std::exchange(other.path_, {})) {}
  Listener& operator=(Listener&&) = delete;
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  ~Listener() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  Listener() = default;
  UniqueFd fd_;
  std::string path_;  ///< empty: systemd's
};

/// A connection that has not asked yet.
struct Waiting {
  UniqueFd fd;
  std::uint64_t until_ns = 0;
};

class Server final {
 public:
  Server(Listener listener, Grants grants) : listener_(std::move(listener)), grants_(std::move(grants)) {}

  Status open_metrics(const std::string& address) {
    metrics_ = ANIC_TRY(MetricsServer::open(
        address, [this] { return metrics_text(grants_.ifname(), grants_.pages(), counters_); }));
    return {};
  }

  Result<int> run() {
    const WakeUps wake_ups;
    std::uint64_t look_ns = 0;
    std::uint64_t watchdog_us = 0;
    ::sd_watchdog_enabled(0, &watchdog_us);
    ::sd_notify(0, "READY=1");
    while (!stop_requested()) {
      const std::uint64_t now_ns = monotonic_ns();
      if (now_ns >= look_ns) {
        said_ = 0;
        look_ns = now_ns + (watchdog_us == 0 ? kLookNs : std::min(kLookNs, watchdog_us * 1000 / 3));
        ::sd_notify(0, "WATCHDOG=1");
        if (const auto ended = grants_.ended()) {
          if (ended->exit != Exit::Done) return fail(*ended);
          say(ended->what);
          return 0;
        }
      }
      wait(static_cast<int>((look_ns - now_ns) / 1'000'000) + 1);
    }
    return 0;
  }

 private:
  void wait(int timeout_ms) {
    std::vector<pollfd> list = {{listener_.fd(), POLLIN, 0}, {metrics_ ? metrics_->fd() : -1, POLLIN, 0}};
    for (const Waiting& one : waiting_) list.push_back({one.fd.get(), POLLIN, 0});
    if (!waiting_.empty()) timeout_ms = std::min(timeout_ms, kStopCheckMs);
    if (metrics_) timeout_ms = metrics_->timeout_ms(timeout_ms);
    if (::poll(list.data(), list.size(), timeout_ms) < 0) return;
    if (metrics_) metrics_->run();
    // One at a time: a grant takes a while, and the watchdog waits.
    for (std::size_t i = 0; i < waiting_.size(); ++i) {
      if (list[2 + i].revents == 0) continue;
      hear(waiting_[i]);
      break;
    }
    std::erase_if(waiting_,
                  [now = monotonic_ns()](const Waiting& one) { return !one.fd || one.until_ns < now; });
    if (list[0].revents != 0) accept();
  }

  void accept() {
    UniqueFd fd(::accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd) return;
    if (waiting_.size() == kWaitingMax)
      waiting_.erase(waiting_.begin());  // who waits longest has had its time
    waiting_.push_back({std::move(fd), monotonic_ns() + kAskNs});
  }

  /// One request; the connection ends with its answer.
  void hear(Waiting& one) {
    std::byte message[sizeof(path::XskAsk) + 1];
    const ssize_t got = ::recv(one.fd.get(), message, sizeof(message), MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return;
    const UniqueFd fd = std::move(one.fd);
    ucred peer{};
    socklen_t size = sizeof(peer);
    if (got <= 0 || ::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return;
    auto granted = grant({message, static_cast<std::size_t>(got)}, peer.uid);
    const Status sent =
        granted ? path::send_grant(fd.get(), *granted) : path::send_refusal(fd.get(), granted.error());
    if (granted && sent) {
      ++counters_.grants;
    } else {
      ++counters_.refusals;
    }
    tell(peer, granted, sent);
  }

  Result<path::XskGrant> grant(std::span<const std::byte> message, uid_t uid) {
    return grants_.make(ANIC_TRY(path::read_ask(message)), uid);
  }

  void tell(const ucred& peer, const Result<path::XskGrant>& granted, const Status& sent) {
    if (++said_ > kSaidMax) return;  // they are counted
    const std::string who = fmt::format("user {} (process {})", peer.uid, peer.pid);
    if (granted && sent) {
      std::vector<std::string> queues;
      for (const auto& one : granted->queues)
        queues.push_back(fmt::format("{} ({})", one.queue, one.zero_copy ? "zerocopy" : "copy"));
      say(fmt::format("{}: queues {} of {}, {} frames of {} B{}", who, fmt::join(queues, ", "),
                      grants_.ifname(), granted->shape.frames, granted->shape.frame_bytes,
                      granted->huge_pages ? ", huge pages" : ""));
    } else {
      say(fmt::format("{}: {}", who, granted ? sent.error().text() : granted.error().text()));
    }
  }

  Listener listener_;
  Grants grants_;
  ServeCounters counters_;
  std::optional<MetricsServer> metrics_;
  std::vector<Waiting> waiting_;
  unsigned said_ = 0;  ///< lines since the last look
};

std::vector<kern::QueueService> queue_services(const std::vector<kern::XskService>& services) {
  std::vector<kern::QueueService> list;
  for (const kern::XskService& one : services)
    list.push_back({.name = one.name, .protocol = one.protocol, .port = one.port, .role = one.role});
  return list;
}

Json services_json(const std::vector<kern::XskService>& services) {
  Json list = Json::array();
  for (const kern::XskService& one : services)
    list.push_back({{"name", one.name},
                    {"protocol", policy::protocol_name(one.protocol)},
                    {"port", one.port},
                    {"owner_uid", one.owner == ANIC_NO_OWNER ? Json(nullptr) : Json(one.owner)}});
  return list;
}

Result<int> forecast(const ServeOptions& options, const std::vector<kern::XskService>& services,
                     const std::optional<kern::QueuePlan>& plan) {
  const std::vector<std::string> steps = plan ? kern::ethtool_lines(*plan) : std::vector<std::string>{};
  if (options.json) {
    print_json({{"schema", "agentnic.xsk_serve/1"},
                {"dry_run", true},
                {"interface", options.ifname},
                {"socket", socket_path(options)},
                {"services", services_json(services)},
                {"steps", steps}});
    return 0;
  }
  std::cout << fmt::format("would hand out AF_XDP sockets of {} at {}; nothing was changed\n", options.ifname,
                           socket_path(options));
  for (const kern::XskService& one : services)
    std::cout << fmt::format(
        "  service {} ({} {}): {}\n", one.name, policy::protocol_name(one.protocol), one.port,
        one.owner == ANIC_NO_OWNER ? "nobody may own it" : fmt::format("user {}", one.owner));
  for (const std::string& step : steps) std::cout << "  " << step << '\n';
  return 0;
}

Result<int> serve(const ServeOptions& options) {
  const kern::NetNs netns = ANIC_TRY(kern::NetNs::open_or_current(options.netns));
  ANIC_TRY(kern::need_privileges("serve " + options.ifname));
  const auto status = ANIC_TRY(kern::need_attached(netns, options.ifname, "serve AF_XDP sockets of"));
  Grants grants = ANIC_TRY(Grants::open(
      netns, status, options.steered_elsewhere ? options.zero_copy_queues : std::vector<std::uint32_t>{},
      options.frames_max));
  const auto services = ANIC_TRY(grants.services());
  std::optional<kern::QueuePlan> plan;
  const auto aside = [&](std::uint32_t queue) { return kern::is_set_aside(status.dir, queue); };
  if (!options.steered_elsewhere &&
      !std::ranges::all_of(options.zero_copy_queues, aside))  // not by one before us
    plan = ANIC_TRY(
        kern::plan_queues(netns, options.ifname, options.zero_copy_queues, queue_services(services)));
  if (options.dry_run) return forecast(options, services, plan);
  ANIC_TRY(netns.run([] { return path::can_hand_over(); }));

  catch_stop_signals();
  Listener listener = ANIC_TRY(Listener::open(socket_path(options)));
  Server server(std::move(listener), std::move(grants));
  if (!options.metrics.empty()) ANIC_TRY(server.open_metrics(options.metrics));
  if (plan) ANIC_TRY(kern::set_aside(netns, *plan, status.dir));
  ANIC_TRY(netns.enter());
  ANIC_TRY(keep_capabilities({CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF, CAP_IPC_LOCK}));
  if (options.json) {
    std::cout << Json{{"schema", "agentnic.xsk_serve/1"},
                      {"dry_run", false},
                      {"interface", options.ifname},
                      {"socket", socket_path(options)},
                      {"services", services_json(services)}}
                     .dump()
              << std::endl;
  } else {
    std::cout
        << fmt::format(
               "handing out AF_XDP sockets of {}{} at {}; Ctrl-C ends it, and leaves them to their owners",
               options.ifname, netns.suffix(), socket_path(options))
        << std::endl;
  }
  return server.run();
}

}  // namespace

void add_serve(Program& program) {
  const auto options = std::make_shared<ServeOptions>();
  auto* command =
      program.command("serve", "hand AF_XDP sockets to unprivileged programs, as the policy allows",
                      [options] { return serve(*options); });
  command->add_option("IFACE", options->ifname, "interface")->required();
  command->add_option("--netns", options->netns, "look for it in this network namespace (ip netns)");
  command->add_option("--socket", options->socket, "where to listen; /run/agentnic/xsk-IFACE unless stated");
  command->add_option("--metrics", options->metrics,
                      "ADDRESS:PORT of GET /metrics for Prometheus; none unless stated");
  command->add_option("--frames-max", options->frames_max, "of memory that an owner may ask for")
      ->check(CLI::Range(path::kXskFramesMin, path::kXskFramesMax))
      ->capture_default_str();
  command
      ->add_option("--zero-copy-queues", options->zero_copy_queues,
                   "set these queues aside for zero-copy: out of RSS, fed by flow rules, until detach")
      ->delimiter(',');
  command
      ->add_flag("--steered-elsewhere", options->steered_elsewhere,
                 "something else keeps RSS off these queues, such as the host of a virtual machine; change "
                 "nothing in the NIC")
      ->needs("--zero-copy-queues");
  command->add_flag("--dry-run", options->dry_run, "say who may own what, and what would change in the NIC");
  command->add_flag("--json", options->json, "print JSON; units are in the key names");
}

}  // namespace agentnic::cli
