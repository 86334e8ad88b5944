// SPDX-License-Identifier: Apache-2.0
#include "lab/topology.hpp"

#include <fmt/format.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/process.hpp"
#include "kern/bpffs.hpp"

namespace agentnic::lab {
namespace {

constexpr const char* kNamedDir = "/run/netns";

bool exists(const Host& host) {
  return ::access(fmt::format("{}/{}", kNamedDir, host.netns).c_str(), F_OK) == 0;
}

Status ip(const Argv& words) {
  Argv argv = {"ip"};
  argv.insert(argv.end(), words.begin(), words.end());
  ANIC_TRY(run_program(argv));
  return {};
}

/// Runs a program inside the namespace of a host.
Status inside(const Host& host, const Argv& words) {
  Argv argv = {"netns", "exec", host.netns};
  argv.insert(argv.end(), words.begin(), words.end());
  return ip(argv);
}

Status set_features(const Host& host, const Argv& words) {
  Argv argv = {"ethtool", "-K", host.ifname};
  argv.insert(argv.end(), words.begin(), words.end());
  return inside(host, argv);
}

Status set_features(const Lab& lab, const Argv& words) {
  ANIC_TRY(set_features(lab.client, words));
  return set_features(lab.server, words);
}

Status set_up(const Host& host, const Host& peer) {
  // Before the interface is up: no router solicitation or duplicate address detection leaves it.
  // No link-local address, and group reports at once instead of over the next seconds.
  Argv sysctl = {"sysctl", "-qw"};
  for (const char* knob : {"accept_ra=0", "accept_dad=0", "dad_transmits=0", "router_solicitations=0",
                           "addr_gen_mode=1", "mldv2_unsolicited_report_interval=1"}) {
    sysctl.push_back(fmt::format("net.ipv6.conf.{}.{}", host.ifname, knob));
  }
  ANIC_TRY(inside(host, sysctl));
  ANIC_TRY(set_features(host, {"tx", "off"}));
  ANIC_TRY(ip({"-n", host.netns, "link", "set", "lo", "up"}));
  ANIC_TRY(ip({"-n", host.netns, "addr", "add", host.ipv4 + "/24", "dev", host.ifname}));
  ANIC_TRY(ip({"-n", host.netns, "addr", "add", host.ipv6 + "/64", "dev", host.ifname, "nodad"}));
  ANIC_TRY(ip({"-n", host.netns, "link", "set", host.ifname, "up"}));
  for (const auto& address : {peer.ipv4, peer.ipv6}) {
    ANIC_TRY(ip({"-n", host.netns, "neigh", "replace", address, "lladdr", peer.mac, "dev", host.ifname, "nud",
                 "permanent"}));
  }
  return {};
}

Status build(const Lab& lab) {
  ANIC_TRY(ip({"netns", "add", lab.client.netns}));
  ANIC_TRY(ip({"netns", "add", lab.server.netns}));
  ANIC_TRY(ip({"-n",
               lab.client.netns,
               "link",
               "add",
               lab.client.ifname,
               "address",
               lab.client.mac,
               "numrxqueues",
               "1",
               "numtxqueues",
               "1",
               "type",
               "veth",
               "peer",
               "name",
               lab.server.ifname,
               "address",
               lab.server.mac,
               "numrxqueues",
               "1",
               "numtxqueues",
               "1",
               "netns",
               lab.server.netns}));
  ANIC_TRY(set_up(lab.client, lab.server));
  return set_up(lab.server, lab.client);
}

}  // namespace

Lab::Lab(const std::string& name)
    : client{name + "-client", "lab0", "02:00:00:00:00:01", "198.18.0.1", "2001:db8::1"},
      server{name + "-server", "lab0", "02:00:00:00:00:02", "198.18.0.2", "2001:db8::2"} {}

Status lab_up(const Lab& lab) {
  ANIC_TRY(lab_down(lab));
  Status built = build(lab);
  if (!built) static_cast<void>(lab_down(lab).has_value());  // the first error is the one to tell
  return built;
}

Status lab_aggregate(const Lab& lab) {
  return set_features(lab, {"tx", "on", "tso", "on", "gso", "on", "gro", "on"});
}

Status lab_napi(const Lab& lab) { return set_features(lab, {"tso", "off", "gro", "on"}); }

Result<bool> lab_down(const Lab& lab) {
  bool was_there = false;
  for (const Host* host : {&lab.client, &lab.server}) {
    if (!exists(*host)) continue;
    was_there = true;
    ANIC_TRY(ip({"netns", "del", host->netns}));
  }
  return was_there;
}

Status private_mounts() {
  const std::string what = "make mounts for this run";
  const std::string hint = "this takes CAP_SYS_ADMIN: run as root";
  if (::unshare(CLONE_NEWNS) != 0) return fail_errno(errno, what, hint);
  if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return fail_errno(errno, what, hint);
  if (::mkdir(kNamedDir, 0755) != 0 && errno != EEXIST)
    return fail_errno(errno, std::string("make ") + kNamedDir);
  if (::mount("tmpfs", kNamedDir, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0755") != 0)
    return fail_errno(errno, what, hint);
  if (::mount("bpf", kern::kBpffs, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") != 0) {
    return fail_errno(errno, fmt::format("mount a bpffs at {}", kern::kBpffs), hint);
  }
  return {};
}

}  // namespace agentnic::lab
