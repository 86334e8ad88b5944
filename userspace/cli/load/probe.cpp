// SPDX-License-Identifier: Apache-2.0
#include "cli/load/probe.hpp"

#include <fmt/format.h>
#include <sys/utsname.h>

#include <iostream>
#include <optional>
#include <vector>

#include "base/hypervisor.hpp"
#include "cli/common/program.hpp"
#include "kern/driver.hpp"
#include "kern/netns.hpp"
#include "probe/features.hpp"
#include "probe/libraries.hpp"

namespace agentnic::cli {
namespace {

struct AskedInterface {
  kern::Interface interface;
  kern::Driver driver;
  kern::XdpProgram attached;
};

struct Report {
  std::string kernel_release;
  std::string machine;
  probe::Tried tried;
  std::vector<probe::Library> libraries;
  std::optional<AskedInterface> asked;
  std::string netns;
};

/// What the driver says of one XDP feature; nothing where it does not say.
std::optional<bool> has_feature(const kern::Driver& driver, std::uint64_t bit) {
  if (!driver.features) return std::nullopt;
  return (driver.features->flags & bit) != 0;
}

std::string mark(std::optional<bool> answer) { return answer ? (*answer ? "yes" : "no") : "?"; }

// --- JSON ---

Json to_json(const probe::Feature& feature) {
  return {{"id", feature.id},
          {"title", feature.title},
          {"needed_by", feature.needed_by},
          {"required", feature.required},
          {"available", or_null(feature.available)},
          {"detail", feature.detail},
          {"remedy", feature.remedy}};
}

Json to_json(const kern::VerifiedProgram& program) {
  const auto figure = [&](std::uint64_t value) {
    return program.stats.instruction_limit != 0 ? Json(value) : Json(nullptr);
  };
  return {{"name", program.name},
          {"type", program.type},
          {"loads", program.loads},
          {"instructions", figure(program.stats.instructions)},
          {"instruction_limit", figure(program.stats.instruction_limit)},
          {"states_total", figure(program.stats.states_total)},
          {"states_peak", figure(program.stats.states_peak)},
          {"verification_us", figure(program.stats.verification_us)},
          {"error", or_null(program.error)}};
}

Json to_json(const probe::Library& library) {
  return {{"name", library.name},
          {"needed_by", library.needed_by},
          {"built_with", or_null(library.built_with)},
          {"running", or_null(library.running)},
          {"minimum", library.minimum},
          {"ok", or_null(library.ok)},
          {"remedy", library.remedy}};
}

Json to_json(const AskedInterface& asked, const std::string& netns) {
  const kern::Driver& driver = asked.driver;
  Json json = {{"name", asked.interface.name},
               {"netns", or_null(netns)},
               {"ifindex", asked.interface.ifindex},
               {"driver", asked.interface.driver},
               {"firmware", or_null(asked.interface.firmware)},
               {"mtu_bytes", driver.mtu_bytes},
               {"link", driver.link},
               {"queues", nullptr},
               {"xdp_features", nullptr},
               {"zero_copy_segments_max", nullptr},
               {"native_xdp", or_null(has_feature(driver, kern::kXdpBasic))},
               {"zero_copy", or_null(has_feature(driver, kern::kXdpXskZeroCopy))},
               {"vlan_receive_offload", or_null(driver.vlan_offload)},
               {"header_split", or_null(driver.header_split)},
               {"flow_rules", nullptr},
               {"rss_table_entries", or_null(driver.rss_entries)},
               {"xdp_program", nullptr}};
  if (driver.channels) {
    const auto count = [](const kern::QueueCount& queues) -> Json {
      return {{"now", queues.now}, {"most", queues.most}};
    };
    json["queues"] = {{"rx", count(driver.channels->rx)},
                      {"tx", count(driver.channels->tx)},
                      {"combined", count(driver.channels->combined)}};
  }
  if (driver.flow_rules)
    json["flow_rules"] = {{"on", driver.flow_rules->on}, {"can_change", driver.flow_rules->can_change}};
  if (driver.features) {
    json["xdp_features"] = kern::xdp_feature_names(driver.features->flags);
    json["zero_copy_segments_max"] = driver.features->zero_copy_segments_max;
  }
  if (asked.attached.id != 0)
    json["xdp_program"] = {{"id", asked.attached.id}, {"name", or_null(asked.attached.name)}};
  return json;
}

Json to_json(const Report& report) {
  Json json = {{"schema", "agentnic.probe/1"},
               {"agentnic_version", version()},
               {"git_revision", revision()},
               {"kernel",
                {{"release", report.kernel_release},
                 {"machine", report.machine},
                 {"hypervisor", or_null(hypervisor())},
                 {"emulated", emulated()}}},
               {"privileged", report.tried.privileged},
               {"features", Json::array()},
               {"programs", Json::array()},
               {"libraries", Json::array()},
               {"interface", report.asked ? to_json(*report.asked, report.netns) : Json(nullptr)}};
  for (const auto& feature : report.tried.features) json["features"].push_back(to_json(feature));
  for (const auto& program : report.tried.programs) json["programs"].push_back(to_json(program));
  for (const auto& library : report.libraries) json["libraries"].push_back(to_json(library));
  return json;
}

// --- text ---

std::string to_text(const probe::Feature& feature) {
  std::string text =
      fmt::format("  {:<4} {:<34} {}\n", mark(feature.available), feature.title, feature.needed_by);
  if (feature.available.value_or(false)) return text;
  text += fmt::format("         {}\n", feature.detail);
  if (!feature.available) return text;
  return text + fmt::format("         without it: {}\n", feature.remedy);
}

std::string to_text(const std::vector<kern::VerifiedProgram>& programs) {
  std::string text = fmt::format("{:<39} {:>12} {:>6} {:>8} {:>8} {:>9}\n", "programs", "instructions",
                                 "limit", "states", "peak", "time us");
  if (programs.empty()) text += "  ?    not tried: this takes root; run it as root\n";
  for (const auto& program : programs) {
    text += fmt::format("  {:<4} {:<14} {:<17}", mark(program.loads), program.name, program.type);
    if (!program.error.empty()) {
      text += fmt::format("\n         {}\n", program.error);
      continue;
    }
    text += fmt::format(" {:>12} {:>5.1f}% {:>8} {:>8} {:>9}\n", program.stats.instructions,
                        100 * program.stats.share(), program.stats.states_total, program.stats.states_peak,
                        program.stats.verification_us);
  }
  return text;
}

std::string to_text(const probe::Library& library) {
  const auto known = [](const std::string& text) { return text.empty() ? "?" : text; };
  const std::string text =
      fmt::format("  {:<4} {:<14} {:<12} {:<12} {:<12} {}\n", mark(library.ok), library.name,
                  known(library.running), known(library.built_with), library.minimum, library.needed_by);
  return library.ok.value_or(true) ? text : text + fmt::format("         remedy: {}\n", library.remedy);
}

std::string queue_text(const std::optional<kern::Channels>& channels) {
  if (!channels) return "the driver does not count them";
  std::string text;
  const auto add = [&](const char* kind, const kern::QueueCount& queues) {
    if (queues.most == 0) return;
    text += fmt::format("{}{} {} of {}", text.empty() ? "" : ", ", kind, queues.now, queues.most);
  };
  add("receive", channels->rx);
  add("transmit", channels->tx);
  add("combined", channels->combined);
  return text.empty() ? "none" : text;
}

std::string flow_rules_text(const std::optional<kern::FlowRules>& rules, const std::string& ifname) {
  if (!rules) return "the driver does not say";
  if (rules->on) return "on";
  return rules->can_change ? fmt::format("off: ethtool -K {} ntuple on", ifname) : "none";
}

std::string rss_text(const std::optional<std::uint32_t>& entries) {
  if (!entries) return "the driver does not say";
  return *entries == 0 ? "none" : fmt::format("{} entries", *entries);
}

std::string to_text(const AskedInterface& asked, const std::string& netns) {
  const kern::Driver& driver = asked.driver;
  const auto zero_copy = has_feature(driver, kern::kXdpXskZeroCopy);
  std::string text = fmt::format("interface {}{}\n", asked.interface.name,
                                 netns.empty() ? "" : fmt::format(" in netns {}", netns));
  const auto fact = [&](const char* name, const std::string& value) {
    text += fmt::format("       {:<21} {}\n", name, value);
  };
  const auto answer = [&](const char* title, std::optional<bool> said, const std::string& remedy) {
    text += fmt::format("  {:<4} {}\n", mark(said), title);
    if (!said)
      text += "         this kernel does not say what drivers can do; attach finds out by trying\n";
    else if (!*said)
      text += fmt::format("         without it: {}\n", remedy);
  };
  fact("driver", asked.interface.driver);
  if (!asked.interface.firmware.empty()) fact("firmware", asked.interface.firmware);
  fact("link", fmt::format("{}, MTU {}", driver.link, driver.mtu_bytes));
  fact("queues", queue_text(driver.channels));
  const auto names = kern::xdp_feature_names(driver.features ? driver.features->flags : 0);
  if (driver.features)
    fact("XDP features", names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", ")));
  fact("VLAN receive offload",
       !driver.vlan_offload ? "the driver does not say"
       : *driver.vlan_offload
           ? fmt::format("on: XDP does not see the tag; ethtool -K {} rxvlan off", asked.interface.name)
           : "off");
  // With these a NIC can give a queue to zero-copy receive; flow rules and RSS, to AF_XDP too.
  fact("header split of TCP",
       !driver.header_split   ? "the driver does not say"
       : *driver.header_split ? "on"
                              : fmt::format("off: ethtool -G {} tcp-data-split on", asked.interface.name));
  fact("flow rules", flow_rules_text(driver.flow_rules, asked.interface.name));
  fact("RSS table", rss_text(driver.rss_entries));
  fact("XDP program", asked.attached.id == 0
                          ? "none"
                          : fmt::format("{} (id {})", asked.attached.name.empty() ? "?" : asked.attached.name,
                                        asked.attached.id));
  answer("native XDP, as the driver says", has_feature(driver, kern::kXdpBasic),
         "generic XDP, which is slower, or --mode tc");
  answer("AF_XDP zero-copy, as the driver says; a bind may still be refused", zero_copy,
         "AF_XDP sockets copy each frame once");
  return text;
}

