// SPDX-License-Identifier: Apache-2.0
#include "audit/verify.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <utility>

#include "audit/chain.hpp"
#include "audit/log.hpp"
#include "audit/merkle.hpp"
#include "audit/sequence.hpp"
#include "base/file.hpp"

namespace agentnic::audit {
namespace {

constexpr std::array<std::string_view, 12> kAttacks = {"none",          "changed",       "gap",
                                                       "truncation",    "replay",        "swap",
                                                       "re-sealing",    "wrong key",     "removed checkpoint",
                                                       "other history", "unsealed tail", "unknown key"};
static_assert(kAttacks.size() == static_cast<std::size_t>(Attack::UnknownKey) + 1);

/// A root that somebody signed, and where that stands.
struct Sealed {
  std::uint64_t size = 0;
  Hash root{};
  std::string file;
  std::uint64_t byte = 0;
};

/// The chain of MACs, recomputed.
class Macs {
 public:
  explicit Macs(const std::optional<ChainKey>& key) : key_(key) {}

  enum class Outcome { Good, Bad, NoKey };
  Outcome add(const anic_record& record) {
    if (!key_) return Outcome::NoKey;
    if (begins_chain(record)) {
      const auto key = record.observed == 0 ? std::nullopt : key_->of(record.observed);
      chain_ = key ? std::optional(Chain{.key = key->first(), .seq = 0, .mac = {}}) : std::nullopt;
    }
    if (!chain_) return Outcome::NoKey;
    const Words mac = mac_of(*chain_, record);
    if (mac != Words{record.mac[0], record.mac[1]}) return Outcome::Bad;
    advance(*chain_, mac);
    return Outcome::Good;
  }

  /// Of a record that was Bad: the later segment of the chain whose key it was made with.
  [[nodiscard]] std::optional<std::uint64_t> resealed_with(const anic_record& record,
                                                           std::uint64_t segments) const {
    Chain chain = *chain_;
    for (std::uint64_t segment = chain.seq / ANIC_SEGMENT + 1; segment < segments; ++segment) {
      const std::array<std::uint64_t, 2> next = {ANIC_RATCHET, segment};
      chain.key = siphash(chain.key, next);
      if (mac_of(chain, record) == Words{record.mac[0], record.mac[1]}) return segment;
    }
    return std::nullopt;
  }
  [[nodiscard]] bool at_first() const { return chain_ && chain_->seq == 0; }

 private:
  const std::optional<ChainKey>& key_;
  std::optional<Chain> chain_;
};

/// Goes through a log once, from its first record on, up to the first fault.
class Walk {
 public:
  Walk(const std::string& dir, const VerifierKey& key, const VerifyOptions& options)
      : dir_(dir), key_(key), options_(options), macs_(options.chain_key) {}

  Result<Verification> run() {
    found_.live = is_recorded(dir_);
    auto fault = ANIC_TRY(read_checkpoints());
    if (!fault) fault = read_others();
    if (!fault) fault = ANIC_TRY(walk());
    if (!fault) fault = look_at_end();
    if (fault) {
      found_.fault = std::move(fault);
      const bool open =
          found_.fault->attack == Attack::UnsealedTail || found_.fault->attack == Attack::UnknownKey;
      found_.verdict = open ? Verdict::CannotTell : Verdict::Broken;
    }
    found_.chains = sequence_.chains();
    found_.chains_without_end = without_end_ + (sequence_.ended() || found_.live ? 0 : 1);
    return std::move(found_);
  }

 private:
  using MaybeFault = std::optional<Fault>;

  static Fault at_note(Attack attack, std::string file, std::uint64_t byte, std::string what) {
    return {.attack = attack,
            .file = std::move(file),
            .byte = byte,
            .index = {},
            .seq = {},
            .what = std::move(what)};
  }

  Fault at_record(Attack attack, std::uint64_t index, const anic_record* record, std::string what) const {
    return {.attack = attack,
            .file = records_path("", index / kSegmentRecords),
            .byte = index % kSegmentRecords * sizeof(anic_record),
            .index = index,
            .seq = record == nullptr ? std::nullopt : std::optional(record->seq),
            .what = std::move(what)};
  }

  Fault at_hash(std::uint64_t segment, std::uint64_t place, std::string what) const {
    return {.attack = Attack::Changed,
            .file = hashes_path("", segment),
            .byte = place * sizeof(Hash),
            .index = segment * kSegmentRecords + place,
            .seq = {},
            .what = std::move(what)};
  }

