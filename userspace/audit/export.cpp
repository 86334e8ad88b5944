// SPDX-License-Identifier: Apache-2.0
#include "audit/export.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <span>
#include <utility>

#include "audit/log.hpp"
#include "audit/merkle.hpp"
#include "audit/names.hpp"
#include "audit/sequence.hpp"
#include "audit/words.hpp"
#include "base/file.hpp"
#include "base/json.hpp"

namespace agentnic::audit {
namespace {

constexpr const char* kSchema = "agentnic.export/1";
constexpr std::size_t kPathMost = 64;
constexpr std::size_t kLineMost = 65'536;

std::span<const std::uint8_t> bytes_of(const anic_record& record) {
  return {reinterpret_cast<const std::uint8_t*>(&record), sizeof(record)};
}

/// The last checkpoint, and its note.
struct LastNote {
  Checkpoint checkpoint;
  std::string text;
};
Result<LastNote> last_note(const std::string& dir, const VerifierKey& key) {
  const std::string notes = ANIC_TRY(read_file(part_path(dir, kCheckpointsPart), kNotesMost));
  LastNote last;
  for (std::size_t at = 0; at < notes.size();) {
    const std::string_view rest = std::string_view(notes).substr(at);
    const auto opened = open_note(rest, key);
    if (!opened && opened.error().kind == NoteFault::Kind::Incomplete) break;
    if (!opened)
      return fail(Exit::Failed, fmt::format("read the checkpoints of {}: {}", dir, opened.error().what),
                  "agentnic-audit verify " + dir);
    last = {.checkpoint = opened->checkpoint, .text = std::string(rest.substr(0, opened->length))};
    at += opened->length;
  }
  if (last.text.empty()) return fail(Exit::Failed, "export from " + dir + ": nothing of it is signed yet");
  return last;
}

/// Whose an id is, as records say.
class Tenancies {
 public:
  /// Of a record: whose part it is of; empty: nobody's.
  std::string_view owner(const anic_record& record) {
    if (begins_chain(record)) names_ = {};
    if (begins_tenancy(record)) names_[record.tenant] = text_of(record.reason);
    return record.tenant_seq != 0 ? std::string_view(names_[record.tenant]) : std::string_view();
  }
  /// After owner(): what comes next may be another's.
  void leave(const anic_record& record) {
    if (ends_tenancy(record)) names_[record.tenant].clear();
  }
  [[nodiscard]] std::optional<std::uint32_t> find(std::string_view name) const {
    const auto found = std::ranges::find(names_, name);
    return found == names_.end() ? std::nullopt
                                 : std::optional(static_cast<std::uint32_t>(found - names_.begin()));
  }

 private:
  std::array<std::string, ANIC_TENANT_SEQS> names_;
};

struct Chosen {
  std::uint64_t index = 0;
  anic_record record{};
};

/// Calls `each` with index, record and owner of the first `size` records.
template <typename Each>
Status for_records(const std::string& dir, std::uint64_t size, Each&& each) {
  Tenancies tenancies;
  for (std::uint64_t index = 0; index < size;) {
    const auto records = ANIC_TRY(read_records(dir, index, size - index));
    if (records.empty())
      return fail(Exit::Failed,
                  fmt::format("read {}: it ends after {} records, and {} are signed for", dir, index, size),
                  "agentnic-audit verify " + dir);
    for (const anic_record& record : records) {
      each(index++, record, tenancies.owner(record));
      tenancies.leave(record);
    }
  }
  return {};
}

/// The trees of segments, one at a time, and that of their roots.
class Paths {
 public:
  static Result<Paths> open(const std::string& dir, const Checkpoint& checkpoint) {
    Paths paths(dir, checkpoint.size);
    std::vector<Hash> roots;
    for (std::uint64_t segment = 0; segment * kSegmentRecords < checkpoint.size; ++segment) {
      auto hashes = ANIC_TRY(read_hashes(dir, segment));
      const bool whole = (segment + 1) * kSegmentRecords <= checkpoint.size;
      if (whole && hashes.size() > kSegmentRecords) {
        roots.push_back(hashes[kSegmentRecords]);
      } else {
        roots.push_back(ANIC_TRY(paths.tree_of(segment, std::move(hashes))).root());
      }
    }
    paths.roots_.emplace(std::move(roots));
    if (paths.roots_->root() != checkpoint.root)
      return fail(Exit::Failed, fmt::format("export from {}: its hashes are not what was signed", dir),
                  "agentnic-audit verify " + dir);
    return paths;
  }

