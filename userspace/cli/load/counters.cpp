// SPDX-License-Identifier: Apache-2.0
//
// The counters of an instance, as text and as JSON: one source of rows, two ways to print them.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <optional>

#include "cli/load/show.hpp"

namespace agentnic::cli {
namespace {

/// As they stand in by_reason.
constexpr std::array<const char*, ANIC_REASONS> kReasonNames = {
    "pass_control",   "pass_service", "pass_default", "pass_unparsed", "pass_fragment",
    "pass_no_socket", "pass_no_xdp",  "redirect_xsk", "pass_dscp",     "pass_roce",
    "pass_too_long",  "pass_lane",    "drop_quota",   "redirect_cpu",  "pass_stalled"};

constexpr std::array<const char*, ANIC_DIRECTION__MAX> kDirectionNames = {"in", "out"};
constexpr std::array kDirections = {ANIC_DIRECTION_IN, ANIC_DIRECTION_OUT};

anic_count operator+(const anic_count& a, const anic_count& b) {
  return {.packets = a.packets + b.packets, .bytes = a.bytes + b.bytes};
}

std::string class_word(std::size_t cls) {
  return std::string(policy::class_name(static_cast<std::uint8_t>(cls)));
}

std::string tenant_word(const kern::Stats& stats, std::size_t tenant) {
  if (tenant == 0) return "(none)";
  return stats.tenants.empty() ? "" : stats.tenants[tenant].name;
}

anic_count of_class(const kern::Stats& stats, anic_direction direction, std::uint32_t cls) {
  anic_count sum{};
  for (std::uint32_t tenant = 0; tenant < ANIC_TENANTS_MAX; ++tenant)
    sum = sum + stats.lane(direction, ANIC_LANE(tenant, cls));
  return sum;
}

/// One line of a table, and how to read it from any snapshot.
struct Row {
  std::string name;
  std::function<anic_count(const kern::Stats&)> read;
};

std::vector<Row> reason_rows(anic_direction direction) {
  std::vector<Row> rows;
  for (std::size_t i = 0; i < ANIC_REASONS; ++i) {
    rows.push_back(
        {kReasonNames[i], [=](const kern::Stats& stats) { return stats.by_reason(direction)[i]; }});
  }
  return rows;
}

std::vector<Row> class_rows(anic_direction direction) {
  std::vector<Row> rows;
  for (std::uint32_t i = 1; i < ANIC_CLASS__MAX; ++i) {
    rows.push_back({class_word(i), [=](const kern::Stats& stats) { return of_class(stats, direction, i); }});
  }
  return rows;
}

std::vector<Row> lane_rows(const kern::Stats& stats, anic_direction direction) {
  std::vector<Row> rows;
  for (std::uint32_t id = 0; id < ANIC_LANES_MAX; ++id) {
    const std::string tenant = tenant_word(stats, id / ANIC_CLASS__MAX);
    if (tenant.empty() || id % ANIC_CLASS__MAX == 0) continue;
    if (stats.counters().lanes[direction][id].seen == 0) continue;  // a tenant has five, most of them unused
    rows.push_back({tenant + "/" + class_word(id % ANIC_CLASS__MAX),
                    [=](const kern::Stats& one) { return one.lane(direction, id); }});
  }
  return rows;
}

std::vector<Row> service_rows(const kern::Stats& stats, anic_direction direction) {
  std::vector<Row> rows;
  for (std::size_t id = 1; id < stats.services.size(); ++id) {
    if (stats.services[id].name[0] == '\0') continue;
    rows.push_back({stats.services[id].name,
                    [=](const kern::Stats& one) { return one.counters().services[direction][id]; }});
  }
  return rows;
}

std::string table(const std::string& title, const std::vector<Row>& rows, const kern::Stats& now,
                  const kern::Stats* before, double seconds) {
  std::string text = fmt::format("  {:<32}{:>16}{:>18}", title, "packets", "bytes");
  text += before != nullptr ? fmt::format("{:>14}{:>14}\n", "packets/s", "Mbit/s") : "\n";
  for (const Row& row : rows) {
    const anic_count count = row.read(now);
    text += fmt::format("  {:<32}{:>16}{:>18}", row.name, count.packets, count.bytes);
    if (before != nullptr) {
      const anic_count old = row.read(*before);
      const auto rise = [](std::uint64_t from, std::uint64_t to) {  // a counter may have begun anew
        return static_cast<double>(to > from ? to - from : 0);
      };
      text += fmt::format("{:>14.0f}{:>14.2f}", rise(old.packets, count.packets) / seconds,
                          rise(old.bytes, count.bytes) * 8e-6 / seconds);
    }
    text += '\n';
  }
  return text;
}

/// What each lane that saw anything may have now, and asked for lately.
std::string rate_table(const std::string& title, const kern::Stats& stats, anic_direction direction) {
  std::string text;
  for (std::uint32_t id = 0; id < ANIC_LANES_MAX; ++id) {
    const std::string tenant = tenant_word(stats, id / ANIC_CLASS__MAX);
    const anic_bucket& bucket = stats.bucket(direction, id);
    const anic_lane_count& lane = stats.counters().lanes[direction][id];
    if (tenant.empty() || id % ANIC_CLASS__MAX == 0 || bucket.rate_bps == 0 || lane.seen == 0) continue;
    constexpr double kMega = 1e6;
    text += fmt::format("  {:<32}{:>16.3f}{:>18.3f}{:>14}\n", tenant + "/" + class_word(id % ANIC_CLASS__MAX),
                        static_cast<double>(bucket.rate_bps) / kMega,
                        static_cast<double>(bucket.wanted_bps) / kMega,
                        lane.by_reason[ANIC_REASON_AT(ANIC_REASON_DROP_QUOTA)].packets);
  }
  if (text.empty()) return text;
  return fmt::format("  {:<32}{:>16}{:>18}{:>14}\n", title, "Mbit/s", "wanted Mbit/s", "dropped") + text;
}

/// Packets that are under way to a CPU.
std::uint64_t waiting(const anic_cpu& cpu) {
  const std::uint64_t done = cpu.arrived + cpu.lost;
  return cpu.sent > done ? cpu.sent - done : 0;
}

/// The CPUs that packets were redirected to.
std::string cpu_table(const kern::Stats& stats) {
  std::string text;
  for (std::size_t number = 0; number < stats.cpus.size(); ++number) {
    const anic_cpu& cpu = stats.cpus[number];
    if (cpu.sent == 0) continue;
    text += fmt::format("  {:<32}{:>16}{:>18}{:>14}{:>14}{:>16}{:>14}\n", number, cpu.sent, cpu.arrived,
                        waiting(cpu), cpu.lost, cpu.moved, cpu.moved_early);
  }
  if (text.empty()) return text;
  return fmt::format("  {:<32}{:>16}{:>18}{:>14}{:>14}{:>16}{:>14}\n", "CPU", "sent", "arrived", "waiting",
                     "lost", "buckets moved", "moved early") +
         text;
}

Json cpus_json(const kern::Stats& stats) {
  Json cpus = Json::array();
  for (std::size_t number = 0; number < stats.cpus.size(); ++number) {
    const anic_cpu& cpu = stats.cpus[number];
    if (cpu.sent == 0) continue;
    cpus.push_back({{"cpu", number},
                    {"sent_packets", cpu.sent},
                    {"arrived_packets", cpu.arrived},
                    {"waiting_packets", waiting(cpu)},
                    {"lost_packets", cpu.lost},
                    {"buckets_moved", cpu.moved},
                    {"buckets_moved_early", cpu.moved_early}});
  }
  return cpus;
}

/// Of a lane: requests that were looked at.
std::uint64_t looked_at(const anic_turn_lane& turn) { return turn.samples + turn.ambiguous; }

/// A percentile of what was answered, or nothing: see Histogram.
std::string micros(const std::optional<std::uint64_t>& ns) {
  constexpr double kMicro = 1e3;
  return ns ? fmt::format("{:.1f}", static_cast<double>(*ns) / kMicro) : "-";
}

double percent(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) * 100 / static_cast<double>(whole);
}

/// TCP's own mean round trip, if it had any.
std::optional<std::uint64_t> mean_srtt_us(const anic_turn_lane& turn) {
  if (turn.srtt_count == 0) return std::nullopt;
  return turn.srtt_us_sum / turn.srtt_count;
}

/// How long answers took in each lane that had requests.
std::string turn_table(const kern::Stats& stats) {
  std::string text;
  for (std::uint32_t id = 0; id < ANIC_LANES_MAX; ++id) {
    const std::string tenant = tenant_word(stats, id / ANIC_CLASS__MAX);
    const anic_turn_lane& turn = stats.turns[id];
    if (tenant.empty() || looked_at(turn) == 0) continue;
    const Histogram answered = kern::answers(turn);
    const auto srtt_us = mean_srtt_us(turn);
    const std::string over = stats.slo_ns[id] == 0 ? "-"
                                                   : fmt::format("{} ({:.1f} %)", turn.over_slo,
                                                                 percent(turn.over_slo, turn.samples));
    text += fmt::format("  {:<32}{:>16}{:>12}{:>12}{:>18}{:>10}{:>11}{:>10}\n",
                        tenant + "/" + class_word(id % ANIC_CLASS__MAX), turn.samples,
                        micros(answered.percentile(0.5)), micros(answered.percentile(0.99)), over,
                        turn.misses, turn.ambiguous, srtt_us ? fmt::format("{}", *srtt_us) : "-");
  }
  if (text.empty()) return text;
  return fmt::format("  {:<32}{:>16}{:>12}{:>12}{:>18}{:>10}{:>11}{:>10}\n", "turnaround", "samples",
                     "p50 us", "p99 us", "over SLO", "missed", "ambiguous", "srtt us") +
         text;
}

Json counts(const anic_count& count) { return {{"packets", count.packets}, {"bytes", count.bytes}}; }

Json rows_json(const std::vector<Row>& rows, const kern::Stats& stats) {
  Json json = Json::object();
  for (const Row& row : rows) json[row.name] = counts(row.read(stats));
  return json;
}

/// Each tenant's lanes that saw anything, and whether all that they saw went somewhere.
Json tenants_json(const kern::Stats& stats, anic_direction direction) {
  Json tenants = Json::object();
  for (std::uint32_t tenant = 0; tenant < ANIC_TENANTS_MAX; ++tenant) {
    const std::string name = tenant_word(stats, tenant);
    if (name.empty()) continue;
    Json classes = Json::object();
    std::uint64_t seen = 0;
    anic_count gone{};
    for (std::uint32_t cls = 1; cls < ANIC_CLASS__MAX; ++cls) {
      const anic_lane_count& lane = stats.counters().lanes[direction][ANIC_LANE(tenant, cls)];
      if (lane.seen == 0) continue;
      Json reasons = Json::object();
      for (std::size_t i = 0; i < ANIC_REASONS; ++i) {
        if (lane.by_reason[i].packets != 0) reasons[kReasonNames[i]] = counts(lane.by_reason[i]);
      }
      const anic_bucket& bucket = stats.bucket(direction, ANIC_LANE(tenant, cls));
      classes[class_word(cls)] = {{"seen_packets", lane.seen},
                                  {"rate_bps", bucket.rate_bps == 0 ? Json() : Json(bucket.rate_bps)},
                                  {"wanted_bps", bucket.rate_bps == 0 ? Json() : Json(bucket.wanted_bps)},
                                  {"by_reason", reasons}};
      seen += lane.seen;
      gone = gone + stats.lane(direction, ANIC_LANE(tenant, cls));
    }
    tenants[name] = {
        {"seen_packets", seen}, {"packets", gone.packets}, {"bytes", gone.bytes}, {"by_class", classes}};
  }
  const anic_lane_count& gone = stats.counters().gone[direction];
  if (gone.seen != 0) {
    anic_count all{};
    for (const anic_count& count : gone.by_reason) all = all + count;
    tenants["(gone)"] = {{"seen_packets", gone.seen},
                         {"packets", all.packets},
                         {"bytes", all.bytes},
                         {"by_class", Json::object()}};
  }
  return tenants;
}

Json turn_json(const anic_turn_lane& turn, std::uint64_t slo_ns) {
  Json buckets = Json::array();
  for (std::uint32_t i = 0; i < ANIC_TURN_BUCKETS; ++i) {
    if (turn.histogram[i] != 0) buckets.push_back({ANIC_TURN_BUCKET_END_NS(i), turn.histogram[i]});
  }
  const Histogram answered = kern::answers(turn);
  return {{"slo_ns", slo_ns == 0 ? Json(nullptr) : Json(slo_ns)},
          {"samples", turn.samples},
          {"over_slo", slo_ns == 0 ? Json(nullptr) : Json(turn.over_slo)},
          {"missed", turn.misses},
          {"ambiguous", turn.ambiguous},
          {"p50_ns", or_null(answered.percentile(0.5))},
          {"p99_ns", or_null(answered.percentile(0.99))},
          {"srtt_mean_us", or_null(mean_srtt_us(turn))},
          {"histogram_ns", buckets}};
}

/// Of each tenant the lanes that had requests.
Json turns_json(const kern::Stats& stats) {
  Json tenants = Json::object();
  for (std::uint32_t id = 0; id < ANIC_LANES_MAX; ++id) {
    const std::string tenant = tenant_word(stats, id / ANIC_CLASS__MAX);
    if (tenant.empty() || looked_at(stats.turns[id]) == 0) continue;
    tenants[tenant][class_word(id % ANIC_CLASS__MAX)] = turn_json(stats.turns[id], stats.slo_ns[id]);
  }
  return tenants;
}

Json queues_json(const kern::Stats& stats, anic_direction direction) {
  Json queues = Json::array();
  for (std::size_t queue = 0; queue < ANIC_QUEUES_MAX; ++queue) {
    Json reasons = Json::object();
    for (std::size_t i = 0; i < ANIC_REASONS; ++i) {
      const std::uint64_t packets = stats.counters().queues[direction][queue].by_reason[i];
      if (packets != 0) reasons[kReasonNames[i]] = packets;
    }
    if (!reasons.empty()) queues.push_back({{"queue", queue}, {"packets_by_reason", reasons}});
  }
  return queues;
}

}  // namespace