std::string to_text(const Report& report) {
  const std::string under = hypervisor();
  std::string text =
      fmt::format("agentnic {} ({}) on Linux {} {}{}{}\n", version(), revision(), report.kernel_release,
                  report.machine, under.empty() ? "" : fmt::format(", hypervisor {}", under),
                  emulated() ? " (software emulation: proves logic, never speed)" : "");
  text += fmt::format("{:<41} needed by\n", "kernel features");
  for (const auto& feature : report.tried.features) text += to_text(feature);
  text += to_text(report.tried.programs);
  text += fmt::format("{:<21} {:<12} {:<12} {:<12} needed by\n", "libraries", "running", "built with",
                      "at least");
  for (const auto& library : report.libraries) text += to_text(library);
  if (report.asked) text += to_text(*report.asked, report.netns);
  return text;
}

/// Unsupported, with its names, when something that everything needs is not there. Who has the privileges to
/// try and still does not know has met a fault: that is not "there" either.
Status check_required(const std::vector<probe::Feature>& features, bool privileged) {
  std::vector<std::string> missing;
  std::string remedy;
  for (const auto& feature : features) {
    if (!feature.required || feature.available.value_or(!privileged)) continue;
    missing.push_back(feature.id);
    if (remedy.empty()) remedy = feature.remedy;
  }
  if (missing.empty()) return {};
  return fail(Exit::Unsupported, fmt::format("probe: required and not there: {}", fmt::join(missing, ", ")),
              remedy);
}

}  // namespace

Result<int> probe(const std::string& ifname, const std::string& netns_name, bool json) {
  Report report;
  utsname name{};
  ::uname(&name);
  report.kernel_release = name.release;
  report.machine = name.machine;
  report.netns = netns_name;
  const kern::NetNs netns = ANIC_TRY(kern::NetNs::open_or_current(netns_name));
  if (!ifname.empty()) {
    report.asked = ANIC_TRY(netns.run([&]() -> Result<AskedInterface> {
      AskedInterface asked;
      asked.interface = ANIC_TRY(kern::find_interface(ifname));
      asked.driver = ANIC_TRY(kern::ask_driver(asked.interface));
      asked.attached = ANIC_TRY(kern::attached_xdp(asked.interface.ifindex));
      return asked;
    }));
  }
  report.tried = probe::try_features();
  report.libraries = probe::list_libraries();
  if (json) {
    print_json(to_json(report));
  } else {
    std::cout << to_text(report);
  }
  std::cout << std::flush;
  ANIC_TRY(check_required(report.tried.features, report.tried.privileged));
  return 0;
}

}  // namespace agentnic::cli
