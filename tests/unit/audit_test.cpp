// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstring>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "abi/guardian.h"
#include "audit/chain.hpp"
#include "audit/sentence.hpp"
#include "audit/words.hpp"
#include "kern/audit_ring.hpp"
#include "policy/model.hpp"

using namespace agentnic;

namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr audit::Words kKey = {.low = 0x0706050403020100, .high = 0x0f0e0d0c0b0a0908};

/// Monotonic 0 is 14:00:00 of some day.
audit::Names names() {
  return {.tenant = [](std::uint32_t id) { return id == 1   ? "acme"
                                                  : id == 2 ? "beta"
                                                            : ""; },
          .service = [](std::uint32_t id) { return id == 7 ? "chat" : ""; },
          .agent = [](std::uint32_t id) { return id == 3 ? "tuner" : ""; },
          .wall_ahead_ns = 1'700'056'800 * static_cast<std::int64_t>(kSecond)};
}

void set_reason(anic_record& record, std::string_view reason) {
  std::memcpy(record.reason, reason.data(), std::min<std::size_t>(reason.size(), ANIC_TEXT_LEN));
}

anic_record make_record(anic_record_kind kind) {
  anic_record record{};
  record.seq = 12;
  record.time_ns = 202 * kSecond + 120'000'000;
  record.kind = static_cast<__u8>(kind);
  record.generation = 5;
  record.count = 1;
  record.tenant = 1;
  record.session = 3;
  return record;
}

anic_record weight_decision(anic_decided decided, anic_invariant invariant) {
  anic_record record = make_record(ANIC_RECORD_DECISION);
  record.proposed = ANIC_CHANGE_QUEUE_WEIGHT_ADJUST;
  record.cls = ANIC_CLASS_RPC;
  record.decided = static_cast<__u8>(decided);
  record.invariant = static_cast<__u8>(invariant);
  if (decided == ANIC_DECIDED_REWRITE) record.rewritten = 1U << invariant;
  record.observed = 100;
  record.requested = 900;
  record.approved = decided == ANIC_DECIDED_REWRITE ? 200 : 900;
  record.until_ns = decided == ANIC_DECIDED_REJECT ? 0 : 262 * kSecond;
  set_reason(record, "more for rpc");
  return record;
}

std::string told(const anic_record& record) { return audit::sentence(record, names()); }

/// A chain as the kernel makes it.
std::vector<anic_record> make_chain(std::size_t count) {
  audit::Chain chain{.key = kKey, .seq = 0, .mac = {}};
  std::vector<anic_record> records;
  for (std::size_t i = 0; i < count; ++i) {
    anic_record record = weight_decision(ANIC_DECIDED_APPROVE, ANIC_INVARIANT_NONE);
    record.seq = i + 1;
    const audit::Words mac = audit::mac_of(chain, record);
    record.mac[0] = mac.low;
    record.mac[1] = mac.high;
    audit::advance(chain, mac);
    records.push_back(record);
  }
  return records;
}

std::optional<std::uint64_t> first_bad(std::span<const anic_record> records) {
  audit::Chain chain{.key = kKey, .seq = 0, .mac = {}};
  return audit::first_bad(chain, records);
}

/// A ring as the kernel maps it: its bytes, and the same again.
class Ring final {
 public:
  explicit Ring(std::size_t size) : size_(size), bytes_(2 * size) {}

  /// Puts a header at a position, and as many bytes of `from` as it says.
  void put(std::uint64_t position, std::uint32_t header, const void* from, std::size_t bytes) {
    std::vector<std::byte> whole(8 + bytes);
    std::memcpy(whole.data(), &header, sizeof(header));
    if (bytes != 0) std::memcpy(whole.data() + 8, from, bytes);
    for (std::size_t i = 0; i < whole.size(); ++i)
      bytes_[(position + i) % size_] = bytes_[(position + i) % size_ + size_] = whole[i];
  }
  void put(std::uint64_t position, const anic_record& record, std::uint32_t bits = 0) {
    put(position, static_cast<std::uint32_t>(sizeof(record)) | bits, &record, sizeof(record));
  }
  [[nodiscard]] std::span<const std::byte> data() const { return bytes_; }

 private:
  std::size_t size_;
  std::vector<std::byte> bytes_;
};

constexpr std::uint32_t kBusy = 1U << 31U;
constexpr std::uint32_t kDiscard = 1U << 30U;
constexpr std::uint64_t kTakes = ANIC_AUDIT_TAKES;

}  // namespace

