// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>

#include <catch2/catch_test_macros.hpp>

#include <cstdlib>
#include <filesystem>
#include <random>
#include <string>

#include "audit/log.hpp"
#include "audit/sequence.hpp"
#include "audit/verify.hpp"
#include "base/unique_fd.hpp"
#include "log_maker.hpp"

using namespace agentnic;
using audit::Attack;
using audit::Verdict;

namespace {

constexpr std::size_t kRecord = sizeof(anic_record);

/// A log that was written and signed, its keys, and what is wanted of it.
struct Log {
  TempFolder folder;
  audit::ChainKey chain_key = audit::make_chain_key().value();
  LogMaker maker{chain_key};
  std::string signing_key = audit::SigningKey::make(kOrigin).value().text();
  std::vector<std::string> notes;

  [[nodiscard]] audit::SigningKey key() const { return audit::SigningKey::parse(signing_key).value(); }
  [[nodiscard]] std::string records(std::uint64_t segment = 0) const {
    return audit::records_path(folder.path(), segment);
  }
  [[nodiscard]] std::string hashes(std::uint64_t segment = 0) const {
    return audit::hashes_path(folder.path(), segment);
  }
  [[nodiscard]] std::string checkpoints() const { return folder.part("checkpoints"); }

  /// Writes what was made since, and signs it after each of `parts`.
  void write(const std::vector<std::size_t>& parts) {
    audit::LogWriter writer = audit::LogWriter::open(folder.path(), key()).value();
    for (const std::size_t until : parts) {
      const auto all = std::span(maker.records());
      writer.append(all.subspan(writer.size(), until - writer.size())).value();
      notes.push_back(writer.seal().value().value());
    }
  }
  [[nodiscard]] audit::Verification verify(bool keyed = false, audit::VerifyOptions options = {}) const {
    if (keyed) options.chain_key = chain_key;
    return audit::verify_log(folder.path(), key().verifier(), options).value();
  }
  [[nodiscard]] Attack attack(bool keyed = false) const {
    const auto found = verify(keyed);
    return found.fault ? found.fault->attack : Attack::None;
  }
  /// Rewrites the hashes of all records, as an attacker does who knows the format.
  void rehash() const {
    std::string text;
    const audit::Segment segment = audit::read_segment(folder.path(), 0).value();
    for (const anic_record& record : segment.records) {
      const audit::Hash hash = audit::leaf_hash(record);
      text.append(reinterpret_cast<const char*>(hash.data()), hash.size());
    }
    overwrite(hashes(), text);
  }
};

/// 16 records: a chain with two tenants, sealed after 7 and 16 of them.
struct SmallLog : Log {
  SmallLog() {
    maker.attach();
    maker.begin_tenant(1, "acme");
    maker.begin_tenant(2, "globex");
    maker.fill(16);
    write({7, 16});
  }
};

/// In its place: many bits are.
void flip(const std::string& path, std::size_t bit) {
  std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  const UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  std::byte byte{};
  REQUIRE(read_at(fd.get(), std::span(&byte, 1), bit / 8) == 1U);
  byte ^= std::byte{1} << (bit % 8);
  REQUIRE(write_at(fd.get(), std::span(&byte, 1), bit / 8) == 0);
}

/// Does something to the records, as a text.
template <typename Change>
void edit(const std::string& path, Change&& change) {
  std::string text = content(path);
  change(text);
  overwrite(path, text);
}

}  // namespace

TEST_CASE("log: what is written is valid, publicly and with the chain key") {
  SmallLog log;
  const auto found = log.verify();
  CHECK(found.verdict == Verdict::Valid);
  CHECK(found.records == 16);
  CHECK(found.sealed == 16);
  CHECK(found.checkpoints == 2);
  CHECK(found.chains == 1);
  CHECK(found.chains_without_end == 1);
  const auto keyed = log.verify(true);
  CHECK(keyed.verdict == Verdict::Valid);
  CHECK(keyed.keyed == 16);
}

