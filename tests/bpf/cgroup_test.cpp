// SPDX-License-Identifier: Apache-2.0
//
// Tenants by cgroup: the packets of BPF_PROG_TEST_RUN are those of a socket of the process that runs it.

#include <fmt/format.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <filesystem>
#include <fstream>
#include <string>

#include "instance.hpp"
#include "lab/packet.hpp"

using namespace agentnic;
using lab::PacketBuilder;
using model::Hook;

namespace {

/// Where cgroup2 is mounted, or "".
std::string cgroup2_root() {
  std::ifstream mounts("/proc/self/mounts");
  std::string device;
  std::string where;
  std::string type;
  std::string rest;
  while (mounts >> device >> where >> type && std::getline(mounts, rest)) {
    if (type == "cgroup2") return where;
  }
  return "";
}

/// This process's cgroup below the root, with a '/' before.
std::string own_cgroup() {
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("0::")) return line.substr(3);
  }
  return "/";
}

/// A cgroup in a cgroup, removed at the end, when this process is back where it was.
class Cgroups final {
 public:
  Cgroups() { std::filesystem::create_directories(root_ + "/" + inner()); }
  ~Cgroups() {
    enter(home_);
    ::rmdir((root_ + "/" + inner()).c_str());
    ::rmdir((root_ + "/" + outer()).c_str());
  }
  Cgroups(const Cgroups&) = delete;
  Cgroups& operator=(const Cgroups&) = delete;

  [[nodiscard]] std::string outer() const { return name_; }
  [[nodiscard]] std::string inner() const { return name_ + "/inner"; }
  [[nodiscard]] std::string home() const { return home_; }
  void enter(const std::string& cgroup) const {
    std::ofstream(root_ + "/" + cgroup + "/cgroup.procs") << ::getpid();
  }

 private:
  std::string root_ = cgroup2_root();
  std::string home_ = own_cgroup();
  std::string name_ = fmt::format("anic-test-{}", ::getpid());
};

}  // namespace

TEST_CASE("tc egress: the deepest cgroup that the policy names says whose a packet is, after its mark") {
  if (cgroup2_root().empty()) SKIP("no cgroup2 file system is mounted");
  const Cgroups cgroups;
  Instance instance;
  const auto ids =
      instance.install(fmt::format(R"({{"version": 1, "name": "cgroups", "services": [], "tenants": [
    {{"name": "outer", "cgroups": ["{}"]}}, {{"name": "inner", "cgroups": ["{}"]}},
    {{"name": "marked", "marks": [7]}}, {{"name": "far", "prefixes": ["0.0.0.0/0"]}}]}})",
                                   cgroups.outer(), cgroups.inner()));
  const lab::Frame frame = PacketBuilder().eth().ipv4().udp(1, 2).payload(8).build();
  const auto tenant = [&](Hook hook, std::uint32_t mark) {
    const anic_test_packet packet = make_packet(frame, mark);
    const std::uint32_t id = instance.run(hook, {&packet, 1}).front().lane / ANIC_CLASS__MAX;
    for (const auto& [name, of_name] : ids.tenants) {
      if (of_name == id) return name;
    }
    return std::string();
  };
  for (int i = 0; i < 2; ++i) {  // the second time from the flow cache
    cgroups.enter(cgroups.inner());
    CHECK(tenant(Hook::TcOut, 0) == "inner");
    CHECK(tenant(Hook::TcOut, 7) == "marked");
    CHECK(tenant(Hook::TcIn, 0) == "far");
    cgroups.enter(cgroups.outer());
    CHECK(tenant(Hook::TcOut, 0) == "outer");
    CHECK(tenant(Hook::TcOut, 8) == "outer");
    cgroups.enter(cgroups.home());
    CHECK(tenant(Hook::TcOut, 0) == "far");
  }
}

TEST_CASE("tc egress: who is below a cgroup that the policy names is its tenant's") {
  if (cgroup2_root().empty()) SKIP("no cgroup2 file system is mounted");
  const Cgroups cgroups;
  Instance instance;
  instance.install(fmt::format(R"({{"version": 1, "name": "cgroups", "services": [],
    "tenants": [{{"name": "outer", "cgroups": ["{}"], "default_class": "bulk"}}]}})",
                               cgroups.outer()));
  cgroups.enter(cgroups.inner());
  const anic_test_packet packet = make_packet(PacketBuilder().eth().ipv4().udp(1, 2).payload(8).build());
  CHECK(instance.run(Hook::TcOut, {&packet, 1}).front().lane == ANIC_LANE(1, ANIC_CLASS_BULK));
}
