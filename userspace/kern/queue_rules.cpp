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

namespace agentnic::kern {
namespace {

constexpr const char* kAsidePin = "anic_aside";

using Notes = std::vector<std::string>;

class PinnedStore final : public AsideStore {
 public:
  explicit PinnedStore(PinDir dir) : dir_(std::move(dir)) {}

  /// The record is there whole or not at all: the map gets its name when it has its content.
  Status write(const anic_aside& record) override {
    const bool is_new = !map_;
    if (is_new) {
      map_.reset(bpf_map_create(BPF_MAP_TYPE_ARRAY, kAsidePin, sizeof(std::uint32_t), sizeof(anic_aside), 1,
                                nullptr));
      if (!map_) return fail_errno(errno, "make the record of queues that are set aside");
    }
    const std::uint32_t zero = 0;
    if (bpf_map_update_elem(map_.get(), &zero, &record, BPF_ANY) != 0)
      return fail_errno(errno, "write the record of queues that are set aside");
    if (is_new && bpf_obj_pin(map_.get(), dir_.pin(kAsidePin).c_str()) != 0)
      return fail_errno(errno, "pin " + dir_.pin(kAsidePin));
    return {};
  }

  Status clear() override {
    if (::unlink(dir_.pin(kAsidePin).c_str()) != 0 && errno != ENOENT)
      return fail_errno(errno, "remove " + dir_.pin(kAsidePin));
    return {};
  }

 private:
  PinDir dir_;
  UniqueFd map_;
};

/// Nothing: there is none.
Result<std::unique_ptr<anic_aside>> read_record(const PinDir& dir) {
  const std::string path = dir.pin(kAsidePin);
  const UniqueFd fd(bpf_obj_get(path.c_str()));
  if (!fd && errno == ENOENT) return nullptr;
  bpf_map_info info{};
  std::uint32_t size = sizeof(info);
  if (!fd || bpf_map_get_info_by_fd(fd.get(), &info, &size) != 0) return fail_errno(errno, "open " + path);
  if (info.value_size != sizeof(anic_aside))
    return fail(Exit::Failed,
                fmt::format("read {}: it has {} bytes, not {}", path, info.value_size, sizeof(anic_aside)));
  auto record = std::make_unique<anic_aside>();
  const std::uint32_t zero = 0;
  if (bpf_map_lookup_elem(fd.get(), &zero, record.get()) != 0) return fail_errno(errno, "read " + path);
  return record;
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
  if (nic.table != plan.after) return differs("the RSS table that it took");
  for (std::size_t i = 0; i < plan.rules.size(); ++i) {
    const RuleThere* there = find_at(nic, record.rules[i].location);
    if (there == nullptr || there->rule != plan.rules[i])
      return differs(fmt::format("the flow rule that it has as {}", record.rules[i].location));
  }
  return {};
}

Status make_changes(QueueDevice& device, AsideStore& store, const QueuePlan& plan, anic_aside& record) {
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

}  // namespace

Status apply_plan(QueueDevice& device, AsideStore& store, const QueuePlan& plan, anic_aside& record) {
  fill_record(plan, record);
  const NicQueues now = ANIC_TRY(device.read());
  if (now.table != plan.before || now.ntuple_on == plan.turns_ntuple_on)
    return fail(Exit::Failed,
                fmt::format("set queues of {} aside: it has changed since that was planned", plan.ifname));
  Status done = store.write(record);
  if (done) done = make_changes(device, store, plan, record);
  if (done) return done;
  Error error = done.error();
  error.what = fmt::format("set queues of {} aside: {}", plan.ifname, error.what);
  const auto undone = undo_record(device, store, record);
  if (!undone) {
    error.what += fmt::format("; and it is not undone: {}", undone.error().what);
    error.hint = fmt::format("agentnic-load detach {} undoes it", plan.ifname);
  } else {
    for (const std::string& note : *undone) error.what += "; " + note;
  }
  return fail(std::move(error));
}

Result<std::vector<std::string>> undo_record(QueueDevice& device, AsideStore& store,
                                             const anic_aside& record) {
  Notes notes;
  const NicQueues nic = ANIC_TRY(device.read());
  const Status rules = undo_rules(device, nic, record, notes);
  const Status table = undo_table(device, nic, record, notes);
  // With a rule of ours still there it would seem to be somebody else's.
  const Status ntuple = rules ? undo_ntuple(device, record, notes) : rules;
  for (const Status* status : {&rules, &table, &ntuple}) {
    if (!*status) return fail(status->error());
  }
  ANIC_TRY(store.clear());
  return notes;
}

Result<QueuePlan> plan_queues(const NetNs& netns, const std::string& ifname,
                              const std::vector<std::uint32_t>& queues,
                              const std::vector<QueueService>& services) {
  const NicQueues nic = ANIC_TRY(netns.run([&]() -> Result<NicQueues> {
    const auto device = ANIC_TRY(open_queue_device(ifname));
    return device->read();
  }));
  return plan_queues(nic, queues, services);
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
    return apply_plan(*device, store, plan, *record);
  });
}

Result<std::vector<std::string>> give_back_locked(const PinDir& dir) {
  const auto record = ANIC_TRY(read_record(dir));
  if (!record) return Notes();
  PinnedStore store(dir);
  const std::string gone =
      fmt::format("{} is not there any more: nothing of its queues was given back", dir.ifname);
  const auto netns = NetNs::find(dir.netns_inode, record->netns_cookie);
  if (!netns && NetNs::has_processes(dir.netns_inode)) {
    return fail(Exit::Failed,
                fmt::format("give the queues of {} back: its network namespace (inode {}) has no name here",
                            dir.ifname, dir.netns_inode),
                "run it inside that namespace: nsenter --net=/proc/PID/ns/net");
  }
  if (!netns) {
    ANIC_TRY(store.clear());
    return Notes{gone};
  }
  return netns->run([&]() -> Result<Notes> {
    char name[IF_NAMESIZE] = {};
    if (::if_indextoname(record->ifindex, name) == nullptr) {
      ANIC_TRY(store.clear());
      return Notes{gone};
    }
    const auto device = ANIC_TRY(open_queue_device(name));
    return undo_record(*device, store, *record);
  });
}

Result<std::vector<std::string>> give_back(const PinDir& dir) {
  ANIC_TRY(need_privileges(fmt::format("give the queues of {} back", dir.ifname)));
  if (!has_queues_aside(dir)) return Notes();
  const UniqueFd lock = ANIC_TRY(lock_pins());
  return give_back_locked(dir);
}

bool has_queues_aside(const PinDir& dir) { return ::access(dir.pin(kAsidePin).c_str(), F_OK) == 0; }

bool is_set_aside(const PinDir& dir, std::uint32_t queue) {
  const auto record = read_record(dir);
  if (!record || *record == nullptr || (*record)->done == 0 || !has_bit(**record, queue)) return false;
  const auto netns = NetNs::find(dir.netns_inode, (*record)->netns_cookie);
  if (!netns) return false;
  const auto nic = netns->run([&]() -> Result<NicQueues> {
    char name[IF_NAMESIZE] = {};
    if (::if_indextoname((*record)->ifindex, name) == nullptr) return fail_errno(ENODEV, "find it");
    const auto device = ANIC_TRY(open_queue_device(name));
    return device->read();
  });
  return nic && !nic->table.empty() && std::ranges::find(nic->table, queue) == nic->table.end();
}

}  // namespace agentnic::kern