TEST_CASE("audit: a change is rewritten in one sentence with both values, invariant and time") {
  CHECK(
      told(weight_decision(ANIC_DECIDED_REWRITE, ANIC_INVARIANT_R1)) ==
      "#12 14:03:22.120 tenant acme: session 3 asked queue_weight_adjust rpc 100 -> 900 (\"more for rpc\"): "
      "rewritten to 200 by R1 (one change moves a value by at most its step), until 14:04:22.000");
  anic_record both = weight_decision(ANIC_DECIDED_REWRITE, ANIC_INVARIANT_R1);
  both.rewritten |= 1U << ANIC_INVARIANT_R2;
  CHECK(
      told(both).contains("by R1 (one change moves a value by at most its step) and R2 (every value stays"));
}

TEST_CASE("audit: approvals and rejections are told") {
  CHECK(told(weight_decision(ANIC_DECIDED_APPROVE, ANIC_INVARIANT_NONE))
            .ends_with(": approved, until 14:04:22.000"));
  anic_record open_ended = weight_decision(ANIC_DECIDED_APPROVE, ANIC_INVARIANT_NONE);
  open_ended.until_ns = 0;
  CHECK(told(open_ended).ends_with(": approved, until the session ends"));
  anic_record many = weight_decision(ANIC_DECIDED_REJECT, ANIC_INVARIANT_C1);
  CHECK(told(many).ends_with(": rejected by C1 (control traffic is left alone)"));
  many.count = 14;
  CHECK(told(many).ends_with(": rejected by C1 (control traffic is left alone), 14 times"));
  many.tenant = 0;
  CHECK(told(many).contains(" no known tenant: session "));
}

TEST_CASE("audit: values are told in their own units") {
  anic_record record = weight_decision(ANIC_DECIDED_APPROVE, ANIC_INVARIANT_NONE);
  const auto change = [&](anic_change kind, std::uint64_t before, std::uint64_t after) {
    record.proposed = static_cast<__u8>(kind);
    record.observed = before;
    record.requested = after;
    return told(record);
  };
  record.service = 7;
  record.bucket = 9;
  CHECK(change(ANIC_CHANGE_BULK_PATH_THROTTLE, 10'000'000'000, 2'500'000'000)
            .contains("asked bulk_path_throttle 10Gbit -> 2.5Gbit ("));
  CHECK(change(ANIC_CHANGE_FLOW_CLASS_ESCALATE, 2, 3)
            .contains("asked flow_class_escalate chat default -> rpc ("));
  CHECK(change(ANIC_CHANGE_PATH_SWITCH, 1, 2).contains("asked path_switch rpc kernel -> xsk ("));
  CHECK(change(ANIC_CHANGE_QUEUE_REBALANCE, UINT32_MAX, 3)
            .contains("asked queue_rebalance rpc bucket 9 where it comes -> CPU 3 ("));
  CHECK(change(ANIC_CHANGE_QUOTA_BORROW, 0, 1000).contains("asked quota_borrow 0bit -> 1Kbit ("));
}

TEST_CASE("audit: what is given back says why") {
  anic_record record = weight_decision(ANIC_DECIDED_NONE, ANIC_INVARIANT_NONE);
  record.kind = ANIC_RECORD_REVERT;
  record.observed = 200;
  record.approved = 100;
  const auto because = [&](anic_invariant invariant) {
    record.invariant = static_cast<__u8>(invariant);
    return told(record);
  };
  CHECK(because(ANIC_INVARIANT_NONE) ==
        "#12 14:03:22.120 tenant acme: queue_weight_adjust rpc of session 3 was given back, 200 -> 100: its "
        "session was closed, or another policy came in force");
  CHECK(because(ANIC_INVARIANT_R6).ends_with(": R6 (its time was over)"));
  CHECK(because(ANIC_INVARIANT_L1).ends_with(": L1 (the heartbeat did not come in time)"));
  CHECK(because(ANIC_INVARIANT_L3).ends_with(": L3 (a class missed its SLO after it)"));
  CHECK(because(ANIC_INVARIANT_L4).ends_with(": L4 (fail-safe was entered)"));
}