  /// All of them, before any record: what is signed by then is there by then.
  Result<MaybeFault> read_checkpoints() {
    const std::string path = part_path(dir_, kCheckpointsPart);
    const std::string notes = ANIC_TRY(read_file(path, kNotesMost));
    std::optional<Hash> last;
    for (std::size_t at = 0; at < notes.size();) {
      const std::string_view rest = std::string_view(notes).substr(at);
      const auto opened = open_note(rest, key_);
      if (!opened) {
        const NoteFault& fault = opened.error();
        if (fault.kind == NoteFault::Kind::Incomplete && found_.live) break;
        const Attack attack = fault.kind == NoteFault::Kind::OtherKey     ? Attack::WrongKey
                              : fault.kind == NoteFault::Kind::Incomplete ? Attack::Truncation
                                                                          : Attack::Changed;
        return at_note(attack == Attack::WrongKey && !sealed_.empty() ? Attack::Changed : attack,
                       kCheckpointsPart, at + fault.byte,
                       fmt::format("checkpoint {}: {}", sealed_.size() + 1, fault.what));
      }
      const Checkpoint& checkpoint = opened->checkpoint;
      if (checkpoint.previous != last) {
        return at_note(
            Attack::RemovedCheckpoint, kCheckpointsPart, at,
            fmt::format("the checkpoint of {} records does not follow on the one that stands before it",
                        checkpoint.size));
      }
      if (!sealed_.empty() && checkpoint.size <= sealed_.back().size)
        return at_note(Attack::OtherHistory, kCheckpointsPart, at,
                       "a checkpoint is of no more records than the one before");
      sealed_.push_back({checkpoint.size, checkpoint.root, kCheckpointsPart, at});
      last = note_hash(rest.substr(0, opened->length));
      at += opened->length;
    }
    found_.checkpoints = sealed_.size();
    if (!sealed_.empty()) {
      found_.sealed = sealed_.back().size;
      found_.root = base64(sealed_.back().root);
    }
    return MaybeFault();
  }

  /// Checkpoints from elsewhere are held against the records like our own.
  MaybeFault read_others() {
    for (const auto& [name, text] : options_.others) {
      for (std::size_t at = 0; at < text.size();) {
        const auto opened = open_note(std::string_view(text).substr(at), key_);
        if (!opened) {
          const bool other = opened.error().kind == NoteFault::Kind::OtherKey;
          return at_note(other ? Attack::WrongKey : Attack::Changed, name, at + opened.error().byte,
                         opened.error().what);
        }
        sealed_.push_back({opened->checkpoint.size, opened->checkpoint.root, name, at});
        at += opened->length;
      }
    }
    std::ranges::stable_sort(sealed_, {}, &Sealed::size);
    return std::nullopt;
  }

  Result<MaybeFault> walk() {
    const std::uint64_t segments = ANIC_TRY(count_segments(dir_));
    for (std::uint64_t segment = 0; segment < segments; ++segment) {
      const Segment read = ANIC_TRY(read_segment(dir_, segment));
      if (!read.there)
        return MaybeFault(at_record(Attack::Gap, segment * kSegmentRecords, nullptr,
                                    fmt::format("{} is missing", records_path("", segment))));
      if (auto fault = ANIC_TRY(walk_segment(segment, read))) return MaybeFault(std::move(fault));
      const bool last = segment + 1 == segments;
      if (read.records.size() > kSegmentRecords || (read.records.size() == kSegmentRecords && read.rest != 0))
        return MaybeFault(
            at_record(Attack::Replay, sequence_.size(), nullptr, "the segment goes on after its end"));
      if (!last && read.records.size() < kSegmentRecords)
        return MaybeFault(at_record(Attack::Gap, sequence_.size(), nullptr,
                                    fmt::format("{} records are missing at the end of the segment",
                                                kSegmentRecords - read.records.size())));
      if (last && read.rest != 0 && !found_.live)
        return MaybeFault(
            at_record(Attack::Truncation, sequence_.size(), nullptr,
                      fmt::format("the record has {} of its {} bytes", read.rest, sizeof(anic_record))));
    }
    return MaybeFault();
  }

