// SPDX-License-Identifier: Apache-2.0
#include "lab/environment.hpp"

#include <fmt/format.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <optional>
#include <thread>

#include "base/clock.hpp"
#include "base/file.hpp"
#include "base/hypervisor.hpp"
#include "kern/interface.hpp"
#include "kern/netns.hpp"
#include "version.h"

#include <array>

#include <sstream>

namespace agentnic::lab {
namespace {

/// The first line of a small file of /proc or /sys, or null.
Json first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  return std::getline(file, line) ? Json(line) : Json(nullptr);
}

Json cpu_model() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return nullptr;
}

Json optional_switch(const std::optional<bool>& state) {
  return state ? Json(*state ? "on" : "off") : Json(nullptr);
}

/// rps_cpus of each receive queue and xps_cpus of each transmit queue, from a sysfs of the calling thread's
/// namespace.
Json steering(const std::string& sysfs, const std::string& ifname) {
  Json masks = Json::object();
  const std::string queues = fmt::format("{}/class/net/{}/queues", sysfs, ifname);
  for (const std::string& queue : list_folder(queues)) {
    masks[queue] =
        first_line(fmt::format("{}/{}/{}", queues, queue, queue.starts_with("rx") ? "rps_cpus" : "xps_cpus"));
  }
  return masks;
}

/// Interrupt lines that carry the interface's name, with the CPUs that may serve them.
Json interrupts(const std::string& ifname) {
  Json list = Json::array();
  std::ifstream table("/proc/interrupts");
  for (std::string line; std::getline(table, line);) {
    if (line.find(ifname) == std::string::npos) continue;
    const auto start = line.find_first_not_of(' ');
    const std::string number = line.substr(start, line.find(':') - start);
    list.push_back(
        {{"irq", number}, {"cpus", first_line(fmt::format("/proc/irq/{}/smp_affinity_list", number))}});
  }
  return list;
}

/// A thread of its own may change its mounts and namespace without the process noticing.
Json steering_inside(const kern::NetNs& netns, const std::string& ifname) {
  Json masks = nullptr;
  std::thread([&] {
    const auto entered = netns.enter();
    if (!entered || ::unshare(CLONE_NEWNS) != 0) return;
    if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return;
    if (::mount("sysfs", "/sys", "sysfs", MS_RDONLY, nullptr) != 0) return;
    masks = steering("/sys", ifname);
  }).join();
  return masks;
}

}  // namespace

Json describe_host() {
  utsname name{};
  ::uname(&name);
  return {{"agentnic_version", AGENTNIC_VERSION},
          {"git_revision", AGENTNIC_REVISION},
          {"kernel", fmt::format("{} {} {}", name.sysname, name.release, name.machine)},
          {"cpu_model", cpu_model()},
          {"hypervisor", hypervisor()},
          {"emulated", emulated()},
          {"cpus_online", ::sysconf(_SC_NPROCESSORS_ONLN)},
          {"cpu_governor", first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")},
          {"clocksource", first_line("/sys/devices/system/clocksource/clocksource0/current_clocksource")}};
}

Result<Json> describe_interface(const std::string& netns, const std::string& ifname) {
  const auto ns = ANIC_TRY(kern::NetNs::open(netns));
  Json json = ANIC_TRY(ns.run([&]() -> Result<Json> {
    const auto found = ANIC_TRY(kern::find_interface(ifname));
    const auto offloads = kern::read_offloads(ifname);
    return Json{{"netns", netns},
                {"interface", ifname},
                {"driver", found.driver},
                {"firmware", found.firmware.empty() ? Json(nullptr) : Json(found.firmware)},
                {"rx_queues", found.rx_queues},
                {"tx_queues", found.tx_queues},
                {"offloads",
                 {{"tx_checksum", optional_switch(offloads.tx_checksum)},
                  {"rx_checksum", optional_switch(offloads.rx_checksum)},
                  {"tso", optional_switch(offloads.tso)},
                  {"gso", optional_switch(offloads.gso)},
                  {"gro", optional_switch(offloads.gro)}}}};
  }));
  json["rps_xps"] = steering_inside(ns, ifname);
  json["irqs"] = interrupts(ifname);
  return json;
}

std::vector<int> usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (::sched_getaffinity(0, sizeof(set), &set) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

Status pin_to_cpu(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(cpu), &set);
  if (::sched_setaffinity(0, sizeof(set), &set) != 0) {
    return fail(Exit::BadInput, fmt::format("run on CPU {}: {}", cpu, std::generic_category().message(errno)),
                "nproc says how many there are");
  }
  return {};
}

double cpu_busy_s(int cpu) {
  const double now_s = static_cast<double>(monotonic_ns()) * 1e-9;
  std::ifstream stat("/proc/stat");
  const std::string wanted = fmt::format("cpu{} ", cpu);
  for (std::string line; std::getline(stat, line);) {
    if (!line.starts_with(wanted)) continue;
    std::istringstream fields(line.substr(wanted.size()));
    std::array<double, 5> ticks{};  // user nice system idle iowait: proc_stat(5)
    for (double& value : ticks) fields >> value;
    return now_s - (ticks[3] + ticks[4]) / static_cast<double>(::sysconf(_SC_CLK_TCK));
  }
  return 0;
}

}  // namespace agentnic::lab