TEST_CASE("audit: sessions are opened and closed by name") {
  anic_record record = make_record(ANIC_RECORD_OPEN);
  record.tenant = 0;
  record.service = 3;
  record.requested = 0b11;
  CHECK(told(record) == "#12 14:03:22.120 session 3 of agent tuner was opened for acme, beta");
  record.service = 0;
  record.requested = 0b100;
  set_reason(record, "by hand");
  CHECK(told(record) == "#12 14:03:22.120 session 3 of an operator was opened for 3 (\"by hand\")");
  record = make_record(ANIC_RECORD_CLOSE);
  CHECK(told(record) == "#12 14:03:22.120 session 3 was closed");
  record.invariant = ANIC_INVARIANT_L1;
  CHECK(told(record) == "#12 14:03:22.120 session 3 was ended by L1 (the heartbeat did not come in time)");
}

TEST_CASE("audit: fail-safe is told with kind, invariant and end") {
  anic_record record = make_record(ANIC_RECORD_FAILSAFE);
  record.decided = ANIC_DECIDED_FAILSAFE_ENTER;
  record.failsafe = ANIC_FAILSAFE_HEARTBEAT;
  record.invariant = ANIC_INVARIANT_L1;
  record.until_ns = 232 * kSecond;
  CHECK(
      told(record) ==
      "#12 14:03:22.120 tenant acme: FAIL-SAFE (heartbeat) was entered by L1 (the heartbeat did not come in "
      "time), until 14:03:52.000");
  record.tenant = 0;
  record.failsafe = ANIC_FAILSAFE_OPERATOR;
  record.invariant = ANIC_INVARIANT_NONE;
  record.until_ns = 0;
  set_reason(record, "maintenance");
  CHECK(
      told(record) ==
      "#12 14:03:22.120 the instance: FAIL-SAFE (operator) was entered (\"maintenance\"), until an operator "
      "ends it");
  record.decided = ANIC_DECIDED_FAILSAFE_EXIT;
  CHECK(told(record) == "#12 14:03:22.120 the instance: fail-safe (operator) was left (\"maintenance\")");
  record.kind = ANIC_RECORD_ACK;
  CHECK(told(record) ==
        "#12 14:03:22.120 the instance: an operator acknowledged the alarm (\"maintenance\")");
}

TEST_CASE("audit: protection, losses, beginnings and ends are told") {
  anic_record record = make_record(ANIC_RECORD_PROTECT);
  record.invariant = ANIC_INVARIANT_L3;
  record.approved = 50'000'000;
  CHECK(told(record) ==
        "#12 14:03:22.120 tenant acme: bulk traffic was limited to 50Mbit by L3 (a class missed its SLO)");
  record.approved = 0;
  CHECK(told(record).contains("the limit of its bulk traffic was lifted"));
  record.tenant = 0;
  CHECK(told(record).contains("traffic of no tenant: the limit of its bulk traffic was lifted"));

  record = make_record(ANIC_RECORD_LOST);
  anic_lost lost{};
  lost.by_kind[ANIC_RECORD_DECISION] = 10;
  lost.by_kind[ANIC_RECORD_REVERT] = 2;
  std::memcpy(record.reason, &lost, sizeof(lost));
  CHECK(told(record) == "#12 14:03:22.120 12 records found no room and are LOST: 10 decision, 2 revert");
  lost.by_kind[0] = 3;
  std::memcpy(record.reason, &lost, sizeof(lost));
  CHECK(told(record).ends_with(" 15 records found no room and are LOST: 3 other, 10 decision, 2 revert"));

  record = make_record(ANIC_RECORD_ATTACH);
  record.tenant = 0;
  record.requested = 1'700'056'802 * kSecond;
  CHECK(told(record) == "#12 14:03:22.120 the audit begins: attached at 2023-11-15T14:00:02Z");
  record.observed = 7;
  CHECK(told(record) == "#12 14:03:22.120 the audit begins: attached at 2023-11-15T14:00:02Z, chain key 7");
  record.kind = ANIC_RECORD_COMMIT;
  std::ranges::fill(record.digest, 0xab);
  CHECK(told(record) ==
        "#12 14:03:22.120 policy sha256 abababababab came in force as generation 5 at 2023-11-15T14:00:02Z");
  record.kind = ANIC_RECORD_DETACH;
  CHECK(told(record) == "#12 14:03:22.120 the audit ends: detached at 2023-11-15T14:00:02Z");
}

