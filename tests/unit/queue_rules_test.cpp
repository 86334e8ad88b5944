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
using kern::NicQueues;
using kern::QueuePlan;
using kern::QueueService;
using kern::RssTable;

namespace {

using Lines = std::vector<std::string>;

const QueueService kEcho = {"echo", IPPROTO_UDP, 9000, ANIC_ROLE_SERVER};
const QueueService kAsk = {"ask", IPPROTO_TCP, 700, ANIC_ROLE_CLIENT};

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
                  const std::vector<QueueService>& services = {kEcho}) {
  auto plan = kern::plan_queues(nic, queues, services);
  if (!plan) FAIL(plan.error().text());
  return *plan;
}

/// That it is refused in this way, and what is said.
std::string refusal(Exit exit, const NicQueues& nic, const std::vector<std::uint32_t>& queues,
                    const std::vector<QueueService>& services = {kEcho}) {
  const auto plan = kern::plan_queues(nic, queues, services);
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

  Status meet(const std::function<void()>& change) {
    const bool now = kind != Kind::Lives && steps-- == 0;
    if (now && kind == Kind::KilledBefore) throw Killed{};
    if (now && kind == Kind::Fails) return fail(Exit::Unsupported, "the driver refuses");
    change();
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
    return fate_.meet([&] { nic_.ntuple_on = on; });
  }
  Status set_table(const RssTable& table) override {
    return fate_.meet([&] { nic_.table = table; });
  }
  Status set_default_table() override {
    return fate_.meet([&] { nic_.table = default_table(nic_.table.size(), nic_.queues); });
  }
  Result<std::uint32_t> add_rule(const FlowRule& rule, std::uint32_t location) override {
    auto& rules = nic_.rules->rules;
    CHECK((location == ANIC_LOCATION_NONE) == nic_.rules->chooses_location);
    if (location == ANIC_LOCATION_NONE) {
      location = 1000;  // as one that counts
      for (const kern::RuleThere& there : rules) location = std::max(location, there.location + 1);
    }
    CHECK(std::ranges::find(rules, location, &kern::RuleThere::location) == rules.end());
    if (Status done = fate_.meet([&] {
          FlowRule kept = rule;
          if (loses_masks) kept.source_mask = 0;
          rules.push_back({.location = location, .queues = {rule.queue}, .rule = kept});
        });
        !done)
      return fail(done.error());
    return location;
  }
  Status remove_rule(std::uint32_t location) override {
    return fate_.meet([&] {
      std::erase_if(nic_.rules->rules, [&](const auto& there) { return there.location == location; });
    });
  }

  bool hides_rules = false;
  bool loses_masks = false;

 private:
  NicQueues& nic_;
  Fate& fate_;
};

class ModelStore final : public kern::AsideStore {
 public:
  ModelStore(std::unique_ptr<anic_aside>& kept, Fate& fate) : kept_(kept), fate_(fate) {}
  Status write(const anic_aside& record) override {
    return fate_.meet([&] { kept_ = std::make_unique<anic_aside>(record); });
  }
  Status clear() override {
    return fate_.meet([&] { kept_.reset(); });
  }

 private:
  std::unique_ptr<anic_aside>& kept_;
  Fate& fate_;
};

/// A NIC and the record of it, which outlive processes.
struct World {
  NicQueues nic;
  std::unique_ptr<anic_aside> record;
  bool hides_rules = false;
  bool loses_masks = false;

