// SPDX-License-Identifier: Apache-2.0
//
// Queues set aside for zero-copy: what is planned for NICs of all sorts, and on a model of one that it comes
// about, is undone when a step fails, and can be undone by another process when one is killed between two.

#include "kern/queue_rules.hpp"

#include <netinet/in.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

using namespace agentnic;
using kern::FlowRule;
using kern::HeaderSplit;
using kern::NicQueues;
using kern::Purpose;
using kern::QueuePlan;
using kern::QueueService;
using kern::RssTable;
using kern::SplitMode;

namespace {

using Lines = std::vector<std::string>;

const QueueService kEcho = {"echo", IPPROTO_UDP, 9000, ANIC_ROLE_SERVER};
const QueueService kAsk = {"ask", IPPROTO_TCP, 700, ANIC_ROLE_CLIENT};

const QueueService kGather = {"gather", IPPROTO_TCP, 9100, ANIC_ROLE_SERVER};

RssTable default_table(std::size_t size, std::uint32_t queues) {
  RssTable table(size);
  for (std::size_t i = 0; i < size; ++i) table[i] = static_cast<std::uint32_t>(i % queues);
  return table;
}

/// A NIC that has all it takes.
NicQueues good_nic(std::uint32_t queues = 4, std::size_t table_size = 128) {
  NicQueues nic;
  nic.ifname = "eth0";
  nic.driver = "good";
  nic.queues = queues;
  nic.table = default_table(table_size, queues);
  nic.ntuple_can_change = true;
  nic.rules = kern::RuleTable{.size = 32, .chooses_location = false, .rules = {}};
  return nic;
}

/// One that can receive with zero-copy, too.
NicQueues split_nic(HeaderSplit split = {SplitMode::Off, 256}) {
  NicQueues nic = good_nic();
  nic.header_split = split;
  return nic;
}

kern::RuleThere foreign_rule(std::uint32_t location, std::uint16_t port, std::uint32_t queue) {
  return {.location = location,
          .queues = {queue},
          .rule = FlowRule{.version = 4,
                           .protocol = IPPROTO_UDP,
                           .destination_port = port,
                           .destination_mask = 0xffff,
                           .queue = queue}};
}

QueuePlan plan_of(const NicQueues& nic, const std::vector<std::uint32_t>& queues,
                  const std::vector<QueueService>& services = {kEcho}, Purpose purpose = Purpose::Xsk) {
  auto plan = kern::plan_queues(nic, queues, services, purpose);
  if (!plan) FAIL(plan.error().text());
  return *plan;
}

QueuePlan receive_plan_of(const NicQueues& nic, const std::vector<std::uint32_t>& queues) {
  return plan_of(nic, queues, {kGather}, Purpose::Receive);
}

/// That it is refused in this way, and what is said.
std::string refusal(Exit exit, const NicQueues& nic, const std::vector<std::uint32_t>& queues,
                    const std::vector<QueueService>& services = {kEcho}, Purpose purpose = Purpose::Xsk) {
  const auto plan = kern::plan_queues(nic, queues, services, purpose);
  REQUIRE_FALSE(plan.has_value());
  CHECK(plan.error().exit == exit);
  return plan.error().what;
}

std::vector<std::uint32_t> counts(const RssTable& table, std::uint32_t queues) {
  std::vector<std::uint32_t> found(queues);
  for (const std::uint32_t queue : table) ++found.at(queue);
  return found;
}

/// The process is killed.
struct Killed {};

/// Counts down over all that a device or a store is asked to change, and at zero fails it or kills the
/// process, before or after the change is made.
struct Fate {
  enum class Kind { Lives, Fails, KilledBefore, KilledAfter };
  Kind kind = Kind::Lives;
  int steps = 0;
  Lines met = {};  ///< what was done

  Status meet(const std::string& step, const std::function<void()>& change) {
    const bool now = kind != Kind::Lives && steps-- == 0;
    if (now && kind == Kind::KilledBefore) throw Killed{};
    if (now && kind == Kind::Fails) return fail(Exit::Unsupported, "the driver refuses");
    change();
    met.push_back(step);
    if (now && kind == Kind::KilledAfter) throw Killed{};
    return {};
  }
};

class ModelDevice final : public kern::QueueDevice {
 public:
  ModelDevice(NicQueues& nic, Fate& fate) : nic_(nic), fate_(fate) {}