TEST_CASE("audit: where a tenant's records begin and end is told, by the name that the record has") {
  anic_record record = make_record(ANIC_RECORD_COMMIT);
  record.requested = 1'700'056'802 * kSecond;
  std::ranges::fill(record.digest, 0xab);
  set_reason(record, "initech");  // the id was acme's, or is now
  CHECK(told(record) ==
        "#12 14:03:22.120 tenant initech: its records begin here, under policy sha256 abababababab, at "
        "2023-11-15T14:00:02Z");
  set_reason(record, "no\nname");
  CHECK(told(record).contains(" tenant \"no\\nname\": its records begin here"));
  record.kind = ANIC_RECORD_DETACH;
  CHECK(told(record) == "#12 14:03:22.120 tenant acme: its records end here, at 2023-11-15T14:00:02Z");
  CHECK(audit::event_json(record, names()).dump() == R"({"time_unix_ns":1700056802000000000})");
}

TEST_CASE("audit: who read records or exported them is told, and of whom") {
  anic_record record = make_record(ANIC_RECORD_READ);
  record.observed = 1'700'056'802 * kSecond;
  record.requested = 1000;
  CHECK(told(record) == "#12 14:03:22.120 user 1000 read the records of tenant acme at 2023-11-15T14:00:02Z");
  CHECK(audit::event_json(record, names()).dump() == R"({"time_unix_ns":1700056802000000000,"uid":1000})");
  record.tenant = 0;
  set_reason(record, "tail");
  CHECK(told(record) == "#12 14:03:22.120 user 1000 read the records at 2023-11-15T14:00:02Z (\"tail\")");
  record.tenant = 2;
  record.kind = ANIC_RECORD_EXPORT;
  CHECK(told(record) ==
        "#12 14:03:22.120 user 1000 exported the records of tenant beta at 2023-11-15T14:00:02Z (\"tail\")");
  CHECK(audit::event_json(record, names()).dump() == R"({"time_unix_ns":1700056802000000000,"uid":1000})");
}

TEST_CASE("audit: whose SLO was missed, and by how much, is told") {
  anic_record record = make_record(ANIC_RECORD_MISSED);
  record.invariant = ANIC_INVARIANT_L3;
  record.cls = ANIC_CLASS_RPC;
  record.observed = 40;
  record.approved = 12;
  record.requested = 1'000'000;
  CHECK(
      told(record) ==
      "#12 14:03:22.120 tenant acme: rpc missed its SLO: 12 of 40 answers took longer than 1ms, L3 (a class "
      "missed its SLO)");
  CHECK(audit::event_json(record, names()).dump() ==
        R"({"class":"rpc","samples":40,"over_slo":12,"slo_ns":1000000})");
}

TEST_CASE("audit: no kind is left out, and none that is unknown breaks the line") {
  for (unsigned kind = 0; kind <= UINT8_MAX; ++kind) {
    anic_record record{};
    std::memset(&record, static_cast<int>(0xff - kind % 2), sizeof(record));  // numbers that mean nothing
    record.kind = static_cast<__u8>(kind);
    const std::string line = told(record);
    INFO(line);
    const bool known = kind != ANIC_RECORD_NONE && kind < ANIC_RECORD__MAX;
    CHECK(line.contains("which this version does not know") == !known);
    CHECK(std::ranges::none_of(line, [](char c) { return static_cast<unsigned char>(c) < ' '; }));
    CHECK(audit::record_json(record, names()).at("kind").get<std::string>() ==
          audit::record_name(record.kind));
  }
}

TEST_CASE("audit: an agent's words stay words") {
  anic_record record = weight_decision(ANIC_DECIDED_APPROVE, ANIC_INVARIANT_NONE);
  set_reason(record, "\x1b[2J\n#13 tenant acme: \"approved\" 0123456789");
  const std::string line = told(record);
  CHECK_FALSE(line.contains('\n'));
  CHECK_FALSE(line.contains('\x1b'));
  CHECK(line.contains(R"(\n#13 tenant acme: \"approved\")"));
}

