// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch_test_macros.hpp>

#include <string>
#include <vector>

#include "audit/export.hpp"
#include "audit/filter.hpp"
#include "audit/log.hpp"
#include "base/json.hpp"
#include "log_maker.hpp"

using namespace agentnic;

namespace {

/// Two tenants, of which the second takes over the first one's id half-way; in a log that is signed.
struct SharedLog {
  TempFolder folder;
  audit::SigningKey key = audit::SigningKey::make(kOrigin).value();
  LogMaker maker{audit::make_chain_key().value()};

  SharedLog() {
    maker.attach();
    maker.begin_tenant(1, "acme");
    maker.begin_tenant(2, "globex");
    maker.fill(40);
    maker.add(ANIC_RECORD_DETACH, 1);
    maker.begin_tenant(1, "initech");
    maker.fill(60);
    maker.add(ANIC_RECORD_EXPORT, 2).observed = 0;
    maker.fill(80);
  }
  void write() {
    audit::LogWriter writer =
        audit::LogWriter::open(folder.path(), audit::SigningKey::parse(key.text()).value()).value();
    writer.append(std::span(maker.records()).subspan(writer.size())).value();
    writer.seal().value();
  }
  [[nodiscard]] std::vector<std::string> lines(const std::string& tenant) const {
    std::vector<std::string> lines;
    audit::make_export(folder.path(), key.verifier(), tenant, [&](std::string_view line) -> Status {
      lines.emplace_back(line.substr(0, line.size() - 1));
      return {};
    }).value();
    return lines;
  }
  [[nodiscard]] Result<audit::ExportCheck> check(const std::vector<std::string>& lines) const {
    audit::ExportChecker checker(key.verifier());
    for (const std::string& line : lines) ANIC_TRY(checker.add(line));
    return checker.finish();
  }
};

anic_record record_of(const std::string& line) {
  const std::string bytes = audit::from_base64(Json::parse(line)["record"].get<std::string>()).value();
  anic_record record{};
  std::memcpy(&record, bytes.data(), sizeof(record));
  return record;
}

}  // namespace

TEST_CASE("export: a tenant gets all of its records and nobody else's, with an id that was another's too") {
  SharedLog log;
  log.write();
  const auto acme = log.check(log.lines("acme")).value();
  CHECK(acme.complete());  // it has its end
  const auto initech = log.check(log.lines("initech")).value();
  CHECK(!initech.complete());
  const auto globex = log.check(log.lines("globex")).value();
  CHECK(!globex.complete());  // records follow on that of its export
  CHECK(globex.tenancies.size() == 1);
  std::size_t records = 0;
  for (const char* name : {"acme", "initech", "globex"}) {
    const auto lines = log.lines(name);
    records += lines.size() - 1;
    for (std::size_t i = 1; i < lines.size(); ++i) {
      CHECK(record_of(lines[i]).tenant == (std::string(name) == "globex" ? 2 : 1));
      for (const char* other : {"acme", "initech", "globex"})
        CHECK((std::string(other) == name || lines[i].find(other) == std::string::npos));
    }
  }
  CHECK(records == 78);  // all but the chain's first two
  CHECK(log.check(log.lines("acme")).value().tenant == "acme");
}

TEST_CASE("export: the record of the export itself, as the last one, says that these are all") {
  SharedLog log;
  anic_record record{};
  record.kind = ANIC_RECORD_EXPORT;
  record.tenant = 2;
  record.observed = 1'700'000'000'000'000'000;
  record.count = 1;
  log.maker.add(record);
  log.write();
  const auto check = log.check(log.lines("globex")).value();
  CHECK(check.complete());
  CHECK(check.exported_at_ns == record.observed);
}

TEST_CASE("export: nothing can be left out, put in, moved or changed") {
  SharedLog log;
  log.write();
  const auto lines = log.lines("globex");
  REQUIRE(log.check(lines));
  for (std::size_t i = 1; i + 1 < lines.size(); ++i) {
    auto without = lines;
    without.erase(without.begin() + static_cast<std::ptrdiff_t>(i));
    CHECK(!log.check(without));
    auto twice = lines;
    twice.insert(twice.begin() + static_cast<std::ptrdiff_t>(i), lines[i]);
    CHECK(!log.check(twice));
    auto swapped = lines;
    std::swap(swapped[i], swapped[i + 1]);
    CHECK(!log.check(swapped));
  }
  for (const char* key : {"record", "path"}) {
    Json line = Json::parse(lines[5]);
    std::string bytes = audit::from_base64(line[key].get<std::string>()).value();
    for (std::size_t bit = 0; bit < bytes.size() * 8; bit += 5) {
      std::string other = bytes;
      other[bit / 8] = static_cast<char>(other[bit / 8] ^ (1 << (bit % 8)));
      line[key] = audit::base64({reinterpret_cast<const std::uint8_t*>(other.data()), other.size()});
      auto changed = lines;
      changed[5] = line.dump();
      CHECK(!log.check(changed));
    }
  }
  auto foreign = lines;
  foreign.insert(foreign.begin() + 6, log.lines("acme")[3]);
  CHECK(!log.check(foreign));
  auto renamed = lines;
  Json head = Json::parse(lines[0]);
  head["tenant"] = "acme";
  renamed[0] = head.dump();
  CHECK(!log.check(renamed));
  const audit::SigningKey other = audit::SigningKey::make(kOrigin).value();
  CHECK(!audit::ExportChecker(other.verifier()).add(lines[0]));
}