  Result<NicQueues> read() override {
    NicQueues seen = nic_;
    if (hides_rules && !nic_.ntuple_on) seen.rules.reset();
    return seen;
  }
  Status set_ntuple(bool on) override {
    return fate_.meet("ntuple", [&] { nic_.ntuple_on = on; });
  }
  Status set_table(const RssTable& table) override {
    return fate_.meet("table", [&] { nic_.table = table; });
  }
  Status set_default_table() override {
    return fate_.meet("table", [&] { nic_.table = default_table(nic_.table.size(), nic_.queues); });
  }
  Result<std::uint32_t> add_rule(const FlowRule& rule, std::uint32_t location) override {
    auto& rules = nic_.rules->rules;
    CHECK((location == ANIC_LOCATION_NONE) == nic_.rules->chooses_location);
    if (location == ANIC_LOCATION_NONE) {
      location = 1000;  // as one that counts
      for (const kern::RuleThere& there : rules) location = std::max(location, there.location + 1);
    }
    CHECK(std::ranges::find(rules, location, &kern::RuleThere::location) == rules.end());
    if (Status done =
            fate_.meet("rule",
                       [&] {
                         FlowRule kept = rule;
                         if (loses_masks) kept.source_mask = 0;
                         rules.push_back({.location = location, .queues = {rule.queue}, .rule = kept});
                       });
        !done)
      return fail(done.error());
    return location;
  }
  Status remove_rule(std::uint32_t location) override {
    return fate_.meet("rule", [&] {
      std::erase_if(nic_.rules->rules, [&](const auto& there) { return there.location == location; });
    });
  }

  Status set_header_split(SplitMode mode, std::optional<std::uint32_t> threshold) override {
    const bool stays = mode == SplitMode::Unstated ? driver_chooses == SplitMode::On : mode == SplitMode::On;
    if (receiver_runs && (!stays || threshold.value_or(0) != 0))
      return fail(Exit::Unsupported, "can't disable tcp-data-split");
    CHECK_FALSE((threshold && !nic_.header_split.threshold));  // the kernel refuses what the driver has not
    return fate_.meet("split", [&] {
      nic_.header_split.mode = mode == SplitMode::Unstated ? driver_chooses : mode;
      if (threshold && !keeps_threshold) nic_.header_split.threshold = threshold;
      stated = mode;
    });
  }

  bool hides_rules = false;
  bool loses_masks = false;
  bool keeps_threshold = false;
  bool receiver_runs = false;
  SplitMode driver_chooses = SplitMode::Off;
  SplitMode stated = SplitMode::Unstated;

 private:
  NicQueues& nic_;
  Fate& fate_;
};

struct Records {
  std::unique_ptr<anic_aside> queues;
  std::unique_ptr<anic_split> split;
};

class ModelStore final : public kern::AsideStore {
 public:
  ModelStore(Records& kept, Fate& fate) : kept_(kept), fate_(fate) {}
  Status write(const anic_aside& record) override {
    return fate_.meet("record of queues", [&] { kept_.queues = std::make_unique<anic_aside>(record); });
  }
  Status write_split(const anic_split& record) override {
    return fate_.meet("record of split", [&] { kept_.split = std::make_unique<anic_split>(record); });
  }
  Status clear() override {
    return fate_.meet("record of queues", [&] { kept_.queues.reset(); });
  }
  Status clear_split() override {
    return fate_.meet("record of split", [&] { kept_.split.reset(); });
  }

 private:
  Records& kept_;
  Fate& fate_;
};

/// A NIC and the records of it, which outlive processes.
struct World {
  NicQueues nic;
  Records record = {};
  bool hides_rules = false;
  bool loses_masks = false;
  bool keeps_threshold = false;
  bool receiver_runs = false;
  SplitMode driver_chooses = SplitMode::Off;
  SplitMode stated = SplitMode::Unstated;
  Lines steps = {};  ///< of the last call

  /// As one process, which may meet its fate.
  template <typename Call>
  auto on_device(Fate fate, const Call& call) {
    ModelDevice device(nic, fate);
    device.hides_rules = hides_rules;
    device.loses_masks = loses_masks;
    device.keeps_threshold = keeps_threshold;
    device.receiver_runs = receiver_runs;
    device.driver_chooses = driver_chooses;
    device.stated = stated;
    ModelStore store(record, fate);
    auto result = call(device, store);
    stated = device.stated;
    steps = fate.met;
    return result;
  }