TEST_CASE("audit: JSON has units in its keys and words for enums") {
  const Json json = audit::record_json(weight_decision(ANIC_DECIDED_REWRITE, ANIC_INVARIANT_R1), names());
  CHECK(json.at("kind") == "decision");
  CHECK(json.at("tenant") == "acme");
  CHECK(json.at("decided") == "rewrite");
  CHECK(json.at("invariant") == "R1");
  CHECK(json.at("rewritten_by") == Json::array({"R1"}));
  CHECK(json.at("change") == "queue_weight_adjust");
  CHECK(json.at("class") == "rpc");
  CHECK(json.at("observed_weight") == 100);
  CHECK(json.at("requested_weight") == 900);
  CHECK(json.at("approved_weight") == 200);
  CHECK(json.at("until_monotonic_ns") == 262 * kSecond);
  CHECK(json.at("reason") == "more for rpc");
  const Json rejected = audit::record_json(weight_decision(ANIC_DECIDED_REJECT, ANIC_INVARIANT_I1), names());
  CHECK_FALSE(rejected.contains("approved_weight"));
  CHECK(rejected.at("until_monotonic_ns").is_null());
}

TEST_CASE("audit: every word of a change leads back to it, and no two are the same") {
  std::set<std::string_view> words;
  for (std::uint8_t i = 1; i < ANIC_CHANGE__MAX; ++i) {
    CHECK(audit::change_of(policy::change_name(i)) == static_cast<anic_change>(i));
    words.insert(policy::change_name(i));
  }
  CHECK(words.size() == ANIC_CHANGE__MAX - 1);
  CHECK_FALSE(audit::change_of("?"));
  CHECK_FALSE(audit::change_of("nothing"));
  for (std::uint8_t i = 1; i < ANIC_INVARIANT__MAX; ++i) CHECK_FALSE(audit::invariant_meaning(i).empty());
  CHECK(audit::invariant_name(ANIC_INVARIANT_C1) == "C1");
  CHECK(audit::invariant_name(ANIC_INVARIANT_L4) == "L4");
  CHECK(audit::invariant_name(ANIC_INVARIANT_FORM) == "form");
  CHECK(audit::failsafe_name(ANIC_FAILSAFE_STUCK) == "stuck");
  CHECK(audit::failsafe_name(ANIC_FAILSAFE__MAX) == "?");
}

TEST_CASE("chain: SipHash-2-4-128 agrees with its authors' vector, and with another implementation") {
  // vectors_sip128[0] of the reference implementation (github.com/veorq/SipHash): a3 81 7f 04 ... 02 93
  CHECK(audit::siphash(kKey, {}) == audit::Words{.low = 0xe6a825ba047f81a3, .high = 0x930255c71472f66d});
  std::array<std::uint64_t, ANIC_MAC_WORDS> words{};
  for (std::size_t i = 0; i < sizeof(words); ++i)
    words[i / 8] |= std::uint64_t{i} << (8 * (i % 8));  // the bytes 0 to 159
  CHECK(audit::siphash(kKey, words) == audit::Words{.low = 0x2f78d3890329d65b, .high = 0x56dd61a9d6bae2de});
}

TEST_CASE("chain: what the kernel wrote is found whole, over the end of a segment too") {
  CHECK_FALSE(first_bad(make_chain(1)));
  CHECK_FALSE(first_bad(make_chain(2 * ANIC_SEGMENT + 3)));
  CHECK_FALSE(first_bad({}));
}

TEST_CASE("chain: at the end of a segment the key becomes another") {
  audit::Chain chain{.key = kKey, .seq = ANIC_SEGMENT - 1, .mac = {}};
  audit::advance(chain, {.low = 1, .high = 2});
  CHECK(chain.key == audit::Words{.low = 0x2a4f574df8dc3910, .high = 0xb424c6d238473851});
  const audit::Words second = chain.key;
  audit::advance(chain, {});
  CHECK(chain.key == second);
}