TEST_CASE(
    "log: each bit of 16 records, of their hashes and of their checkpoints is noticed when it is changed") {
  SmallLog log;
  const std::string records = content(log.records());
  for (std::size_t bit = 0; bit < records.size() * 8; ++bit) {
    flip(log.records(), bit);
    const auto found = log.verify();
    INFO("bit " << bit << ": " << (found.fault ? found.fault->what : ""));
    REQUIRE(found.verdict == Verdict::Broken);
    REQUIRE(found.fault->attack == Attack::Changed);
    REQUIRE(found.fault->index == bit / 8 / kRecord);
    REQUIRE(found.fault->byte == bit / 8 / kRecord * kRecord);
    REQUIRE(found.fault->file == "records/00000000");
    if (bit % 37 == 0) REQUIRE(log.verify(true).fault->index == bit / 8 / kRecord);
    flip(log.records(), bit);
  }
  for (std::size_t bit = 0; bit < content(log.hashes()).size() * 8; ++bit) {
    flip(log.hashes(), bit);
    const auto found = log.verify();
    REQUIRE(found.verdict == Verdict::Broken);
    REQUIRE(found.fault->attack == Attack::Changed);
    REQUIRE(found.fault->file == "hashes/00000000");
    REQUIRE(found.fault->byte == bit / 8 / 32 * 32);
    flip(log.hashes(), bit);
  }
  const std::size_t first_note = log.notes[0].size();
  for (std::size_t bit = 0; bit < content(log.checkpoints()).size() * 8; ++bit) {
    flip(log.checkpoints(), bit);
    const auto found = log.verify();
    INFO("bit " << bit);
    REQUIRE(found.verdict == Verdict::Broken);
    REQUIRE(found.fault->file == "checkpoints");
    REQUIRE((found.fault->byte < first_note) == (bit / 8 < first_note));
    flip(log.checkpoints(), bit);
  }
  CHECK(log.verify().verdict == Verdict::Valid);
}

TEST_CASE("log: records that are deleted, swapped, repeated or cut are named") {
  SmallLog log;
  const std::size_t at = 9 * kRecord;

  SECTION("deleted") {
    edit(log.records(), [&](std::string& text) { text.erase(at, kRecord); });
    CHECK(log.attack() == Attack::Gap);
    CHECK(log.verify().fault->index == 9);
    CHECK(log.verify().fault->seq == 11);
    log.rehash();
    CHECK(log.attack() == Attack::Gap);
    CHECK(log.verify().fault->index == 9);
  }
  SECTION("three deleted") {
    edit(log.records(), [&](std::string& text) { text.erase(at, 3 * kRecord); });
    CHECK(log.verify().fault->what == "3 records are missing before it");
  }
  SECTION("swapped") {
    edit(log.records(), [&](std::string& text) {
      const std::string first = text.substr(at, kRecord);
      text.erase(at, kRecord);
      text.insert(at + 2 * kRecord, first);
      const std::string third = text.substr(at + kRecord, kRecord);
      text.erase(at + kRecord, kRecord);
      text.insert(at, third);
    });
    CHECK(log.attack() == Attack::Swap);
    CHECK(log.verify().fault->index == 9);
    log.rehash();
    CHECK(log.attack() == Attack::Gap);  // by its number
    CHECK(log.verify().fault->index == 9);
  }
  SECTION("repeated") {
    edit(log.records(), [&](std::string& text) { text.insert(at, text.substr(at - kRecord, kRecord)); });
    CHECK(log.attack() == Attack::Replay);
    CHECK(log.verify().fault->index == 9);
    log.rehash();
    CHECK(log.attack() == Attack::Replay);
  }
  SECTION("cut") {
    edit(log.records(), [&](std::string& text) { text.resize(at); });
    CHECK(log.attack() == Attack::Truncation);
    CHECK(log.verify().fault->index == 9);
    log.rehash();
    CHECK(log.attack() == Attack::Truncation);
  }
  SECTION("cut in the middle of a record") {
    edit(log.records(), [&](std::string& text) { text.resize(text.size() - 1); });
    CHECK(log.attack() == Attack::Truncation);
    CHECK(log.verify().fault->index == 15);
  }
  SECTION("cut with its last checkpoint") {
    edit(log.records(), [&](std::string& text) { text.resize(8 * kRecord); });
    log.rehash();
    edit(log.checkpoints(), [&](std::string& text) { text.resize(log.notes[0].size()); });
    const auto found = log.verify();
    INFO(found.fault->file << " at byte " << found.fault->byte << ": " << found.fault->what);
    CHECK(found.verdict == Verdict::CannotTell);
    CHECK(found.fault->attack == Attack::UnsealedTail);
    CHECK(found.fault->index == 7);
    const auto against = log.verify(false, {.chain_key = {}, .others = {{"witness", log.notes[1]}}});
    CHECK(against.fault->attack == Attack::Truncation);
  }
  SECTION("all of them") {
    overwrite(log.records(), "");
    CHECK(log.attack() == Attack::Truncation);
    std::filesystem::remove(log.records());
    CHECK(log.attack() == Attack::Truncation);
  }
}