Json to_json(const kern::InstanceStatus& status, const kern::Stats& stats) {
  Json json = {{"interface", status.ifname},
               {"netns", status.netns ? status.netns->name() : ""},
               {"generation", stats.generation},
               {"turnaround", turns_json(stats)},
               {"control_alarms",
                {{"seconds", stats.control.alarms}, {"last_monotonic_s", stats.control.last_alarm_s}}},
               {"cpus", cpus_json(stats)}};
  for (const anic_direction direction : kDirections) {
    json[kDirectionNames[direction]] = {{"by_reason", rows_json(reason_rows(direction), stats)},
                                        {"by_class", rows_json(class_rows(direction), stats)},
                                        {"by_service", rows_json(service_rows(stats, direction), stats)},
                                        {"by_tenant", tenants_json(stats, direction)},
                                        {"by_queue", queues_json(stats, direction)}};
  }
  return json;
}

std::string to_text(const kern::InstanceStatus& status, const kern::Stats& stats, const kern::Stats* before,
                    double seconds) {
  std::string text = fmt::format("{}\n", place(status));
  if (stats.control.alarms != 0) {
    text += fmt::format("  ALARM: control traffic was above the policy's control_alarm in {} seconds\n",
                        stats.control.alarms);
  }
  for (const anic_direction direction : kDirections) {
    const std::string suffix = direction == ANIC_DIRECTION_IN ? ", in" : ", out";
    text += table("reason" + suffix, reason_rows(direction), stats, before, seconds);
    text += table("lane" + suffix, lane_rows(stats, direction), stats, before, seconds);
    text += rate_table("rate" + suffix, stats, direction);
    text += table("service" + suffix, service_rows(stats, direction), stats, before, seconds);
  }
  text += cpu_table(stats);
  text += turn_table(stats);
  return text;
}

}  // namespace agentnic::cli