  Result<MaybeFault> walk_segment(std::uint64_t segment, const Segment& read) {
    Frontier part;
    for (std::uint64_t place = 0; place < std::min<std::uint64_t>(read.records.size(), kSegmentRecords);
         ++place) {
      const anic_record& record = read.records[place];
      const Hash leaf = leaf_hash(record);
      const std::uint64_t index = tree_.size();
      const bool hashed = place < read.hashes.size() ? read.hashes[place] == leaf : index >= found_.sealed;
      const bool unended = begins_chain(record) && !sequence_.ended();
      const auto broken = sequence_.add(record);
      const auto mac = broken ? Macs::Outcome::NoKey : macs_.add(record);
      if (mac == Macs::Outcome::NoKey && options_.chain_key && !no_key_) no_key_ = index;
      if (!hashed || broken || mac == Macs::Outcome::Bad)
        return ANIC_TRY(explain(segment, read, place, broken, mac == Macs::Outcome::Bad));
      if (unended) ++without_end_;
      found_.keyed += mac == Macs::Outcome::Good ? 1 : 0;
      tree_.add(leaf);
      part.add(leaf);
      ++found_.records;
      if (auto fault = check_roots()) return fault;
    }
    if (part.size() == kSegmentRecords && read.hashes.size() > kSegmentRecords &&
        read.hashes[kSegmentRecords] != part.root())
      return MaybeFault(at_hash(segment, kSegmentRecords, "the root of the segment's subtree was changed"));
    if (read.records.size() >= kSegmentRecords && read.hashes.size() != kSegmentRecords + 1 &&
        tree_.size() < found_.sealed)
      return MaybeFault(
          at_hash(segment, read.hashes.size(), "hashes of the segment are missing, or too many"));
    return MaybeFault();
  }

  /// The checkpoints of as many records as there are now.
  MaybeFault check_roots() {
    for (; next_ < sealed_.size() && sealed_[next_].size <= tree_.size(); ++next_) {
      const Sealed& sealed = sealed_[next_];
      if (sealed.size == 0 || (sealed.size == tree_.size() && sealed.root == tree_.root())) {
        agreed_ = sealed.size;
        continue;
      }
      if (sealed.file != kCheckpointsPart) {
        return at_note(Attack::OtherHistory, sealed.file, sealed.byte,
                       fmt::format("the checkpoint of {} records is not of this log", sealed.size));
      }
      return at_record(
          Attack::Resealing, agreed_, nullptr,
          fmt::format("records {} to {} are not those that the checkpoint of {} records was signed for",
                      agreed_, sealed.size - 1, sealed.size));
    }
    return std::nullopt;
  }

  /// Something is wrong with a record, its hash, or both.
  Result<MaybeFault> explain(std::uint64_t segment, const Segment& read, std::uint64_t place,
                             const std::optional<Break>& broken, bool bad_mac) {
    const anic_record& record = read.records[place];
    const std::uint64_t index = segment * kSegmentRecords + place;
    if (bad_mac) {
      const std::uint64_t segments = ANIC_TRY(count_segments(dir_)) * (kSegmentRecords / ANIC_SEGMENT);
      if (const auto later = macs_.resealed_with(record, segments)) {
        return MaybeFault(
            at_record(Attack::Resealing, index, &record,
                      fmt::format("its MAC was made with the key of segment {} of its chain", *later)));
      }
    }
    const bool hashed = place < read.hashes.size() && read.hashes[place] == leaf_hash(record);
    if (!hashed) {
      switch (ANIC_TRY(who_is_right(segment, place))) {
        case Right::Records:
          return MaybeFault(
              place < read.hashes.size()
                  ? at_hash(segment, place, "the hash was changed; the record is what was signed")
                  : at_hash(segment, read.hashes.size(),
                            "hashes were cut off; the records are what was signed"));
        case Right::Hashes:
          return MaybeFault(ANIC_TRY(by_hashes(segment, read, place, broken)));
        case Right::Neither:
          break;
      }
    }
    if (bad_mac && macs_.at_first())
      return MaybeFault(at_record(Attack::WrongKey, index, &record,
                                  "the chain begins with another key than the one it is held against"));
    if (broken) return MaybeFault(by_number(index, record, *broken));
    return MaybeFault(at_record(
        Attack::Changed, index, &record,
        bad_mac ? "its MAC is not that of the record" : "the record and its hash do not belong together"));
  }

  enum class Right { Records, Hashes, Neither };

  /// From a record on whose hash is not as stored: which of both gives the root of the next checkpoint.
  Result<Right> who_is_right(std::uint64_t segment, std::uint64_t place) const {
    const std::uint64_t index = segment * kSegmentRecords + place;
    const auto next =
        std::ranges::find_if(sealed_, [&](const Sealed& sealed) { return sealed.size > index; });
    if (next == sealed_.end()) return Right::Neither;
    Frontier by_records = tree_;
    Frontier by_hashes = tree_;
    for (; std::max(by_records.size(), by_hashes.size()) < next->size; ++segment, place = 0) {
      const Segment read = ANIC_TRY(read_segment(dir_, segment));
      const std::uint64_t end = std::min(kSegmentRecords, next->size - segment * kSegmentRecords);
      for (std::uint64_t i = place; i < std::min<std::uint64_t>(end, read.records.size()); ++i)
        by_records.add(leaf_hash(read.records[i]));
      for (std::uint64_t i = place; i < std::min<std::uint64_t>(end, read.hashes.size()); ++i)
        by_hashes.add(read.hashes[i]);
      if (read.records.size() < end && read.hashes.size() < end) break;
    }
    if (by_records.size() == next->size && by_records.root() == next->root) return Right::Records;
    if (by_hashes.size() == next->size && by_hashes.root() == next->root) return Right::Hashes;
    return Right::Neither;
  }