  Status apply(const QueuePlan& plan, Fate fate = {}) {
    return on_device(fate, [&](ModelDevice& device, ModelStore& store) {
      const auto mine = std::make_unique<anic_aside>();
      anic_split split{};
      return kern::apply_plan(device, store, plan, *mine, split);
    });
  }
  Result<Lines> undo(Fate fate = {}) {
    return on_device(fate, [&](ModelDevice& device, ModelStore& store) {
      // Of the records as another process reads them.
      const auto queues = record.queues ? std::make_unique<anic_aside>(*record.queues) : nullptr;
      const auto split = record.split ? std::make_unique<anic_split>(*record.split) : nullptr;
      return kern::undo_records(device, store, queues.get(), split.get());
    });
  }
};

bool same_rules(const std::optional<kern::RuleTable>& one, const std::optional<kern::RuleTable>& two) {
  const auto locations = [](const kern::RuleTable& table) {
    std::vector<std::pair<std::uint32_t, std::uint32_t>> found;
    for (const auto& there : table.rules) found.emplace_back(there.location, there.queues.at(0));
    std::ranges::sort(found);
    return found;
  };
  return locations(*one) == locations(*two);
}

bool is_as_before(const World& world, const NicQueues& before) {
  return world.nic.table == before.table && world.nic.ntuple_on == before.ntuple_on &&
         same_rules(world.nic.rules, before.rules) && world.nic.header_split == before.header_split &&
         world.record.queues == nullptr && world.record.split == nullptr;
}

/// NICs that differ in what matters to the order of steps.
std::vector<NicQueues> kinds_of_nic() {
  std::vector<NicQueues> all;
  all.push_back(good_nic());
  all.push_back(good_nic(8, 64));
  all.back().ntuple_on = true;
  all.back().rules->rules = {foreign_rule(31, 53, 1), foreign_rule(4, 54, 0)};
  all.push_back(good_nic());
  all.back().rules->chooses_location = true;
  all.push_back(good_nic(4, 16));
  all.back().table = {0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 1, 0, 3};  // somebody's
  all.back().ntuple_on = true;
  return all;
}

/// What is planned on a NIC, whose driver splits headers or not when nobody tells it.
struct Setting {
  NicQueues before;
  QueuePlan plan;
  SplitMode driver_chooses = SplitMode::Off;

  [[nodiscard]] World world() const { return {.nic = before, .driver_chooses = driver_chooses}; }
};

std::vector<Setting> settings(const std::vector<QueueService>& services) {
  const std::vector<std::uint32_t> queues = {2, 3};
  std::vector<Setting> all;
  for (const NicQueues& nic : kinds_of_nic()) {
    all.push_back({.before = nic, .plan = plan_of(nic, queues, services)});
    all.push_back({.before = nic, .plan = {}});
    all.back().before.header_split = {SplitMode::Off, 256};
    all.back().plan = receive_plan_of(all.back().before, queues);
  }
  const auto add = [&](HeaderSplit split, SplitMode driver_chooses) {
    const NicQueues nic = split_nic(split);
    all.push_back({.before = nic, .plan = receive_plan_of(nic, queues), .driver_chooses = driver_chooses});
  };
  add({SplitMode::Off, std::nullopt}, SplitMode::Off);
  add({SplitMode::Off, 0}, SplitMode::On);  // somebody has turned it off
  add({SplitMode::On, 128}, SplitMode::On);
  add({SplitMode::On, 0}, SplitMode::Off);  // or on
  return all;
}

}  // namespace

TEST_CASE("queues: the dry run of one queue and one service is what one would type") {
  CHECK(kern::ethtool_lines(plan_of(good_nic(), {3})) ==
        Lines{"ethtool -K eth0 ntuple on", "ethtool -X eth0 weight 1 1 1 0",
              "ethtool -N eth0 flow-type udp4 dst-port 9000 action 3",
              "ethtool -N eth0 flow-type udp6 dst-port 9000 action 3"});
}

TEST_CASE("queues: what is so already takes no step") {
  NicQueues nic = good_nic();
  nic.ntuple_on = true;
  for (std::uint32_t& entry : nic.table) entry %= 3;
  const QueuePlan plan = plan_of(nic, {3});
  CHECK_FALSE(plan.turns_ntuple_on);
  CHECK(plan.after == plan.before);
  CHECK(kern::ethtool_lines(plan).size() == 2);
}

TEST_CASE("queues: a client's service is told by the port it asks, several queues by bits of the other") {
  CHECK(kern::ethtool_lines(plan_of(good_nic(), {2, 3}, {kAsk})) ==
        Lines{"ethtool -K eth0 ntuple on", "ethtool -X eth0 weight 1 1 0 0",
              "ethtool -N eth0 flow-type tcp4 src-port 700 dst-port 0 m 0xfffe action 2",
              "ethtool -N eth0 flow-type tcp4 src-port 700 dst-port 1 m 0xfffe action 3",
              "ethtool -N eth0 flow-type tcp6 src-port 700 dst-port 0 m 0xfffe action 2",
              "ethtool -N eth0 flow-type tcp6 src-port 700 dst-port 1 m 0xfffe action 3"});
  CHECK(plan_of(good_nic(8), {4, 5, 6, 7}).rules.size() == 8);
  const QueueService both = {"both", IPPROTO_UDP, 5, ANIC_ROLE_BOTH};
  CHECK(plan_of(good_nic(), {1}, {both}).rules.size() == 4);
}

