// SPDX-License-Identifier: Apache-2.0
#include "kern/queue_rules.hpp"

#include <bpf/bpf.h>
#include <fmt/format.h>
#include <net/if.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "kern/instance.hpp"
#include "kern/interface.hpp"
#include "kern/pinned_record.hpp"

namespace agentnic::kern {
namespace {

constexpr const char* kAsidePin = "anic_aside";
constexpr const char* kSplitPin = "anic_split";
constexpr const char* kRecord = "the record of queues that are set aside";

using Notes = std::vector<std::string>;

class PinnedStore final : public AsideStore {
 public:
  explicit PinnedStore(const PinDir& dir)
      : queues_(dir, kAsidePin, kRecord), split_(dir, kSplitPin, kRecord) {}

  Status write(const anic_aside& record) override { return queues_.write(record); }
  Status write_split(const anic_split& record) override { return split_.write(record); }
  Status clear() override { return queues_.clear(); }
  Status clear_split() override { return split_.clear(); }

 private:
  PinnedRecord queues_;
  PinnedRecord split_;
};

/// What there is of both, and whose it is.
struct Records {
  std::unique_ptr<anic_aside> queues;
  std::unique_ptr<anic_split> split;

  [[nodiscard]] bool any() const { return queues != nullptr || split != nullptr; }
  [[nodiscard]] std::uint64_t netns_cookie() const {
    return queues ? queues->netns_cookie : split->netns_cookie;
  }
  [[nodiscard]] std::uint32_t ifindex() const { return queues ? queues->ifindex : split->ifindex; }
};

Result<Records> read_records(const PinDir& dir) {
  Records records;
  records.queues = ANIC_TRY(read_pinned<anic_aside>(dir, kAsidePin));
  records.split = ANIC_TRY(read_pinned<anic_split>(dir, kSplitPin));
  return records;
}

bool has_bit(const anic_aside& record, std::uint32_t queue) {
  return queue < ANIC_QUEUES_MAX && ((record.queues[queue / 64] >> (queue % 64)) & 1U) != 0;
}

RssTable table_of(const __u16* entries, std::uint32_t count) {
  return {entries, entries + std::min<std::uint32_t>(count, ANIC_ASIDE_TABLE_MAX)};
}

FlowRule rule_of(const anic_aside_rule& rule) {
  return {.version = rule.version,
          .protocol = rule.protocol,
          .source_port = rule.source_port,
          .source_mask = rule.source_mask,
          .destination_port = rule.destination_port,
          .destination_mask = rule.destination_mask,
          .queue = rule.queue};
}

std::span<const anic_aside_rule> rules_of(const anic_aside& record) {
  return std::span(record.rules).first(std::min<std::size_t>(record.rules_count, ANIC_ASIDE_RULES_MAX));
}

/// What will be changed, for who must undo it.
void fill_record(const QueuePlan& plan, anic_aside& record) {
  for (const std::uint32_t queue : plan.queues) record.queues[queue / 64] |= __u64{1} << (queue % 64);
  record.turned_ntuple_on = plan.turns_ntuple_on ? 1 : 0;
  record.table_is_default = plan.table_is_default ? 1 : 0;
  if (plan.after != plan.before) {
    record.table_size = static_cast<__u32>(plan.before.size());
    std::ranges::copy(plan.before, record.before);
    std::ranges::copy(plan.after, record.after);
  }
  record.rules_count = static_cast<__u32>(plan.rules.size());
  for (std::size_t i = 0; i < plan.rules.size(); ++i) {
    const FlowRule& rule = plan.rules[i];
    record.rules[i] = {.location = ANIC_LOCATION_NONE,
                       .source_port = rule.source_port,
                       .source_mask = rule.source_mask,
                       .destination_port = rule.destination_port,
                       .destination_mask = rule.destination_mask,
                       .queue = static_cast<__u16>(rule.queue),
                       .protocol = rule.protocol,
                       .version = rule.version};
  }
}

void fill_split(const QueuePlan& plan, anic_split& split) {
  split.was_on = plan.split_before.mode == SplitMode::On ? 1 : 0;
  split.threshold_changed = plan.sets_threshold() ? 1 : 0;
  split.threshold_before = plan.split_before.threshold.value_or(0);
}

/// The last one that is free, as ethtool takes it: where a NIC ranks rules by it, others stay ahead.
Result<std::uint32_t> free_location(const RuleTable& table, const std::string& ifname) {
  for (std::uint32_t location = table.size; location-- > 0;) {
    if (std::ranges::find(table.rules, location, &RuleThere::location) == table.rules.end()) return location;
  }
  return fail(Exit::Unsupported, fmt::format("add a flow rule to {}: there is no free place for it", ifname));
}

const RuleThere* find_at(const NicQueues& nic, std::uint32_t location) {
  if (!nic.rules) return nullptr;
  const auto found = std::ranges::find(nic.rules->rules, location, &RuleThere::location);
  return found == nic.rules->rules.end() ? nullptr : &*found;
}

Status add_rules(QueueDevice& device, AsideStore& store, const QueuePlan& plan, anic_aside& record) {
  // Only now: drivers may tell of rules only with ntuple on.
  NicQueues nic = ANIC_TRY(device.read());
  if (!nic.rules) {
    return fail(Exit::Unsupported, fmt::format("the driver of {} ({}) does not say what flow rules it has",
                                               nic.ifname, nic.driver));
  }
  ANIC_TRY(check_rules(nic, plan));
  for (std::size_t i = 0; i < plan.rules.size(); ++i) {
    __u32& location = record.rules[i].location;
    if (!nic.rules->chooses_location) {
      location = ANIC_TRY(free_location(*nic.rules, nic.ifname));
      ANIC_TRY(store.write(record));
    }
    const std::uint32_t obtained = ANIC_TRY(device.add_rule(plan.rules[i], location));
    nic.rules->rules.push_back({.location = obtained, .queues = {}, .rule = plan.rules[i]});
    if (std::exchange(location, obtained) != obtained) ANIC_TRY(store.write(record));
  }
  return {};
}

/// That the NIC has become what it was told.
Status check_result(QueueDevice& device, const QueuePlan& plan, const anic_aside& record) {
  const NicQueues nic = ANIC_TRY(device.read());
  const auto differs = [&](const std::string& what) {
    return fail(Exit::Unsupported,
                fmt::format("the driver of {} ({}) does not keep {}", nic.ifname, nic.driver, what));
  };
  if (plan.purpose == Purpose::Receive &&
      (nic.header_split.mode != SplitMode::On || nic.header_split.threshold.value_or(0) != 0))
    return differs("header/data split of all packets on");
  if (nic.table != plan.after) return differs("the RSS table that it took");
  for (std::size_t i = 0; i < plan.rules.size(); ++i) {
    const RuleThere* there = find_at(nic, record.rules[i].location);
    if (there == nullptr || there->rule != plan.rules[i])
      return differs(fmt::format("the flow rule that it has as {}", record.rules[i].location));
  }
  return {};
}

/// Before all else: drivers open the NIC anew for it, after which the table and the rules are looked at. It
/// is stated even where it is on, for the kernel takes none that the driver chose (hds_config in
/// net/core/netdev_rx_queue.c).
Status state_split(QueueDevice& device, AsideStore& store, const QueuePlan& plan, anic_split& split) {
  if (plan.purpose != Purpose::Receive) return {};
  ANIC_TRY(store.write_split(split));
  std::optional<std::uint32_t> threshold;
  if (plan.sets_threshold()) threshold = 0;
  return device.set_header_split(SplitMode::On, threshold);
}

Status make_changes(QueueDevice& device, AsideStore& store, const QueuePlan& plan, anic_aside& record,
                    anic_split& split) {
  ANIC_TRY(state_split(device, store, plan, split));
  if (plan.turns_ntuple_on) ANIC_TRY(device.set_ntuple(true));
  if (plan.after != plan.before) ANIC_TRY(device.set_table(plan.after));
  ANIC_TRY(add_rules(device, store, plan, record));
  ANIC_TRY(check_result(device, plan, record));
  record.done = 1;
  return store.write(record);
}

/// The rule of a record, if it is there and as it was: where it was put, or else by what it says.
const RuleThere* find_ours(const NicQueues& nic, const anic_aside& record, const anic_aside_rule& ours,
                           Notes& notes) {
  if (ours.location != ANIC_LOCATION_NONE) {
    const RuleThere* there = find_at(nic, ours.location);
    if (there == nullptr || std::ranges::find(there->queues, ours.queue) != there->queues.end()) return there;
    notes.push_back(
        fmt::format("flow rule {} of {} is another one now, and is left", ours.location, nic.ifname));
    return nullptr;
  }
  if (!nic.rules) return nullptr;
  for (const RuleThere& there : nic.rules->rules) {
    if (there.rule == rule_of(ours) &&
        std::ranges::find(rules_of(record), there.location, &anic_aside_rule::location) ==
            rules_of(record).end())
      return &there;
  }
  return nullptr;
}

Status undo_rules(QueueDevice& device, const NicQueues& nic, const anic_aside& record, Notes& notes) {
  Status first;
  const auto rules = rules_of(record);
  for (auto ours = rules.rbegin(); ours != rules.rend(); ++ours) {
    const RuleThere* there = find_ours(nic, record, *ours, notes);
    if (there == nullptr) continue;
    Status removed = device.remove_rule(there->location);
    if (!removed && first) first = std::move(removed);
  }
  return first;
}

Status undo_table(QueueDevice& device, const NicQueues& nic, const anic_aside& record, Notes& notes) {
  const RssTable before = table_of(record.before, record.table_size);
  if (record.table_size == 0 || nic.table == before) return {};
  if (nic.table != table_of(record.after, record.table_size)) {
    notes.push_back(
        fmt::format("the RSS table of {0} was changed by somebody else, and is left; the "
                    "driver's own: ethtool -X {0} default",
                    nic.ifname));
    return {};
  }
  if (record.table_is_default != 0 && device.set_default_table() && ANIC_TRY(device.read()).table == before)
    return {};
  return device.set_table(before);
}

Status undo_ntuple(QueueDevice& device, const anic_aside& record, Notes& notes) {
  if (record.turned_ntuple_on == 0) return {};
  const NicQueues nic = ANIC_TRY(device.read());
  if (!nic.ntuple_on) return {};
  if (nic.rules && !nic.rules->rules.empty()) {  // which would go with it
    notes.push_back(fmt::format("ntuple of {} stays on: there are flow rules of somebody else", nic.ifname));
    return {};
  }
  return device.set_ntuple(false);
}

/// Off, as far as that can be known: a driver that comes to it by its own choice is let choose.
Status turn_split_off(QueueDevice& device, std::optional<std::uint32_t> threshold, Notes& notes) {
  const Status let = device.set_header_split(SplitMode::Unstated, threshold);
  const NicQueues nic = ANIC_TRY(device.read());
  if (let && nic.header_split.mode != SplitMode::On) return {};
  Status off = device.set_header_split(SplitMode::Off, threshold);
  if (off || !let) return off;
  // Nobody receives with zero-copy, or it could not have been let choose; some drivers take no other.
  notes.push_back(fmt::format("header/data split of {} stays on, as its driver ({}) chooses now", nic.ifname,
                              nic.driver));
  return {};
}

Status undo_split(QueueDevice& device, AsideStore& store, const anic_split& split, Notes& notes) {
  const NicQueues nic = ANIC_TRY(device.read());
  const HeaderSplit& now = nic.header_split;
  if (split.was_on != 0 && now.mode != SplitMode::On)
    notes.push_back(
        fmt::format("header/data split of {} was turned off by somebody else, and is left", nic.ifname));
  std::optional<std::uint32_t> threshold;
  if (split.threshold_changed != 0 && now.threshold == 0U) {
    threshold = split.threshold_before;
  } else if (split.threshold_changed != 0 && now.threshold != split.threshold_before) {
    notes.push_back(fmt::format("hds-thresh of {} was changed by somebody else, and is left", nic.ifname));
  }
  Status done;
  if (split.was_on == 0 && now.mode == SplitMode::On) {
    done = turn_split_off(device, threshold, notes);
  } else if (threshold) {
    done = device.set_header_split(now.mode, threshold);
  }
  if (done) return store.clear_split();
  done.error().exit = Exit::Failed;
  done.error().hint = "a program that still receives with zero-copy must end first";
  return done;
}

Status undo_queues(QueueDevice& device, AsideStore& store, const anic_aside& record, Notes& notes) {
  const NicQueues nic = ANIC_TRY(device.read());
  const Status rules = undo_rules(device, nic, record, notes);
  const Status table = undo_table(device, nic, record, notes);
  // With a rule of ours still there it would seem to be somebody else's.
  const Status ntuple = rules ? undo_ntuple(device, record, notes) : rules;
  for (const Status* status : {&rules, &table, &ntuple}) {
    if (!*status) return *status;
  }
  return store.clear();
}

/// That the NIC is as it was when it was planned.
bool is_as_planned(const NicQueues& now, const QueuePlan& plan) {
  if (now.table != plan.before || now.ntuple_on == plan.turns_ntuple_on) return false;
  return plan.purpose == Purpose::Xsk || (now.header_split == plan.split_before && !now.has_xdp);
}

Result<NicQueues> read_nic(const NetNs& netns, const std::string& ifname) {
  return netns.run([&]() -> Result<NicQueues> {
    const auto device = ANIC_TRY(open_queue_device(ifname));
    return device->read();
  });
}

}  // namespace

Status apply_plan(QueueDevice& device, AsideStore& store, const QueuePlan& plan, anic_aside& record,
                  anic_split& split) {
  fill_record(plan, record);
  fill_split(plan, split);
  if (!is_as_planned(ANIC_TRY(device.read()), plan))
    return fail(Exit::Failed,
                fmt::format("set queues of {} aside: it has changed since that was planned", plan.ifname));
  Status done = store.write(record);
  if (done) done = make_changes(device, store, plan, record, split);
  if (done) return done;
  Error error = done.error();
  error.what = fmt::format("set queues of {} aside: {}", plan.ifname, error.what);
  const auto undone =
      undo_records(device, store, &record, plan.purpose == Purpose::Receive ? &split : nullptr);
  if (!undone) {
    error.what += fmt::format("; and it is not undone: {}", undone.error().what);
    error.hint = fmt::format("agentnic-load detach {} undoes it", plan.ifname);
  } else {
    for (const std::string& note : *undone) error.what += "; " + note;
  }
  return fail(std::move(error));
}

Result<std::vector<std::string>> undo_records(QueueDevice& device, AsideStore& store,
                                              const anic_aside* record, const anic_split* split) {
  Notes notes;
  const Status queues = record != nullptr ? undo_queues(device, store, *record, notes) : Status();
  const Status headers = split != nullptr ? undo_split(device, store, *split, notes) : Status();
  for (const Status* status : {&queues, &headers}) {
    if (!*status) return fail(status->error());
  }
  return notes;
}

Result<QueuePlan> plan_queues(const NetNs& netns, const std::string& ifname,
                              const std::vector<std::uint32_t>& queues,
                              const std::vector<QueueService>& services) {
  return plan_queues(ANIC_TRY(read_nic(netns, ifname)), queues, services);
}

Result<QueuePlan> plan_receive(const NetNs& netns, const std::string& ifname,
                               const std::vector<std::uint32_t>& queues,
                               const std::vector<QueueService>& services) {
  return plan_queues(ANIC_TRY(read_nic(netns, ifname)), queues, services, Purpose::Receive);
}

Status set_aside(const NetNs& netns, const QueuePlan& plan, const PinDir& dir) {
  const std::string what = fmt::format("set queues of {} aside", plan.ifname);
  ANIC_TRY(need_privileges(what));
  const UniqueFd lock = ANIC_TRY(lock_pins());
  if (::access(dir.path().c_str(), F_OK) != 0)
    return fail(Exit::Failed, what + ": agentnic is not attached to it");
  if (has_queues_aside(dir)) {
    return fail(Exit::Failed, what + ": some are already, or an attempt was interrupted",
                "agentnic-load detach gives them back");
  }
  return netns.run([&]() -> Status {
    const auto device = ANIC_TRY(open_queue_device(plan.ifname));
    PinnedStore store(dir);
    const auto record = std::make_unique<anic_aside>();
    record->netns_cookie = netns.cookie();
    record->ifindex = ANIC_TRY(find_interface(plan.ifname)).ifindex;
    anic_split split{.netns_cookie = record->netns_cookie,
                     .ifindex = record->ifindex,
                     .was_on = 0,
                     .threshold_changed = 0,
                     .threshold_before = 0};
    return apply_plan(*device, store, plan, *record, split);
  });
}

Result<std::vector<std::string>> give_back_locked(const PinDir& dir) {
  const Records records = ANIC_TRY(read_records(dir));
  if (!records.any()) return Notes();
  PinnedStore store(dir);
  const auto forget = [&]() -> Result<Notes> {
    ANIC_TRY(store.clear());
    ANIC_TRY(store.clear_split());
    return Notes{fmt::format("{} is not there any more: nothing of its queues was given back", dir.ifname)};
  };
  return undo_inside(dir, records.netns_cookie(), records.ifindex(),
                     fmt::format("give the queues of {} back", dir.ifname), forget,
                     [&](const std::string& ifname) -> Result<Notes> {
                       const auto device = ANIC_TRY(open_queue_device(ifname));
                       return undo_records(*device, store, records.queues.get(), records.split.get());
                     });
}

Result<std::vector<std::string>> give_back(const PinDir& dir) {
  ANIC_TRY(need_privileges(fmt::format("give the queues of {} back", dir.ifname)));
  if (!has_queues_aside(dir)) return Notes();
  const UniqueFd lock = ANIC_TRY(lock_pins());
  return give_back_locked(dir);
}

bool has_queues_aside(const PinDir& dir) {
  return ::access(dir.pin(kAsidePin).c_str(), F_OK) == 0 || ::access(dir.pin(kSplitPin).c_str(), F_OK) == 0;
}

bool is_set_aside(const PinDir& dir, std::uint32_t queue, Purpose purpose) {
  const auto records = read_records(dir);
  if (!records || !records->queues || (records->split != nullptr) != (purpose == Purpose::Receive))
    return false;
  const anic_aside& record = *records->queues;
  if (record.done == 0 || !has_bit(record, queue)) return false;
  const auto netns = NetNs::find(dir.netns_inode, record.netns_cookie);
  if (!netns) return false;
  const auto nic = netns->run([&]() -> Result<NicQueues> {
    char name[IF_NAMESIZE] = {};
    if (::if_indextoname(record.ifindex, name) == nullptr) return fail_errno(ENODEV, "find it");
    const auto device = ANIC_TRY(open_queue_device(name));
    return device->read();
  });
  return nic && !nic->table.empty() && std::ranges::find(nic->table, queue) == nic->table.end();
}

}  // namespace agentnic::kern
