// SPDX-License-Identifier: Apache-2.0
//
// NAPI settings of a policy: their words, and on a model of an interface that they come about, are undone
// when a step fails, and can be undone by another process when one is killed between two.

#include "kern/napi.hpp"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "policy/parse.hpp"

using namespace agentnic;
using kern::NapiThere;
using policy::Napi;

namespace {

using Lines = std::vector<std::string>;
using Napis = std::vector<NapiThere>;

Napi settings(std::uint64_t irqs, std::uint64_t flush, std::uint64_t suspend, std::uint64_t threaded) {
  return {std::nullopt, irqs, flush, suspend, threaded};
}

/// Two that differ, as somebody has set them.
Napis two_napis() {
  return {{.id = 8193, .settings = settings(0, 0, 0, 0)}, {.id = 8194, .settings = settings(9, 50, 0, 1)}};
}

Napi wanted(std::uint64_t irqs = 2) {
  Napi napi;
  napi[ANIC_NAPI_DEFER_HARD_IRQS] = irqs;
  napi[ANIC_NAPI_THREADED] = 1;
  return napi;
}

/// The process is killed.
struct Killed {};

/// Counts down over all that is changed, and at zero fails it or kills the process, before or after.
struct Fate {
  enum class Kind { Lives, Fails, KilledBefore, KilledAfter };
  Kind kind = Kind::Lives;
  int steps = 0;

  Status meet(const std::function<void()>& change) {
    const bool now = kind != Kind::Lives && steps-- == 0;
    if (now && kind == Kind::KilledBefore) throw Killed{};
    if (now && kind == Kind::Fails) return fail(Exit::Failed, "the kernel refuses");
    change();
    if (now && kind == Kind::KilledAfter) throw Killed{};
    return {};
  }
};

class ModelDevice final : public kern::NapiDevice {
 public:
  ModelDevice(Napis& napis, Fate& fate, bool ignores_threads)
      : napis_(napis), fate_(fate), ignores_threads_(ignores_threads) {}

  Result<Napis> read() override { return napis_; }
  Status set(std::uint32_t id, const Napi& values) override {
    const auto there = std::ranges::find(napis_, id, &NapiThere::id);
    if (there == napis_.end()) return fail(Exit::BadInput, "it is not there");
    return fate_.meet([&] {
      for (const auto setting : policy::kNapiSettings) {
        if (values[setting] && !(ignores_threads_ && setting == ANIC_NAPI_THREADED))
          there->settings[setting] = values[setting];
      }
    });
  }

 private:
  Napis& napis_;
  Fate& fate_;
  bool ignores_threads_;
};

class ModelStore final : public kern::NapiStore {
 public:
  ModelStore(std::unique_ptr<anic_napi_record>& kept, Fate& fate) : kept_(kept), fate_(fate) {}
  Status write(const anic_napi_record& record) override {
    return fate_.meet([&] { kept_ = std::make_unique<anic_napi_record>(record); });
  }
  Status clear() override {
    return fate_.meet([&] { kept_.reset(); });
  }

 private:
  std::unique_ptr<anic_napi_record>& kept_;
  Fate& fate_;
};

/// An interface and the record of it, which outlive processes.
struct World {
  Napis napis = two_napis();
  std::unique_ptr<anic_napi_record> record = nullptr;
  bool ignores_threads = false;

  Result<Lines> apply(const Napi& napi, Fate fate = {}) {
    ModelDevice device(napis, fate, ignores_threads);
    ModelStore store(record, fate);
    const auto mine =
        record ? std::make_unique<anic_napi_record>(*record) : std::make_unique<anic_napi_record>();
    return kern::apply_napi(device, store, *mine, napi, "eth0");
  }
  Result<Lines> undo(Fate fate = {}) {
    ModelDevice device(napis, fate, false);
    ModelStore store(record, fate);
    const auto mine = record ? std::make_unique<anic_napi_record>(*record) : nullptr;
    return mine ? kern::undo_napi(device, store, *mine, "eth0") : Result<Lines>(Lines());
  }
  [[nodiscard]] bool has(const Napi& first, const Napi& second) const {
    return napis.size() == 2 && napis[0].settings == first && napis[1].settings == second;
  }
  [[nodiscard]] bool is_as_before() const {
    return has(two_napis()[0].settings, two_napis()[1].settings) && record == nullptr;
  }
};

}  // namespace