TEST_CASE("queues: every packet of a service goes to exactly one of several queues") {
  const QueuePlan plan = plan_of(good_nic(8), {1, 4, 5, 7});
  for (std::uint32_t port = 0; port <= 0xffff; ++port) {
    FlowRule packet{
        .version = 4, .protocol = IPPROTO_UDP, .destination_port = 9000, .destination_mask = 0xffff};
    packet.source_port = static_cast<std::uint16_t>(port);
    packet.source_mask = 0xffff;
    const auto matching =
        std::ranges::count_if(plan.rules, [&](const FlowRule& rule) { return rule.meets(packet); });
    if (matching != 1) FAIL("port " << port << " has " << matching << " rules");
  }
}

TEST_CASE("queues: services of several tenants on one port have one rule") {
  QueueService other = kEcho;
  other.name = "of another";
  CHECK(plan_of(good_nic(), {3}, {kEcho, other}).rules.size() == 2);
}

TEST_CASE("queues: what is taken out of the table goes to the others by their shares") {
  using Counts = std::vector<std::uint32_t>;
  CHECK(counts(kern::spread_over_others(default_table(128, 4), 4, {3}), 4) == Counts{43, 43, 42, 0});
  CHECK(counts(kern::spread_over_others(default_table(128, 2), 2, {1}), 2) == Counts{128, 0});
  CHECK(counts(kern::spread_over_others(default_table(128, 8), 8, {1, 3, 5, 7}), 8) ==
        Counts{32, 0, 32, 0, 32, 0, 32, 0});
  const RssTable uneven = {0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2};  // 6, 3, 9
  CHECK(counts(kern::spread_over_others(uneven, 3, {2}), 3) == Counts{12, 6, 0});
  // a queue that had nothing gets nothing, unless there is no other
  CHECK(counts(kern::spread_over_others({0, 0, 3, 3}, 4, {3}), 4) == Counts{4, 0, 0, 0});
  CHECK(counts(kern::spread_over_others({3, 3, 3, 3}, 4, {3}), 4) == Counts{2, 1, 1, 0});
}

TEST_CASE("queues: of any table nothing is left to the queues, and only what was theirs changes") {
  std::mt19937 random(7);
  const auto below = [&](std::uint32_t limit) { return static_cast<std::uint32_t>(random() % limit); };
  for (int i = 0; i < 2'000; ++i) {
    const std::uint32_t queues = 2 + below(30);
    RssTable table(1 + below(300));
    for (std::uint32_t& entry : table) entry = below(1 + below(queues));
    std::vector<std::uint32_t> aside = {1 + below(queues - 1)};
    const RssTable spread = kern::spread_over_others(table, queues, aside);
    REQUIRE(spread.size() == table.size());
    for (std::size_t at = 0; at < table.size(); ++at) {
      REQUIRE(spread[at] != aside[0]);
      if (table[at] != aside[0]) REQUIRE(spread[at] == table[at]);
    }
    // nobody gets more than their share of it, rounded up
    const auto had = counts(table, queues);
    const auto has = counts(spread, queues);
    const std::uint64_t freed = had[aside[0]];
    const std::uint64_t others = table.size() - freed;
    for (std::uint32_t queue = 0; queue < queues && others != 0; ++queue) {
      if (queue != aside[0]) REQUIRE((has[queue] - had[queue]) * others <= freed * had[queue] + 2 * others);
    }
  }
}

TEST_CASE("queues: a NIC without what it takes is named with what is missing") {
  NicQueues nic = good_nic();
  nic.ifname = "lab0";
  nic.driver = "veth";
  nic.queues = 1;
  nic.table.clear();
  CHECK(refusal(Exit::Unsupported, nic, {0}) ==
        "set queue 0 of lab0 aside: lab0 (veth) has one receive queue, which takes everything");
  nic.queues = 2;
  CHECK(refusal(Exit::Unsupported, nic, {1}) ==
        "set queue 1 of lab0 aside: lab0 (veth) has no RSS table to take them out of");
  nic = good_nic();
  nic.ntuple_can_change = false;
  CHECK(refusal(Exit::Unsupported, nic, {1}) ==
        "set queue 1 of eth0 aside: eth0 (good) takes no flow rules (no ntuple)");
  nic.ntuple_on = true;
  nic.rules.reset();
  CHECK(refusal(Exit::Unsupported, nic, {1}) ==
        "set queue 1 of eth0 aside: the driver of eth0 (good) does not say what flow rules it has");
  nic = good_nic(4, ANIC_ASIDE_TABLE_MAX + 1);
  CHECK(refusal(Exit::Unsupported, nic, {1}).ends_with("has 4097 entries, more than 4096"));
  nic = good_nic();
  nic.rules->size = 1;
  CHECK(refusal(Exit::Unsupported, nic, {1})
            .ends_with("take 2 flow rules, and eth0 (good) has room for 1 more"));
  CHECK(refusal(Exit::Unsupported, good_nic(), {1},
                [] {
                  std::vector<QueueService> many;
                  for (std::uint16_t port = 1; port <= 300; ++port)
                    many.push_back({"many", IPPROTO_UDP, port, ANIC_ROLE_SERVER});
                  return many;
                }())
            .ends_with("it would take 600 flow rules, more than 512"));
}