TEST_CASE("chain: it can be followed in parts") {
  const auto records = make_chain(10);
  audit::Chain chain{.key = kKey, .seq = 0, .mac = {}};
  CHECK_FALSE(audit::first_bad(chain, std::span(records).first(4)));
  CHECK(chain.seq == 4);
  CHECK_FALSE(audit::first_bad(chain, std::span(records).subspan(4)));
  CHECK(chain.seq == 10);
}

TEST_CASE("chain: every changed bit is found in its record") {
  const auto good = make_chain(3);
  for (std::size_t bit = 0; bit < 8 * sizeof(anic_record); ++bit) {
    auto records = good;
    auto* bytes = reinterpret_cast<unsigned char*>(&records[1]);
    bytes[bit / 8] = static_cast<unsigned char>(bytes[bit / 8] ^ 1U << bit % 8);
    if (first_bad(records) != 2) FAIL("bit " << bit);
  }
}

TEST_CASE("chain: what is missing, repeated or in another's place is found") {
  const auto good = make_chain(6);
  auto records = good;
  records.erase(records.begin() + 2);
  CHECK(first_bad(records) == 3);
  records = good;
  records.insert(records.begin() + 2, good[1]);
  CHECK(first_bad(records) == 3);
  records = good;
  std::swap(records[3], records[4]);
  CHECK(first_bad(records) == 4);
  records = good;
  records.erase(records.begin());
  CHECK(first_bad(records) == 1);
  audit::Chain other{.key = {.low = 1, .high = 2}, .seq = 0, .mac = {}};
  CHECK(audit::first_bad(other, good) == 1);
}

TEST_CASE("audit ring: records are read in order, over the end of the ring too") {
  Ring ring(1024);
  const std::uint64_t from = 1024 * 7 - 2 * kTakes - 40;  // the third lies on both sides of the end
  for (std::uint64_t i = 0; i < 4; ++i) {
    anic_record record = make_record(ANIC_RECORD_ACK);
    record.seq = 100 + i;
    ring.put(from + i * kTakes, record);
  }
  const auto read = kern::read_records(ring.data(), from, from + 4 * kTakes);
  REQUIRE(read);
  REQUIRE(read->records.size() == 4);
  for (std::uint64_t i = 0; i < 4; ++i) CHECK(read->records[i].seq == 100 + i);
  CHECK(read->position == from + 4 * kTakes);
  const auto none = kern::read_records(ring.data(), from, from);
  REQUIRE(none);
  CHECK(none->records.empty());
}

TEST_CASE("audit ring: what is being written is waited for, what was discarded is skipped") {
  Ring ring(1024);
  ring.put(0, make_record(ANIC_RECORD_ACK));
  ring.put(kTakes, kDiscard | 13U, "discarded....", 13);
  ring.put(kTakes + 24, make_record(ANIC_RECORD_ACK));
  ring.put(2 * kTakes + 24, make_record(ANIC_RECORD_ACK), kBusy);
  const auto read = kern::read_records(ring.data(), 0, 3 * kTakes + 24);
  REQUIRE(read);
  CHECK(read->records.size() == 2);
  CHECK(read->position == 2 * kTakes + 24);
}

TEST_CASE("audit ring: what is not a record is an error that names its position") {
  const auto error = [](std::uint32_t header, std::uint64_t to) {
    Ring ring(1024);
    ring.put(kTakes, header, nullptr, 0);
    ring.put(0, make_record(ANIC_RECORD_ACK));
    const auto read = kern::read_records(ring.data(), 0, to);
    return read ? std::string() : read.error().what;
  };
  CHECK(error(159, 3 * kTakes) == "read the audit ring at position 168: 159 bytes, where a record has 160");
  CHECK(error(0, 3 * kTakes).contains("position 168: 0 bytes"));
  CHECK(error(kDiscard | 0x3fffffffU, 3 * kTakes).contains("position 168: 1073741823 bytes"));
  CHECK(error(160, 2 * kTakes - 8).contains("position 168"));  // more than there is
  CHECK(error(160, kTakes + 4).contains("position 168"));      // not even a header
  CHECK(error(160, 1032).contains("the kernel says that it ends at 1032"));
  Ring ring(1024);
  CHECK_FALSE(kern::read_records(ring.data(), 8, 0));
  CHECK_FALSE(kern::read_records(ring.data(), 4, 8));
}