  /// The hashes are what was signed, and the record is not the one that was there: is it another of the log?
  Result<Fault> by_hashes(std::uint64_t segment, const Segment& read, std::uint64_t place,
                          const std::optional<Break>& broken) const {
    const std::uint64_t index = segment * kSegmentRecords + place;
    const anic_record& record = read.records[place];
    const Hash leaf = leaf_hash(record);
    const auto stored =
        std::span(read.hashes).first(std::min<std::size_t>(read.hashes.size(), kSegmentRecords));
    const auto later = std::ranges::find(stored.subspan(place), leaf);
    if (later != stored.end()) {
      const auto ahead = static_cast<std::uint64_t>(later - stored.begin()) - place;
      const bool swapped =
          place + ahead < read.records.size() && leaf_hash(read.records[place + ahead]) == read.hashes[place];
      if (swapped)
        return at_record(
            Attack::Swap, index, &record,
            fmt::format("record {} is here, and the one of here is in its place", index + ahead));
      return at_record(Attack::Gap, index, &record, fmt::format("{} records are missing before it", ahead));
    }
    if (std::ranges::find(stored.first(place), leaf) != stored.begin() + static_cast<std::ptrdiff_t>(place))
      return at_record(Attack::Replay, index, &record, "a record that stands before is here again");
    for (std::uint64_t before = 0; before < segment; ++before) {
      const std::vector<Hash> hashes = ANIC_TRY(read_hashes(dir_, before));
      if (std::ranges::find(hashes, leaf) != hashes.end())
        return at_record(Attack::Replay, index, &record, "a record of an earlier segment is here again");
    }
    // From a later segment: its number says so, if the record after it goes on from it.
    const bool goes_on = place + 1 < read.records.size() && read.records[place + 1].seq == record.seq + 1;
    if (broken && goes_on && record.seq != broken->expected) return by_number(index, record, *broken);
    return at_record(Attack::Changed, index, &record, "the record is not the one that was signed");
  }

  Fault by_number(std::uint64_t index, const anic_record& record, const Break& broken) const {
    const Attack attack = broken.kind == Break::Kind::Missing    ? Attack::Gap
                          : broken.kind == Break::Kind::Repeated ? Attack::Replay
                                                                 : Attack::Changed;
    return at_record(attack, index, &record, broken.what);
  }

  /// All records are good: are these all?
  MaybeFault look_at_end() {
    const std::uint64_t records = tree_.size();
    if (next_ < sealed_.size()) {
      const Sealed& sealed = sealed_[next_];
      return at_record(Attack::Truncation, records, nullptr,
                       fmt::format("the log ends after {} records, and {} signs for {}", records, sealed.file,
                                   sealed.size));
    }
    if (no_key_)
      return at_record(Attack::UnknownKey, *no_key_, nullptr,
                       "its chain began with a key that does not come from the one it is held against");
    const bool proven = options_.chain_key && found_.keyed == records;
    if (records > found_.sealed && !found_.live && !proven) {
      return at_record(
          Attack::UnsealedTail, found_.sealed, nullptr,
          fmt::format("{} records from here on are under no checkpoint", records - found_.sealed));
    }
    return std::nullopt;
  }

  const std::string& dir_;
  const VerifierKey& key_;
  const VerifyOptions& options_;
  Verification found_;
  std::vector<Sealed> sealed_;  ///< by size
  std::size_t next_ = 0;        ///< of them that is not looked at yet
  std::uint64_t agreed_ = 0;    ///< records that a checkpoint was right about
  Sequence sequence_;
  Frontier tree_;
  Macs macs_;
  std::optional<std::uint64_t> no_key_;  ///< first record without one
  std::uint64_t without_end_ = 0;
};

}  // namespace

std::string_view attack_name(Attack attack) { return kAttacks.at(static_cast<std::size_t>(attack)); }

Result<Verification> verify_log(const std::string& dir, const VerifierKey& key,
                                const VerifyOptions& options) {
  ANIC_TRY(check_log(dir));
  return Walk(dir, key, options).run();
}

}  // namespace agentnic::audit