TEST_CASE("queues: queues that cannot be meant are bad input") {
  const NicQueues nic = good_nic();
  CHECK(refusal(Exit::BadInput, nic, {}) == "set queues of eth0 aside: which?");
  CHECK(refusal(Exit::BadInput, nic, {4}) ==
        "set queue 4 of eth0 aside: eth0 (good) has queues 0 to 3 that can be set aside");
  CHECK(refusal(Exit::BadInput, nic, {0, 1}) ==
        "set queues 0, 1 of eth0 aside: queue 0 also takes what the NIC does not hash, such as ARP");
  CHECK(
      refusal(Exit::BadInput, nic, {1, 2, 3}) ==
      "set queues 1, 2, 3 of eth0 aside: 3 queues cannot share a service, which is split by bits of a port");
  CHECK(refusal(Exit::BadInput, nic, {3}, {}) ==
        "set queue 3 of eth0 aside: no service of the policy is on path xsk, so nothing would come there");
  CHECK(plan_of(nic, {3, 3}).queues == std::vector<std::uint32_t>{3});
}

TEST_CASE("queues: rules of somebody else are never in the way unsaid") {
  NicQueues nic = good_nic();
  nic.ntuple_on = true;
  nic.rules->rules = {foreign_rule(5, 53, 3)};
  CHECK(refusal(Exit::BadInput, nic, {3}) ==
        "set queue 3 of eth0 aside: flow rule 5 already sends to queue 3");
  nic.rules->rules[0].rule.reset();  // whatever it says
  CHECK(refusal(Exit::BadInput, nic, {3}) ==
        "set queue 3 of eth0 aside: flow rule 5 already sends to queue 3");
  nic.rules->rules[0].queues = {0, 1, 2, 3};  // by an RSS context
  CHECK(refusal(Exit::BadInput, nic, {3}) ==
        "set queue 3 of eth0 aside: flow rule 5 already sends to queue 3");
  nic.rules->rules = {foreign_rule(6, 9000, 1)};
  CHECK(refusal(Exit::BadInput, nic, {3}) ==
        "set queue 3 of eth0 aside: flow rule 6 already has the packets of port 9000");
  nic.rules->rules[0].rule->destination_mask = 0;  // all of UDP
  nic.rules->rules[0].rule->destination_port = 0;
  CHECK(refusal(Exit::BadInput, nic, {3}) ==
        "set queue 3 of eth0 aside: flow rule 6 already has the packets of port 9000");
  nic.rules->rules = {foreign_rule(6, 9001, 1)};
  CHECK(plan_of(nic, {3}).rules.size() == 2);
}

TEST_CASE("queues: what is planned comes about, and giving it back leaves nothing") {
  for (const NicQueues& before : kinds_of_nic()) {
    World world{.nic = before};
    const QueuePlan plan = plan_of(before, {3}, {kEcho, kAsk});
    REQUIRE(world.apply(plan));
    REQUIRE(world.record.queues);
    CHECK(world.record.queues->done == 1);
    CHECK(world.nic.ntuple_on);
    CHECK(std::ranges::find(world.nic.table, 3) == world.nic.table.end());
    CHECK(world.nic.rules->rules.size() == before.rules->rules.size() + 4);
    const auto notes = world.undo();
    REQUIRE(notes);
    CHECK(notes->empty());
    CHECK(is_as_before(world, before));
    CHECK(world.undo());
  }
}

TEST_CASE("queues: whichever step fails, the NIC is as before") {
  for (const Setting& setting : settings({kEcho, kAsk})) {
    int steps = 0;
    for (;; ++steps) {
      INFO("step " << steps);
      World world = setting.world();
      const Status done = world.apply(setting.plan, {Fate::Kind::Fails, steps});
      if (done) break;
      CHECK(done.error().what.starts_with("set queues of eth0 aside: the driver refuses"));
      CHECK(is_as_before(world, setting.before));
    }
    CHECK(steps >= 10);
  }
}

TEST_CASE("queues: killed between any two steps of either way, what is left can be undone") {
  for (const Setting& setting : settings({kEcho})) {
    for (const auto kind : {Fate::Kind::KilledBefore, Fate::Kind::KilledAfter}) {
      bool was_killed = true;
      for (int steps = 0; was_killed; ++steps) {
        INFO("killed at step " << steps);
        World world = setting.world();
        was_killed = false;
        try {
          const bool done = world.apply(setting.plan, {kind, steps}).has_value();
          CHECK(done);
        } catch (const Killed&) {
          was_killed = true;
        }
        // and who undoes it is killed, too
        bool was_killed_again = true;
        for (int more = 0; was_killed_again; ++more) {
          was_killed_again = false;
          try {
            const auto notes = world.undo({kind, more});
            REQUIRE(notes);
            CHECK(notes->empty());
          } catch (const Killed&) {
            was_killed_again = true;
          }
        }
        CHECK(is_as_before(world, setting.before));
      }
    }
  }
}