  Status apply(const QueuePlan& plan, Fate fate = {}) {
    ModelDevice device(nic, fate);
    device.hides_rules = hides_rules;
    device.loses_masks = loses_masks;
    ModelStore store(record, fate);
    const auto mine = std::make_unique<anic_aside>();
    return kern::apply_plan(device, store, plan, *mine);
  }
  Result<Lines> undo(Fate fate = {}) {
    ModelDevice device(nic, fate);
    device.hides_rules = hides_rules;
    ModelStore store(record, fate);
    return record ? kern::undo_record(device, store, *record) : Result<Lines>(Lines());
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
         same_rules(world.nic.rules, before.rules) && world.record == nullptr;
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
    World world{.nic = before, .record = {}};
    const QueuePlan plan = plan_of(before, {3}, {kEcho, kAsk});
    REQUIRE(world.apply(plan));
    REQUIRE(world.record);
    CHECK(world.record->done == 1);
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
  for (const NicQueues& before : kinds_of_nic()) {
    const QueuePlan plan = plan_of(before, {2, 3}, {kEcho, kAsk});
    int steps = 0;
    for (;; ++steps) {
      INFO("step " << steps);
      World world{.nic = before, .record = {}};
      const Status done = world.apply(plan, {Fate::Kind::Fails, steps});
      if (done) break;
      CHECK(done.error().what.starts_with("set queues of eth0 aside: the driver refuses"));
      CHECK(is_as_before(world, before));
    }
    CHECK(steps >= 10);
  }
}

TEST_CASE("queues: killed between any two steps of either way, what is left can be undone") {
  for (const NicQueues& before : kinds_of_nic()) {
    const QueuePlan plan = plan_of(before, {2, 3}, {kEcho});
    for (const auto kind : {Fate::Kind::KilledBefore, Fate::Kind::KilledAfter}) {
      bool was_killed = true;
      for (int steps = 0; was_killed; ++steps) {
        INFO("killed at step " << steps);
        World world{.nic = before, .record = {}};
        was_killed = false;
        try {
          const bool done = world.apply(plan, {kind, steps}).has_value();
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
        CHECK(is_as_before(world, before));
      }
    }
  }
}

TEST_CASE("queues: an undo that fails keeps the record, and says what hinders") {
  const NicQueues before = good_nic();
  for (int steps = 0;; ++steps) {
    World world{.nic = before, .record = {}};
    REQUIRE(world.apply(plan_of(before, {3})));
    const auto notes = world.undo({Fate::Kind::Fails, steps});
    if (!notes) CHECK(world.record != nullptr);
    if (!world.record) break;
    CHECK(world.undo());
    CHECK(is_as_before(world, before));
  }
}

TEST_CASE("queues: what somebody else has changed meanwhile is left, and said") {
  const NicQueues before = good_nic();
  World world{.nic = before, .record = {}};
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
  CHECK(world.record == nullptr);
}

TEST_CASE("queues: a NIC that has changed since it was read is left alone") {
  const NicQueues before = good_nic();
  const QueuePlan plan = plan_of(before, {3});
  World world{.nic = before, .record = {}};
  world.nic.table[0] = 1;
  const Status done = world.apply(plan);
  REQUIRE_FALSE(done);
  CHECK(done.error().exit == Exit::Failed);
  CHECK(world.record == nullptr);
}

TEST_CASE("queues: rules that show only with ntuple on are looked at then") {
  NicQueues before = good_nic();
  World world{.nic = before, .record = {}, .hides_rules = true};
  before.rules.reset();
  const QueuePlan plan = plan_of(before, {3});
  world.nic.rules->rules = {foreign_rule(1, 9000, 0)};
  const Status done = world.apply(plan);
  REQUIRE_FALSE(done);
  CHECK(done.error().what.contains("flow rule 1 already has the packets of port 9000"));
  CHECK(world.record == nullptr);
  CHECK(world.nic.table == before.table);
  CHECK(world.nic.rules->rules.size() == 1);

  world.nic.rules->rules.clear();
  world.nic.ntuple_on = false;
  CHECK(world.apply(plan));
  CHECK(world.undo()->empty());
}

TEST_CASE("queues: a driver that does not keep what it took is refused, and what it took is removed") {
  const NicQueues before = good_nic();
  World world{.nic = before, .record = {}, .loses_masks = true};
  const Status done = world.apply(plan_of(before, {2, 3}));
  REQUIRE_FALSE(done);
  CHECK(done.error().exit == Exit::Unsupported);
  CHECK(done.error().what ==
        "set queues of eth0 aside: the driver of eth0 (good) does not keep the flow rule "
        "that it has as 31");
  CHECK(is_as_before(world, before));
}