  Result<std::vector<Hash>> of(std::uint64_t index) {
    const std::uint64_t segment = index / kSegmentRecords;
    if (!tree_ || segment_ != segment) {
      tree_.emplace(ANIC_TRY(tree_of(segment, ANIC_TRY(read_hashes(dir_, segment)))));
      segment_ = segment;
    }
    std::vector<Hash> path;
    tree_->add_path(index % kSegmentRecords, path);
    roots_->add_path(segment, path);
    return path;
  }

 private:
  Paths(std::string dir, std::uint64_t size) : dir_(std::move(dir)), size_(size) {}

  /// Of as many of its hashes as the checkpoint has.
  [[nodiscard]] Result<Tree> tree_of(std::uint64_t segment, std::vector<Hash> hashes) const {
    const std::uint64_t wanted = std::min(kSegmentRecords, size_ - segment * kSegmentRecords);
    if (hashes.size() < wanted)
      return fail(Exit::Failed, fmt::format("read {}: hashes are missing", hashes_path(dir_, segment)),
                  "agentnic-audit verify " + dir_);
    hashes.resize(wanted);
    return Tree(std::move(hashes));
  }

  std::string dir_;
  std::uint64_t size_ = 0;
  std::optional<Tree> roots_;
  std::optional<Tree> tree_;
  std::uint64_t segment_ = 0;
};

std::string path_text(const std::vector<Hash>& path) {
  return base64({reinterpret_cast<const std::uint8_t*>(path.data()), path.size() * sizeof(Hash)});
}

}  // namespace

Result<std::uint32_t> find_tenant(const std::string& dir, const std::string& tenant) {
  Tenancies tenancies;
  for (std::uint64_t index = 0;;) {
    const auto records = ANIC_TRY(read_records(dir, index, kSegmentRecords));
    if (records.empty()) break;
    for (const anic_record& record : records) {
      tenancies.owner(record);
      tenancies.leave(record);
    }
    index += records.size();
  }
  if (const auto found = tenancies.find(tenant); found && *found != 0) return *found;
  return fail(Exit::BadInput, fmt::format("find tenant {} in {}: no policy in force has it", tenant, dir));
}

Result<ExportMade> make_export(const std::string& dir, const VerifierKey& key, const std::string& tenant,
                               const std::function<Status(std::string_view)>& write) {
  const LastNote last = ANIC_TRY(last_note(dir, key));
  const std::uint64_t size = last.checkpoint.size;
  std::vector<Chosen> chosen;
  ANIC_TRY(
      for_records(dir, size, [&](std::uint64_t index, const anic_record& record, std::string_view owner) {
        if (owner == tenant) chosen.push_back({index, record});
      }));
  if (chosen.empty())
    return fail(Exit::BadInput, fmt::format("export from {}: it has no records of tenant {}", dir, tenant));
  const std::vector<NameBook> books = ANIC_TRY(read_name_books(dir));
  Paths paths = ANIC_TRY(Paths::open(dir, last.checkpoint));
  const Json head = {{"schema", kSchema}, {"tenant", tenant}, {"checkpoint", last.text}};
  ANIC_TRY(write(head.dump() + "\n"));
  for (const Chosen& one : chosen) {
    const Names names = names_of(book_of(books, one.index), 0);
    ANIC_TRY(write(fmt::format(
        R"({{"index":{},"record":"{}","path":"{}","says":{}}})"
        "\n",
        one.index, base64(bytes_of(one.record)), path_text(ANIC_TRY(paths.of(one.index))),
        Json(event_text(one.record, names)).dump(-1, ' ', false, Json::error_handler_t::replace))));
  }
  return ExportMade{.records = chosen.size(), .size = size};
}

bool ExportCheck::complete() const {
  return !tenancies.empty() &&
         std::ranges::all_of(tenancies, [](const Tenancy& tenancy) { return tenancy.complete; });
}

Status ExportChecker::add(std::string_view line) {
  ++lines_;
  if (line.size() > kLineMost)
    return fail(Exit::BadInput, fmt::format("line {} has more than {} bytes", lines_, kLineMost));
  return lines_ == 1 ? read_head(line) : read_record(line);
}

Status ExportChecker::read_head(std::string_view line) {
  const Json head = Json::parse(line, nullptr, false);
  const auto text = [&](const char* name) -> std::optional<std::string> {
    if (!head.is_object() || !head.contains(name) || !head[name].is_string()) return std::nullopt;
    return head[name].get<std::string>();
  };
  if (text("schema") != kSchema) return fail(Exit::BadInput, fmt::format("line 1 is no head of {}", kSchema));
  const auto tenant = text("tenant");
  const auto note = text("checkpoint");
  if (!tenant || tenant->empty() || !note)
    return fail(Exit::BadInput, "line 1 has no tenant, or no checkpoint");
  const auto opened = open_note(*note, key_);
  if (!opened || opened->length != note->size())
    return fail(Exit::Failed, "line 1: its checkpoint: " +
                                  (opened ? std::string("something follows it") : opened.error().what));
  check_.tenant = *tenant;
  checkpoint_ = opened->checkpoint;
  check_.size = checkpoint_.size;
  return {};
}

Status ExportChecker::read_record(std::string_view line) {
  const auto bad = [&](const char* why) {
    return fail(Exit::BadInput, fmt::format("line {}: {}", lines_, why));
  };
  const auto untrue = [&](const std::string& why) {
    return fail(Exit::Failed, fmt::format("line {}: {}", lines_, why));
  };
  const Json json = Json::parse(line, nullptr, false);
  if (!json.is_object() || !json.contains("index") || !json["index"].is_number_unsigned() ||
      !json.contains("record") || !json["record"].is_string() || !json.contains("path") ||
      !json["path"].is_string())
    return bad("it has no index, record and path");
  const auto bytes = from_base64(json["record"].get_ref<const std::string&>());
  const auto path_bytes = from_base64(json["path"].get_ref<const std::string&>());
  if (!bytes || bytes->size() != sizeof(anic_record)) return bad("its record is not one in base64");
  if (!path_bytes || path_bytes->size() % sizeof(Hash) != 0 || path_bytes->size() / sizeof(Hash) > kPathMost)
    return bad("its path is not hashes in base64");
  anic_record record{};
  std::memcpy(&record, bytes->data(), sizeof(record));
  std::vector<Hash> path(path_bytes->size() / sizeof(Hash));
  std::memcpy(path.data(), path_bytes->data(), path_bytes->size());
  const auto index = json["index"].get<std::uint64_t>();

  if (index < next_index_) return untrue("it stands in the log before the one that stands before it here");
  if (root_by_path(leaf_hash(record), index, checkpoint_.size, path) != checkpoint_.root)
    return untrue(fmt::format("the log that was signed has another record {}", index));
  next_index_ = index + 1;
  if (record.tenant == 0) return untrue("it is no tenant's record");
  if (begins_tenancy(record)) {
    if (text_of(record.reason) != check_.tenant) return untrue("a part begins that is another tenant's");
    // An export ends the last part alone: what came after it, in a chain without an end, nobody knows.
    if (!check_.tenancies.empty() && tenant_seq_ != 0) check_.tenancies.back().complete = false;
    check_.tenancies.push_back({.first = index, .records = 0, .complete = false});
    tenant_ = record.tenant;
    tenant_seq_ = 0;
  } else if (tenant_seq_ == 0) {
    return untrue("it is in no part that began as this tenant's");
  }
  if (record.tenant != tenant_) return untrue("it is another tenant's");
  if (record.tenant_seq != tenant_seq_ + 1)
    return untrue(fmt::format("it has number {} of its tenant, where {} is the next", record.tenant_seq,
                              tenant_seq_ + 1));
  Tenancy& tenancy = check_.tenancies.back();
  ++tenancy.records;
  ++check_.records;
  const bool ends = ends_tenancy(record);
  check_.exported_at_ns = record.kind == ANIC_RECORD_EXPORT ? record.observed : 0;
  tenancy.complete = ends || record.kind == ANIC_RECORD_EXPORT;
  tenant_seq_ = ends ? 0 : record.tenant_seq;
  return {};
}

Result<ExportCheck> ExportChecker::finish() {
  if (lines_ == 0) return fail(Exit::BadInput, "it is empty");
  if (check_.records == 0) return fail(Exit::Failed, "it has no records");
  return check_;
}

}  // namespace agentnic::audit