TEST_CASE("log: a checkpoint that is removed, repeated, swapped or cut is named") {
  SmallLog log;
  const std::string notes = content(log.checkpoints());
  overwrite(log.checkpoints(), log.notes[1]);
  CHECK(log.attack() == Attack::RemovedCheckpoint);
  CHECK(log.verify().fault->byte == 0);
  overwrite(log.checkpoints(), log.notes[0]);
  CHECK(log.attack() == Attack::UnsealedTail);
  CHECK(log.verify().verdict == Verdict::CannotTell);
  CHECK(log.verify(true).verdict == Verdict::Valid);  // by its MACs
  overwrite(log.checkpoints(), "");
  CHECK(log.verify().verdict == Verdict::CannotTell);
  overwrite(log.checkpoints(), notes + log.notes[1]);
  CHECK(log.attack() == Attack::RemovedCheckpoint);
  CHECK(log.verify().fault->byte == notes.size());
  overwrite(log.checkpoints(), log.notes[1] + log.notes[0]);
  CHECK(log.attack() == Attack::RemovedCheckpoint);
  overwrite(log.checkpoints(), notes.substr(0, notes.size() - 1));
  CHECK(log.attack() == Attack::Truncation);
}

TEST_CASE("log: what agrees with itself and not with what was signed is told, and by whose key") {
  SmallLog log;
  SECTION("a record, its hash, and no MAC") {
    edit(log.records(), [](std::string& text) { text[10 * kRecord + offsetof(anic_record, approved)] ^= 1; });
    log.rehash();
    const auto found = log.verify();
    CHECK(found.fault->attack == Attack::Resealing);
    CHECK(found.fault->index == 7);  // from the checkpoint before on
    const auto keyed = log.verify(true);
    CHECK(keyed.fault->attack == Attack::Changed);
    CHECK(keyed.fault->index == 10);
  }
  SECTION("the other key of checkpoints") {
    const audit::SigningKey other = audit::SigningKey::make(kOrigin).value();
    const auto found = audit::verify_log(log.folder.path(), other.verifier(), {}).value();
    CHECK(found.verdict == Verdict::Broken);
    CHECK(found.fault->attack == Attack::WrongKey);
  }
  SECTION("the other key of the chain") {
    const auto found = log.verify(false, {.chain_key = audit::make_chain_key().value(), .others = {}});
    CHECK(found.fault->attack == Attack::WrongKey);
    CHECK(found.fault->index == 0);
  }
  SECTION("a key of a later chain than the log's") {
    const auto found = log.verify(false, {.chain_key = log.chain_key.next(), .others = {}});
    CHECK(found.verdict == Verdict::CannotTell);
    CHECK(found.fault->attack == Attack::UnknownKey);
  }
  SECTION("all of it again, by who has both keys: a checkpoint that left the host tells") {
    const std::string kept = log.notes[0];
    Log other;
    other.signing_key = log.signing_key;
    other.maker = LogMaker(log.chain_key);
    other.chain_key = log.chain_key;
    other.maker.attach();
    other.maker.begin_tenant(1, "acme");
    other.maker.begin_tenant(2, "globex");
    for (int i = 0; i < 12; ++i) other.maker.decide(1);
    other.write({7, 16});
    const auto whole = other.verify(true);
    CHECK(whole.verdict == Verdict::Valid);
    const auto found = other.verify(true, {.chain_key = {}, .others = {{"witness", kept}}});
    CHECK(found.verdict == Verdict::Broken);
    CHECK(found.fault->attack == Attack::OtherHistory);
    CHECK(found.fault->file == "witness");
    CHECK(log.verify(true, {.chain_key = {}, .others = {{"witness", kept}}}).verdict == Verdict::Valid);
  }
}