TEST_CASE("napi: a policy states what it wants, and nothing else") {
  const std::string rest = R"("version": 1, "name": "p", "services": [])";
  const auto read = [&](const std::string& napi) {
    const auto policy = policy::parse("{" + rest + ", \"napi\": {" + napi + "}}", "p");
    INFO((policy ? "" : policy.error().text()));
    REQUIRE(policy);
    return policy->napi;
  };
  CHECK(policy::is_empty(policy::parse("{" + rest + "}", "p")->napi));
  CHECK(policy::is_empty(read("")));
  CHECK(read(R"("defer_hard_irqs": 2, "gro_flush_timeout": "200us", "irq_suspend_timeout": "20ms",
                "threaded": false)") == settings(2, 200'000, 20'000'000, 0));
  CHECK(read(R"("defer_hard_irqs": 2147483647)")[ANIC_NAPI_DEFER_HARD_IRQS] == 2'147'483'647);
  CHECK(policy::napi_text(settings(0, 1'500, 60'000'000'000, 1)) ==
        "defer_hard_irqs 0, gro_flush_timeout 1.5us, irq_suspend_timeout 60s, threaded true");
  CHECK(policy::napi_text(wanted()) == "defer_hard_irqs 2, threaded true");
  CHECK(policy::napi_value_text(ANIC_NAPI_THREADED, 2) == "2");
}

TEST_CASE("napi: what is wanted comes about in all, and undoing it leaves each as it was") {
  World world;
  REQUIRE(world.apply(wanted()));
  CHECK(world.has(settings(2, 0, 0, 1), settings(2, 50, 0, 1)));
  CHECK(world.record->done == 1);
  const auto again = world.apply(wanted());
  REQUIRE(again);
  CHECK(again->empty());
  const auto notes = world.undo();
  REQUIRE(notes);
  CHECK(notes->empty());
  CHECK(world.is_as_before());
  CHECK(world.undo());
}

TEST_CASE("napi: one that comes later is set too, and undone; one that has gone is no error") {
  World world;
  REQUIRE(world.apply(wanted()));
  world.napis[0] = {.id = 9000, .settings = settings(4, 0, 0, 0)};
  CHECK(world.apply(wanted()).value() == Lines{"NAPIs of eth0 that came since were set: 1"});
  CHECK(world.has(settings(2, 0, 0, 1), settings(2, 50, 0, 1)));
  CHECK(world.record->count == 2);
  CHECK(world.undo().value().empty());
  CHECK(world.has(settings(4, 0, 0, 0), settings(9, 50, 0, 1)));
  REQUIRE(world.apply(wanted()));
  world.napis.push_back({.id = 9001, .settings = settings(3, 0, 0, 1)});  // with what was ours, over a reset
  CHECK(world.undo().value().empty());
  CHECK(world.napis.back().settings == settings(3, 0, 0, 0));
  world.napis.pop_back();
  REQUIRE(world.apply(wanted()));
  world.napis.clear();
  CHECK(world.undo().value().empty());
  CHECK(world.record == nullptr);
}

TEST_CASE("napi: what somebody else has set since stays, and is said once for each setting") {
  World world;
  REQUIRE(world.apply(wanted()));
  world.napis[0].settings[ANIC_NAPI_DEFER_HARD_IRQS] = 77;
  world.napis[1].settings[ANIC_NAPI_DEFER_HARD_IRQS] = 77;
  world.napis[0].settings[ANIC_NAPI_THREADED] = 2;
  world.napis[1].settings[ANIC_NAPI_GRO_FLUSH_TIMEOUT] = 1;  // which was not ours
  CHECK(world.undo().value() ==
        Lines{"defer_hard_irqs of eth0 (NAPI 8193, 77 and 1 more) was changed by somebody else, and is left",
              "threaded of eth0 (NAPI 8193, 2) was changed by somebody else, and is left"});
  CHECK(world.has(settings(77, 0, 0, 2), settings(77, 1, 0, 1)));
  CHECK(world.record == nullptr);
}

TEST_CASE("napi: what a kernel does not say or does not keep is refused, and undone") {
  World silent;
  silent.napis[1].settings[ANIC_NAPI_THREADED].reset();
  const auto untold = silent.apply(wanted());
  REQUIRE_FALSE(untold);
  CHECK(untold.error().exit == Exit::Unsupported);
  CHECK(untold.error().what == "set the NAPIs of eth0: this kernel does not say their threaded");
  CHECK(silent.record == nullptr);

  World deaf{.ignores_threads = true};
  const auto unkept = deaf.apply(wanted());
  REQUIRE_FALSE(unkept);
  CHECK(unkept.error().what == "NAPI 8193 of eth0 does not keep the threaded that it took");
  CHECK(deaf.is_as_before());

  World large;
  for (std::uint32_t id = 9000; large.napis.size() <= ANIC_NAPIS_MAX; ++id)
    large.napis.push_back({.id = id, .settings = settings(0, 0, 0, 0)});
  CHECK(large.apply(wanted()).error().what == "set the NAPIs of eth0: there are 1025, more than 1024");
}

TEST_CASE("napi: whichever step fails, all is as before") {
  int steps = 0;
  for (;; ++steps) {
    INFO("step " << steps);
    World world;
    const auto done = world.apply(wanted(), {Fate::Kind::Fails, steps});
    if (done) break;
    CHECK(done.error().what == "the kernel refuses");
    CHECK(world.is_as_before());
  }
  CHECK(steps == 4);  // the record, two NAPIs, the record again
}

TEST_CASE("napi: killed between any two steps of either way, what is left can be undone") {
  for (const auto kind : {Fate::Kind::KilledBefore, Fate::Kind::KilledAfter}) {
    for (const bool undoes : {false, true}) {
      bool was_killed = true;
      for (int steps = 0; was_killed; ++steps) {
        INFO("step " << steps << (undoes ? " of undoing" : ""));
        World world;
        was_killed = false;
        if (undoes) REQUIRE(world.apply(wanted()));
        try {
          static_cast<void>(undoes ? world.undo({kind, steps}) : world.apply(wanted(), {kind, steps}));
        } catch (const Killed&) {
          was_killed = true;
        }
        const auto notes = world.undo();
        REQUIRE(notes);
        CHECK(notes->empty());
        CHECK(world.is_as_before());
        if (!was_killed) CHECK(steps == (undoes ? 3 : 4));
      }
    }
  }
}