TEST_CASE("queues: an undo that fails keeps the record, and says what hinders") {
  for (const Setting& setting : settings({kEcho})) {
    for (int steps = 0; steps < 20; ++steps) {  // more than there are
      INFO("step " << steps);
      World world = setting.world();
      REQUIRE(world.apply(setting.plan));
      const auto notes = world.undo({Fate::Kind::Fails, steps});
      if (!notes) CHECK((world.record.queues != nullptr || world.record.split != nullptr));
      const auto rest = world.undo();
      REQUIRE(rest);
      CHECK(rest->empty());
      if (notes && !notes->empty()) {
        CHECK(*notes == Lines{"header/data split of eth0 stays on, as its driver (good) chooses now"});
        CHECK(setting.driver_chooses == SplitMode::On);
        world.nic.header_split.mode = SplitMode::Off;
      }
      CHECK(is_as_before(world, setting.before));
    }
  }
}

TEST_CASE("queues: what somebody else has changed meanwhile is left, and said") {
  const NicQueues before = good_nic();
  World world{.nic = before};
  REQUIRE(world.apply(plan_of(before, {3})));

  SECTION("a rule that is deleted") {
    world.nic.rules->rules.erase(world.nic.rules->rules.begin());
    CHECK(world.undo()->empty());
    CHECK(is_as_before(world, before));
  }
  SECTION("a rule in the place of ours") {
    world.nic.rules->rules[0] = foreign_rule(world.nic.rules->rules[0].location, 1, 0);
    CHECK(*world.undo() == Lines{"flow rule 31 of eth0 is another one now, and is left",
                                 "ntuple of eth0 stays on: there are flow rules of somebody else"});
    CHECK(world.nic.rules->rules.size() == 1);
    CHECK(world.nic.table == before.table);
  }
  SECTION("a rule beside ours") {
    world.nic.rules->rules.push_back(foreign_rule(2, 53, 0));
    CHECK(*world.undo() == Lines{"ntuple of eth0 stays on: there are flow rules of somebody else"});
    CHECK(world.nic.rules->rules.size() == 1);
  }
  SECTION("the table") {
    world.nic.table[0] = 2;
    const RssTable theirs = world.nic.table;
    CHECK(*world.undo() == Lines{"the RSS table of eth0 was changed by somebody else, and is left; the "
                                 "driver's own: ethtool -X eth0 default"});
    CHECK(world.nic.table == theirs);
    CHECK(world.nic.rules->rules.empty());
    CHECK_FALSE(world.nic.ntuple_on);
  }
  SECTION("the table has been put back") {
    world.nic.table = before.table;
    CHECK(world.undo()->empty());
    CHECK(is_as_before(world, before));
  }
  SECTION("ntuple is off, and all rules with it") {
    world.nic.ntuple_on = false;
    world.nic.rules->rules.clear();
    CHECK(world.undo()->empty());
    CHECK(is_as_before(world, before));
  }
  CHECK(world.record.queues == nullptr);
}

TEST_CASE("queues: a NIC that has changed since it was read is left alone") {
  const NicQueues before = good_nic();
  const QueuePlan plan = plan_of(before, {3});
  World world{.nic = before};
  world.nic.table[0] = 1;
  const Status done = world.apply(plan);
  REQUIRE_FALSE(done);
  CHECK(done.error().exit == Exit::Failed);
  CHECK(world.record.queues == nullptr);
}

TEST_CASE("queues: rules that show only with ntuple on are looked at then") {
  NicQueues before = good_nic();
  World world{.nic = before, .hides_rules = true};
  before.rules.reset();
  const QueuePlan plan = plan_of(before, {3});
  world.nic.rules->rules = {foreign_rule(1, 9000, 0)};
  const Status done = world.apply(plan);
  REQUIRE_FALSE(done);
  CHECK(done.error().what.contains("flow rule 1 already has the packets of port 9000"));
  CHECK(world.record.queues == nullptr);
  CHECK(world.nic.table == before.table);
  CHECK(world.nic.rules->rules.size() == 1);

  world.nic.rules->rules.clear();
  world.nic.ntuple_on = false;
  CHECK(world.apply(plan));
  CHECK(world.undo()->empty());
}

TEST_CASE("queues: a driver that does not keep what it took is refused, and what it took is removed") {
  const NicQueues before = good_nic();
  World world{.nic = before, .loses_masks = true};
  const Status done = world.apply(plan_of(before, {2, 3}));
  REQUIRE_FALSE(done);
  CHECK(done.error().exit == Exit::Unsupported);
  CHECK(done.error().what ==
        "set queues of eth0 aside: the driver of eth0 (good) does not keep the flow rule "
        "that it has as 31");
  CHECK(is_as_before(world, before));
}