TEST_CASE("log: records that were sealed again with a later key are told by the chain key") {
  Log log;
  log.maker.attach();
  log.maker.begin_tenant(1, "acme");
  log.maker.begin_tenant(2, "globex");
  log.maker.fill(ANIC_SEGMENT + 100);
  log.write({5'000 - ANIC_SEGMENT, ANIC_SEGMENT + 100});
  CHECK(log.verify(true).verdict == Verdict::Valid);
  // Whoever took the key of the second segment changes record 2000 and seals what follows.
  const audit::Words stolen = log.maker.chain().key;
  auto records = log.maker.records();
  records[2000].approved = 1;
  audit::Chain chain{.key = stolen, .seq = 2000, .mac = {records[1999].mac[0], records[1999].mac[1]}};
  for (std::size_t i = 2000; i < records.size(); ++i) {
    const audit::Words mac = audit::mac_of(chain, records[i]);
    records[i].mac[0] = mac.low;
    records[i].mac[1] = mac.high;
    chain.mac = mac;
  }
  overwrite(log.records(), {reinterpret_cast<const char*>(records.data()), records.size() * kRecord});
  CHECK(log.attack() == Attack::Changed);
  CHECK(log.verify().fault->index == 2000);
  const auto keyed = log.verify(true);
  CHECK(keyed.fault->attack == Attack::Resealing);
  CHECK(keyed.fault->index == 2000);
  CHECK(keyed.fault->what == "its MAC was made with the key of segment 1 of its chain");
  log.rehash();
  INFO(log.verify().fault->file << " at byte " << log.verify().fault->byte << ": "
                                << log.verify().fault->what);
  CHECK(log.attack() == Attack::Resealing);
  CHECK(log.verify().fault->index == 904);
}

TEST_CASE("log: segments go on from one another, and one that is missing or stands there twice is named") {
  Log log;
  log.maker.attach();
  log.maker.begin_tenant(1, "acme");
  log.maker.begin_tenant(2, "globex");
  log.maker.fill(audit::kSegmentRecords + 500);
  log.write({40'000, audit::kSegmentRecords, audit::kSegmentRecords + 500});
  CHECK(log.verify(true).verdict == Verdict::Valid);
  CHECK(content(log.hashes(0)).size() == (audit::kSegmentRecords + 1) * 32);
  CHECK((std::filesystem::status(log.records(0)).permissions() & std::filesystem::perms::owner_write) ==
        std::filesystem::perms::none);
  const std::string first = content(log.records(0));
  const std::string second = content(log.records(1));
  SECTION("an old segment in the place of the next") {
    overwrite(log.records(1), first.substr(0, second.size()));
    CHECK(log.attack() == Attack::Replay);
    CHECK(log.verify().fault->index == audit::kSegmentRecords);
    CHECK(log.verify().fault->file == "records/00000001");
  }
  SECTION("missing") {
    std::filesystem::remove(log.records(0));
    CHECK(log.attack() == Attack::Gap);
    CHECK(log.verify().fault->index == 0);
  }
  SECTION("shorter") {
    overwrite(log.records(0), first.substr(0, first.size() - kRecord));
    INFO(log.verify().fault->file << " at byte " << log.verify().fault->byte << ": "
                                  << log.verify().fault->what);
    CHECK(log.attack() == Attack::Gap);
    CHECK(log.verify().fault->index == audit::kSegmentRecords - 1);
  }
  SECTION("longer") {
    overwrite(log.records(0), first + second.substr(0, kRecord));
    CHECK(log.verify().verdict == Verdict::Broken);
    CHECK(log.verify().fault->index == audit::kSegmentRecords);
  }
  SECTION("the root of a subtree") {
    flip(log.hashes(0), (audit::kSegmentRecords * 32 + 5) * 8);
    CHECK(log.attack() == Attack::Changed);
    CHECK(log.verify().fault->file == "hashes/00000000");
    CHECK(log.verify().fault->byte == audit::kSegmentRecords * 32);
  }
  SECTION("a writer goes on by the root of the subtree") {
    log.maker.fill(audit::kSegmentRecords + 600);
    log.write({audit::kSegmentRecords + 600});
    CHECK(log.verify(true).verdict == Verdict::Valid);
    CHECK(log.verify().records == audit::kSegmentRecords + 600);
  }
}

TEST_CASE("log: chains follow on one another, each with its key") {
  Log log;
  for (int i = 0; i < 3; ++i) {
    log.maker.attach();
    log.maker.begin_tenant(1, "acme");
    log.maker.begin_tenant(2, "globex");
    log.maker.fill(log.maker.records().size() + 5);
    if (i == 1) continue;  // this one has no end
    log.maker.add(ANIC_RECORD_DETACH, 1);
    log.maker.add(ANIC_RECORD_DETACH, 2);
    log.maker.add(ANIC_RECORD_DETACH);
  }
  log.write({log.maker.records().size()});
  const auto found = log.verify(true);
  CHECK(found.verdict == Verdict::Valid);
  CHECK(found.chains == 3);
  CHECK(found.chains_without_end == 1);
  CHECK(log.verify(false, {.chain_key = log.chain_key.next(), .others = {}}).fault->attack ==
        Attack::UnknownKey);
}

TEST_CASE("writer: a log that is not what was signed is refused, and nothing is signed") {
  SmallLog log;
  const auto open = [&] { return audit::LogWriter::open(log.folder.path(), log.key()); };
  REQUIRE(open());
  flip(log.records(), 3 * kRecord * 8);
  CHECK(open().error().what.find("not those that were signed for") != std::string::npos);
  flip(log.records(), 3 * kRecord * 8);
  edit(log.records(), [](std::string& text) { text.resize(10 * kRecord); });
  CHECK(open().error().what.find("10 records, and 16 are signed for") != std::string::npos);
  overwrite(log.checkpoints(), log.notes[1]);
  CHECK(open().error().what.find("does not follow") != std::string::npos);
  const audit::SigningKey other = audit::SigningKey::make(kOrigin).value();
  CHECK(!audit::LogWriter::open(log.folder.path(), audit::SigningKey::parse(other.text()).value()));
}

TEST_CASE("writer: what a crash left half-written is cut off, what is behind the last checkpoint is kept") {
  SmallLog log;
  log.maker.fill(20);
  {
    audit::LogWriter writer = audit::LogWriter::open(log.folder.path(), log.key()).value();
    writer.append(std::span(log.maker.records()).subspan(16)).value();
  }
  edit(log.records(), [](std::string& text) { text += std::string(77, 'x'); });
  edit(log.checkpoints(), [&](std::string& text) { text += log.notes[0].substr(0, 50); });
  edit(log.hashes(), [](std::string& text) { text.resize(text.size() - 33); });
  audit::LogWriter writer = audit::LogWriter::open(log.folder.path(), log.key()).value();
  CHECK(writer.size() == 20);
  CHECK(writer.sealed() == 16);
  CHECK(writer.notes().size() == 2);
  CHECK(writer.seal().value());
  CHECK(!writer.seal().value());  // there is nothing new
  CHECK(content(log.records()).size() == 20 * kRecord);
  CHECK(log.verify(true).verdict == Verdict::Valid);
  CHECK(log.verify().checkpoints == 3);
}

TEST_CASE("writer: there is one at a time, and a reader sees that it is there") {
  SmallLog log;
  CHECK(!audit::is_recorded(log.folder.path()));
  {
    const audit::LogWriter writer = audit::LogWriter::open(log.folder.path(), log.key()).value();
    CHECK(audit::is_recorded(log.folder.path()));
    CHECK(log.verify().live);
    const auto second = audit::LogWriter::open(log.folder.path(), log.key());
    CHECK(second.error().what.find("another recorder") != std::string::npos);
  }
  CHECK(!audit::is_recorded(log.folder.path()));
}

TEST_CASE("log: random bits of a long log are noticed, each in its place", "[.soak]") {
  Log log;
  log.maker.attach();
  log.maker.begin_tenant(1, "acme");
  log.maker.begin_tenant(2, "globex");
  log.maker.fill(5'000);
  log.write({1'000, 3'000, 5'000});
  const char* seed = std::getenv("AGENTNIC_SEED");
  const auto seeded = seed != nullptr ? std::strtoul(seed, nullptr, 10) : std::random_device()();
  INFO("AGENTNIC_SEED=" << seeded);
  std::mt19937_64 random(seeded);
  const std::string intact = content(log.records());
  for (int i = 0; i < 10'000; ++i) {
    const std::size_t bit = random() % (intact.size() * 8);
    flip(log.records(), bit);
    const auto found = log.verify(i % 2 != 0);
    INFO("bit " << bit);
    REQUIRE(found.verdict == Verdict::Broken);
    REQUIRE(found.fault->index == bit / 8 / kRecord);
    flip(log.records(), bit);
  }
  REQUIRE(log.verify(true).verdict == Verdict::Valid);
}
