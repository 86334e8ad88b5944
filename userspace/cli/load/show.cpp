// SPDX-License-Identifier: Apache-2.0
#include "cli/load/show.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <array>
#include <ctime>

namespace agentnic::cli {
namespace {

constexpr std::array<const char*, ANIC_REASON__MAX> kReasonNames = {
    "none",          "pass_control",   "pass_service", "pass_default", "pass_unparsed",
    "pass_fragment", "pass_no_socket", "pass_no_xdp",  "redirect_xsk"};

const char* health_name(kern::Health health) {
  switch (health) {
    case kern::Health::Attached:
      return "attached";
    case kern::Health::Gone:
      return "gone";
    case kern::Health::Incomplete:
      return "incomplete";
    case kern::Health::OtherAbi:
      return "other-abi";
  }
  return "?";
}

std::string date(std::uint64_t wall_ns) {
  const auto seconds = static_cast<std::time_t>(wall_ns / 1'000'000'000);
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(seconds));
}

std::string digest(const kern::InstanceStatus& status) {
  return policy::digest_text(status.meta.policy_digest, ANIC_DIGEST_LEN);
}

std::string netns_name(const kern::InstanceStatus& status) {
  return status.netns ? status.netns->name() : "";
}

struct Row {
  std::string name;
  anic_count now;
  anic_count before;
};

std::string table(const char* title, const std::vector<Row>& rows, bool rates, double seconds) {
  std::string text = fmt::format("  {:<24}{:>16}{:>18}", title, "packets", "bytes");
  text += rates ? fmt::format("{:>14}{:>14}\n", "packets/s", "Mbit/s") : "\n";
  for (const Row& row : rows) {
    text += fmt::format("  {:<24}{:>16}{:>18}", row.name, row.now.packets, row.now.bytes);
    if (rates) {
      text += fmt::format("{:>14.0f}{:>14.2f}",
                          static_cast<double>(row.now.packets - row.before.packets) / seconds,
                          static_cast<double>(row.now.bytes - row.before.bytes) * 8e-6 / seconds);
    }
    text += '\n';
  }
  return text;
}

Json counts(const anic_count& count) { return {{"packets", count.packets}, {"bytes", count.bytes}}; }

}  // namespace

std::string place(const kern::InstanceStatus& status) {
  if (!status.netns) return fmt::format("{} in netns inode {}", status.ifname, status.dir.netns_inode);
  return status.ifname + status.netns->suffix();
}

Json to_json(const policy::Policy& policy) {
  Json services = Json::array();
  for (const auto& service : policy.services) {
    services.push_back({{"name", service.name},
                        {"protocol", policy::protocol_name(service.protocol)},
                        {"port", service.port},
                        {"class", policy::class_name(static_cast<std::uint8_t>(service.cls))},
                        {"path", policy::path_name(static_cast<std::uint8_t>(service.path))}});
  }
  Json control = Json::array();
  for (const auto& port : policy.control) {
    control.push_back({{"protocol", policy::protocol_name(port.protocol)}, {"port", port.port}});
  }
  return {{"name", policy.name},
          {"sha256", policy::digest_text(policy.digest.data(), policy.digest.size())},
          {"services", services},
          {"control", control}};
}

std::string to_text(const policy::Policy& policy) {
  std::string text = fmt::format("policy {} (sha256 {})\n", policy.name,
                                 policy::digest_text(policy.digest.data(), policy.digest.size()));
  for (const auto& service : policy.services) {
    text += fmt::format("  service  {:<24}{:>4} {:<6} class {:<10} path {}\n", service.name,
                        policy::protocol_name(service.protocol), service.port,
                        policy::class_name(static_cast<std::uint8_t>(service.cls)),
                        policy::path_name(static_cast<std::uint8_t>(service.path)));
  }
  for (const auto& port : policy.control) {
    text += fmt::format("  control  {:<24}{:>4} {}\n", "", policy::protocol_name(port.protocol), port.port);
  }
  return text;
}

Json to_json(const kern::InstanceStatus& status) {
  const anic_meta& meta = status.meta;
  return {{"interface", status.ifname},
          {"netns", netns_name(status)},
          {"netns_inode", status.dir.netns_inode},
          {"ifindex", meta.ifindex},
          {"state", health_name(status.health)},
          {"problem", status.problem},
          {"hook", kern::hook_name(meta.hook)},
          {"mode", kern::mode_name(meta.mode)},
          {"program_id", status.prog_id},
          {"queues", meta.queues},
          {"policy",
           {{"name", std::string(meta.policy_name, ::strnlen(meta.policy_name, sizeof(meta.policy_name)))},
            {"sha256", digest(status)}}},
          {"attached_at", date(meta.attached_at_ns)},
          {"abi", meta.abi_version},
          {"pins", status.dir.path()}};
}

std::string to_text(const kern::InstanceStatus& status) {
  std::string text = fmt::format("{}: {}\n", place(status), health_name(status.health));
  if (!status.problem.empty()) text += fmt::format("  problem   {}\n", status.problem);
  const anic_meta& meta = status.meta;
  if (meta.hook != ANIC_HOOK_NONE && meta.abi_version == ANIC_ABI_VERSION) {
    text += fmt::format("  hook      {}, {}, program id {}\n", kern::hook_name(meta.hook),
                        kern::mode_name(meta.mode), status.prog_id);
    text += fmt::format("  policy    {} (sha256 {})\n", meta.policy_name, digest(status));
    text += fmt::format("  queues    {}\n", meta.queues);
    text += fmt::format("  since     {}\n", date(meta.attached_at_ns));
  }
  text += fmt::format("  pins      {}\n", status.dir.path());
  return text;
}

Json to_json(const kern::InstanceStatus& status, const kern::Stats& stats) {
  Json reasons;
  for (std::size_t i = 1; i < ANIC_REASON__MAX; ++i)
    reasons[kReasonNames[i]] = counts(stats.total.by_reason[i]);
  Json classes;
  for (std::size_t i = 1; i < ANIC_CLASS__MAX; ++i) {
    classes[std::string(policy::class_name(static_cast<std::uint8_t>(i)))] = counts(stats.total.by_class[i]);
  }
  Json services;
  for (std::size_t i = 0; i < stats.services.size(); ++i) {
    services[stats.services[i].name] = counts(stats.total.by_service[i + 1]);
  }
  return {{"interface", status.ifname},
          {"netns", netns_name(status)},
          {"by_reason", reasons},
          {"by_class", classes},
          {"by_service", services}};
}

std::string to_text(const kern::InstanceStatus& status, const kern::Stats& stats, const kern::Stats* before,
                    double seconds) {
  const bool rates = before != nullptr;
  std::vector<Row> reasons;
  for (std::size_t i = 1; i < ANIC_REASON__MAX; ++i) {
    reasons.push_back(
        {kReasonNames[i], stats.total.by_reason[i], rates ? before->total.by_reason[i] : anic_count{}});
  }
  std::vector<Row> classes;
  for (std::size_t i = 1; i < ANIC_CLASS__MAX; ++i) {
    classes.push_back({std::string(policy::class_name(static_cast<std::uint8_t>(i))), stats.total.by_class[i],
                       rates ? before->total.by_class[i] : anic_count{}});
  }
  std::vector<Row> services;
  for (std::size_t i = 0; i < stats.services.size(); ++i) {
    services.push_back({stats.services[i].name, stats.total.by_service[i + 1],
                        rates ? before->total.by_service[i + 1] : anic_count{}});
  }
  return fmt::format("{}\n", place(status)) + table("reason", reasons, rates, seconds) +
         table("class", classes, rates, seconds) + table("service", services, rates, seconds);
}

}  // namespace agentnic::cli