TEST_CASE("queues: the dry run of zero-copy receive states header/data split first") {
  CHECK(kern::ethtool_lines(receive_plan_of(split_nic(), {3})) ==
        Lines{"ethtool -G eth0 tcp-data-split on hds-thresh 0", "ethtool -K eth0 ntuple on",
              "ethtool -X eth0 weight 1 1 1 0", "ethtool -N eth0 flow-type tcp4 dst-port 9100 action 3",
              "ethtool -N eth0 flow-type tcp6 dst-port 9100 action 3"});
  const auto first = [](HeaderSplit split) {
    return kern::ethtool_lines(receive_plan_of(split_nic(split), {3})).front();
  };
  CHECK(first({SplitMode::Off, std::nullopt}) == "ethtool -G eth0 tcp-data-split on");
  CHECK(first({SplitMode::Off, 0}) == "ethtool -G eth0 tcp-data-split on");
  CHECK(first({SplitMode::On, 0}) ==
        "ethtool -G eth0 tcp-data-split on");  // which the driver may have chosen
  CHECK(first({SplitMode::On, 64}) == "ethtool -G eth0 tcp-data-split on hds-thresh 0");
  // AF_XDP needs none of it
  CHECK(kern::ethtool_lines(plan_of(split_nic(), {3})).front() == "ethtool -K eth0 ntuple on");
}

TEST_CASE("queues: a NIC that cannot receive with zero-copy is named with all that is missing") {
  const auto said = [](const NicQueues& nic, Exit exit = Exit::Unsupported,
                       const std::vector<QueueService>& services = {kGather}) {
    return refusal(exit, nic, {1}, services, Purpose::Receive);
  };
  NicQueues nic;
  nic.ifname = "lab0";
  nic.driver = "veth";
  CHECK(said(nic) ==
        "set queue 1 of lab0 aside for zero-copy receive: lab0 (veth) has one receive queue, which takes "
        "everything; lab0 (veth) has no RSS table to take them out of; lab0 (veth) takes no flow rules (no "
        "ntuple); lab0 (veth) has no header/data split (tcp-data-split)");

  const std::string begin = "set queue 1 of eth0 aside for zero-copy receive: ";
  CHECK(said(good_nic()) == begin + "eth0 (good) has no header/data split (tcp-data-split)");
  nic = split_nic();
  nic.ntuple_can_change = false;
  CHECK(said(nic) == begin + "eth0 (good) takes no flow rules (no ntuple)");
  nic = split_nic();
  nic.table.clear();
  CHECK(said(nic) == begin + "eth0 (good) has no RSS table to take them out of");
  nic = split_nic();
  nic.queues = 1;
  CHECK(said(nic) == begin + "eth0 (good) has one receive queue, which takes everything");

  nic = split_nic();
  nic.has_xdp = true;
  CHECK(said(nic) == begin + "eth0 (good) has an XDP program");
  CHECK(kern::plan_queues(nic, {1}, {kGather}, Purpose::Receive).error().hint.contains("--mode tc"));
  CHECK(plan_of(nic, {1}).queues.size() == 1);  // which AF_XDP needs
  nic.header_split = {};
  CHECK(said(nic) ==
        begin + "eth0 (good) has no header/data split (tcp-data-split); eth0 (good) has an XDP program");

  CHECK(said(split_nic(), Exit::BadInput, {kGather, kEcho}) ==
        begin + "service echo is udp, and it is of TCP alone");
  CHECK(said(split_nic(), Exit::BadInput, {}) == begin + "no service, so nothing would come there");
}

TEST_CASE("queues: zero-copy receive gets all headers split, and gives back what was") {
  for (const Setting& setting : settings({kEcho})) {
    if (setting.plan.purpose != Purpose::Receive) continue;
    World world = setting.world();
    REQUIRE(world.apply(setting.plan));
    CHECK(world.stated == SplitMode::On);
    CHECK(world.nic.header_split.mode == SplitMode::On);
    CHECK(world.nic.header_split.threshold.value_or(0) == 0);
    CHECK((world.record.queues->done == 1 && world.record.split != nullptr));
    const auto notes = world.undo();
    REQUIRE(notes);
    CHECK(notes->empty());
    CHECK(is_as_before(world, setting.before));
    // A driver that comes to the same is let choose; what was on may have been stated.
    const bool was_on = setting.before.header_split.mode == SplitMode::On;
    const bool agrees = setting.driver_chooses == SplitMode::Off;
    CHECK(world.stated == (was_on ? SplitMode::On : agrees ? SplitMode::Unstated : SplitMode::Off));
  }
}