TEST_CASE("export: of a log of several segments") {
  SharedLog log;
  log.maker.begin_tenant(9, "rare");
  log.maker.fill(audit::kSegmentRecords - 1);
  log.maker.decide(9);
  log.maker.decide(9);
  log.maker.fill(2 * audit::kSegmentRecords + 77);
  log.maker.decide(9);
  log.maker.add(ANIC_RECORD_DETACH, 9);
  log.write();
  const auto lines = log.lines("rare");
  CHECK(lines.size() == 6);
  CHECK(log.check(lines).value().complete());
}

TEST_CASE("export: a log whose hashes are not what was signed, or that has no such tenant, is refused") {
  SharedLog log;
  log.write();
  const auto write = [](std::string_view) -> Status { return {}; };
  CHECK(audit::make_export(log.folder.path(), log.key.verifier(), "nobody", write).error().exit ==
        Exit::BadInput);
  CHECK(audit::find_tenant(log.folder.path(), "globex").value() == 2);
  CHECK(audit::find_tenant(log.folder.path(), "acme").error().exit == Exit::BadInput);
  std::string hashes = content(audit::hashes_path(log.folder.path(), 0));
  hashes[40] ^= 1;
  overwrite(audit::hashes_path(log.folder.path(), 0), hashes);
  CHECK(audit::make_export(log.folder.path(), log.key.verifier(), "acme", write)
            .error()
            .what.find("not what was signed") != std::string::npos);
}

TEST_CASE("filter: by tenant, kind, invariant and time") {
  const audit::Names names = {.tenant = [](std::uint32_t id) { return id == 1 ? "acme" : ""; },
                              .service = [](std::uint32_t) { return ""; },
                              .agent = [](std::uint32_t) { return ""; },
                              .wall_ahead_ns = 1'700'000'000'000'000'000};
  anic_record record{};
  record.kind = ANIC_RECORD_DECISION;
  record.tenant = 1;
  record.invariant = ANIC_INVARIANT_R2;
  record.rewritten = 1U << ANIC_INVARIANT_R1;
  record.time_ns = 60'000'000'000;
  constexpr std::uint64_t kNow = 1'700'000'120'000'000'000;
  const auto lets = [&](const audit::FilterWords& words) {
    return audit::parse_filter(words, kNow).value().lets(record, names);
  };
  CHECK(lets({}));
  CHECK(lets({.tenant = "acme", .kind = "decision", .invariant = "R2", .since = "", .until = ""}));
  CHECK(lets({.tenant = "", .kind = "", .invariant = "R1", .since = "", .until = ""}));
  CHECK(!lets({.tenant = "", .kind = "", .invariant = "R3", .since = "", .until = ""}));
  CHECK(!lets({.tenant = "globex", .kind = "", .invariant = "", .since = "", .until = ""}));
  CHECK(!lets({.tenant = "", .kind = "revert", .invariant = "", .since = "", .until = ""}));
  CHECK(lets({.tenant = "", .kind = "", .invariant = "", .since = "61s", .until = "59s"}));
  CHECK(!lets({.tenant = "", .kind = "", .invariant = "", .since = "59s", .until = ""}));
  CHECK(lets({.tenant = "",
              .kind = "",
              .invariant = "",
              .since = "2023-11-14T22:14:20Z",
              .until = "2023-11-14T22:14:20Z"}));
  CHECK(!lets({.tenant = "", .kind = "", .invariant = "", .since = "", .until = "2023-11-14T22:14:19Z"}));
  for (const audit::FilterWords& words :
       {audit::FilterWords{.tenant = "", .kind = "no", .invariant = "", .since = "", .until = ""},
        audit::FilterWords{.tenant = "", .kind = "", .invariant = "R9", .since = "", .until = ""},
        audit::FilterWords{.tenant = "", .kind = "", .invariant = "", .since = "yesterday", .until = ""}})
    CHECK(audit::parse_filter(words, kNow).error().exit == Exit::BadInput);
}