TEST_CASE("queues: records are written before what they are of, and all is undone in the opposite order") {
  World world{.nic = split_nic()};
  world.nic.rules->chooses_location = true;
  REQUIRE(world.apply(receive_plan_of(world.nic, {3})));
  CHECK(world.steps == Lines{"record of queues", "record of split", "split", "ntuple", "table", "rule",
                             "record of queues", "rule", "record of queues", "record of queues"});
  REQUIRE(world.undo());
  CHECK(world.steps ==
        Lines{"rule", "rule", "table", "ntuple", "record of queues", "split", "record of split"});
}

TEST_CASE("queues: header/data split that somebody else has changed meanwhile is left, and said") {
  SECTION("turned off, as it was") {
    World world{.nic = split_nic()};
    REQUIRE(world.apply(receive_plan_of(world.nic, {3})));
    world.nic.header_split = {SplitMode::Off, 256};
    CHECK(world.undo()->empty());
    CHECK(is_as_before(world, split_nic()));
  }
  SECTION("turned off, as it was, and the threshold is ours") {
    World world{.nic = split_nic()};
    REQUIRE(world.apply(receive_plan_of(world.nic, {3})));
    world.nic.header_split.mode = SplitMode::Off;
    CHECK(world.undo()->empty());
    CHECK(is_as_before(world, split_nic()));
  }
  SECTION("turned off, as it was not") {
    const NicQueues before = split_nic({SplitMode::On, 0});
    World world{.nic = before};
    REQUIRE(world.apply(receive_plan_of(before, {3})));
    world.nic.header_split.mode = SplitMode::Off;
    CHECK(*world.undo() == Lines{"header/data split of eth0 was turned off by somebody else, and is left"});
    CHECK(world.nic.header_split == HeaderSplit{SplitMode::Off, 0});
    CHECK((world.record.queues == nullptr && world.record.split == nullptr));
  }
  SECTION("another threshold") {
    World world{.nic = split_nic()};
    REQUIRE(world.apply(receive_plan_of(world.nic, {3})));
    world.nic.header_split.threshold = 512;
    CHECK(*world.undo() == Lines{"hds-thresh of eth0 was changed by somebody else, and is left"});
    CHECK(world.nic.header_split == HeaderSplit{SplitMode::Off, 512});
    CHECK((world.record.queues == nullptr && world.record.split == nullptr));
  }
  SECTION("a threshold where there was none to speak of") {
    World world{.nic = split_nic({SplitMode::On, 0})};
    REQUIRE(world.apply(receive_plan_of(world.nic, {3})));
    world.nic.header_split.threshold = 512;
    CHECK(world.undo()->empty());
    CHECK(world.nic.header_split == HeaderSplit{SplitMode::On, 512});
  }
}

TEST_CASE("queues: while somebody receives with zero-copy the queues come back, and the split does later") {
  const NicQueues before = split_nic();
  World world{.nic = before};
  REQUIRE(world.apply(receive_plan_of(before, {3})));
  world.receiver_runs = true;
  const auto notes = world.undo();
  REQUIRE_FALSE(notes);
  CHECK(notes.error().exit == Exit::Failed);
  CHECK(notes.error().text() ==
        "can't disable tcp-data-split; hint: a program that still receives with zero-copy must end first");
  CHECK(world.record.queues == nullptr);
  CHECK(world.record.split != nullptr);
  CHECK((world.nic.table == before.table && world.nic.rules->rules.empty() && !world.nic.ntuple_on));
  CHECK(world.nic.header_split == HeaderSplit{SplitMode::On, 0});
  world.receiver_runs = false;
  CHECK(world.undo()->empty());
  CHECK(is_as_before(world, before));
}

TEST_CASE("queues: a driver that keeps a threshold is refused for zero-copy receive") {
  const NicQueues before = split_nic();
  World world{.nic = before, .keeps_threshold = true};
  const Status done = world.apply(receive_plan_of(before, {3}));
  REQUIRE_FALSE(done);
  CHECK(done.error().exit == Exit::Unsupported);
  CHECK(done.error().what ==
        "set queues of eth0 aside: the driver of eth0 (good) does not keep header/data split of all packets "
        "on");
  CHECK(is_as_before(world, before));
}

TEST_CASE("queues: header/data split or an XDP program that has changed since it was read is left alone") {
  const QueuePlan plan = receive_plan_of(split_nic(), {3});
  for (const bool is_xdp : {false, true}) {
    World world{.nic =
                    split_nic(is_xdp ? HeaderSplit{SplitMode::Off, 256} : HeaderSplit{SplitMode::On, 256})};
    world.nic.has_xdp = is_xdp;
    const Status done = world.apply(plan);
    REQUIRE_FALSE(done);
    CHECK(done.error().exit == Exit::Failed);
    CHECK((world.record.queues == nullptr && world.record.split == nullptr));
  }
}
