// SPDX-License-Identifier: Apache-2.0
#include "lab/audit.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#include "abi/audit.h"
#include "audit/export.hpp"
#include "audit/log_writer.hpp"
#include "audit/merkle.hpp"
#include "audit/note.hpp"
#include "audit/verify.hpp"
#include "base/clock.hpp"
#include "base/file.hpp"
#include "base/process.hpp"
#include "base/unique_fd.hpp"
#include "lab/environment.hpp"
#include "lab/guarded.hpp"
#include "lab/pairs.hpp"

namespace agentnic::lab {
namespace {

constexpr int kRepeats = 5;
constexpr std::uint64_t kRecords = 1'000'000;
constexpr std::uint64_t kOneOf = 100;  // records are the tenant's whose export is made
constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr std::uint64_t kRecordingNs = 2 * kSecond;
constexpr std::uint64_t kSyncNs = kSecond / 10;
constexpr int kPatienceMs = 30'000;
constexpr const char* kOrigin = "bench.invalid/log";
constexpr std::uint8_t kTenant = 2;

/// A folder on the disk of temporary files, which others may pass through; it goes with this.
class Folder final {
 public:
  static Result<std::unique_ptr<Folder>> make() {
    std::string path = std::filesystem::temp_directory_path() / "agentnic-bench-XXXXXX";
    if (::mkdtemp(path.data()) == nullptr) return fail_errno(errno, "make the folder " + path);
    auto folder = std::make_unique<Folder>(path);
    if (::chmod(path.c_str(), 0711) != 0) return fail_errno(errno, "open the folder " + path);
    return folder;
  }
  explicit Folder(std::string path) : path_(std::move(path)) {}
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] std::string part(const char* name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// --- recording ---

/// agentnic-audit record beside this program, on the CPU of the client.
Result<Child> start_recorder(const Bench& bench, const Folder& folder, const audit::SigningKey& key) {
  ANIC_TRY(keep_file(folder.part("log.key"), key.text(), 0400));
  const auto programs = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  Child recorder = ANIC_TRY(
      Child::start({"taskset", "-c", std::to_string(bench.client_cpu), programs / "agentnic-audit", "record",
                    bench.lab.server.ifname, "--netns", bench.lab.server.netns, "--log", folder.part("log"),
                    "--key", folder.part("log.key"), "--user", "nobody", "--json"}));
  ANIC_TRY(recorder.read_line(kPatienceMs));  // it has begun
  return recorder;
}

/// Decides as fast as it goes for a while; how often there was no room for a record (A1).
Result<std::uint64_t> decide_for(const Guarded& guarded, std::uint64_t duration_ns) {
  std::uint64_t number = 0;
  std::uint64_t refused = 0;
  for (const std::uint64_t begun = monotonic_ns(); monotonic_ns() - begun < duration_ns;) {
    for (int i = 0; i < ANIC_DRAIN_MAX; ++i) ANIC_TRY(guarded.session.propose(weight_proposal(number++)));
    ANIC_TRY(guarded.session.drain());
    const auto last = guarded.session.answer(number);
    if (last && last->invariant == ANIC_INVARIANT_A1) ++refused;
  }
  return refused;
}

/// Records that reached the disk, a second, until the last of them is there.
Result<double> recorded_per_s(const Bench& bench, const policy::Policy& policy, Pairs& pairs) {
  const auto folder = ANIC_TRY(Folder::make());
  const audit::SigningKey key = ANIC_TRY(audit::SigningKey::make(kOrigin));
  Guarded guarded = ANIC_TRY(make_guarded(bench, policy));
  Child recorder = ANIC_TRY(start_recorder(bench, *folder, key));
  const std::uint64_t begun = monotonic_ns();
  const std::uint64_t refused = ANIC_TRY(decide_for(guarded, kRecordingNs));
  recorder.ask_to_stop();
  const Child::Outcome outcome = ANIC_TRY(recorder.wait(kPatienceMs));
  const double took_s = static_cast<double>(monotonic_ns() - begun) / kSecond;
  ANIC_TRY(guarded.session.close());
  ANIC_TRY(guarded.attached.set(false));
  if (outcome.status != 0) return fail(Exit::Failed, "the recorder failed: " + outcome.errors);
  const audit::Verification found = ANIC_TRY(audit::verify_log(folder->part("log"), key.verifier(), {}));
  if (found.verdict != audit::Verdict::Valid)
    return fail(Exit::Failed, "the log is not valid: " + (found.fault ? found.fault->what : std::string()));
  if (refused == 0) pairs.problem = "the ring was never full: the proposer was the limit";
  return static_cast<double>(found.sealed) / took_s;
}

/// Records' bytes to a file, brought to the disk as often, and nothing else.
Result<double> written_per_s(const Folder& folder) {
  const std::string path = folder.part("plain");
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd) return fail_errno(errno, "write " + path);
  const std::vector<anic_record> batch(ANIC_AUDIT_BYTES / 4 / ANIC_AUDIT_TAKES);
  std::uint64_t bytes = 0;
  std::uint64_t synced_ns = monotonic_ns();
  const std::uint64_t begun = synced_ns;
  while (bytes < kRecords * sizeof(anic_record)) {
    if (const int code = write_at(fd.get(), std::as_bytes(std::span(batch)), bytes); code != 0)
      return fail_errno(code, "write " + path);
    bytes += batch.size() * sizeof(anic_record);
    if (monotonic_ns() - synced_ns < kSyncNs) continue;
    if (::fdatasync(fd.get()) != 0) return fail_errno(errno, "write " + path);
    synced_ns = monotonic_ns();
  }
  if (::fdatasync(fd.get()) != 0) return fail_errno(errno, "write " + path);
  const double took_s = static_cast<double>(monotonic_ns() - begun) / kSecond;
  ::unlink(path.c_str());
  return static_cast<double>(bytes) / sizeof(anic_record) / took_s;
}

// --- a log of a million records ---

anic_record make_record(std::uint64_t index, std::uint64_t& tenant_seq) {
  anic_record record{};
  record.seq = index + 1;
  record.time_ns = index;
  record.count = 1;
  record.mac[0] = index * 0x9e3779b97f4a7c15ULL;  // nobody checks it here
  if (index == 0) {
    record.kind = ANIC_RECORD_ATTACH;
  } else if (index == 1) {
    record.kind = ANIC_RECORD_COMMIT;
    record.tenant = kTenant;
    std::memcpy(record.reason, "acme", 4);
  } else {
    record.kind = ANIC_RECORD_DECISION;
    record.decided = ANIC_DECIDED_APPROVE;
    record.proposed = 1;
    if (index % kOneOf == 0) record.tenant = kTenant;
  }
  if (record.tenant != 0) record.tenant_seq = ++tenant_seq;
  return record;
}

struct MadeLog {
  std::unique_ptr<Folder> folder;
  audit::VerifierKey key;
  [[nodiscard]] std::string path() const { return folder->part("log"); }
};

Result<MadeLog> make_log() {
  audit::SigningKey key = ANIC_TRY(audit::SigningKey::make(kOrigin));
  MadeLog made{.folder = ANIC_TRY(Folder::make()), .key = key.verifier()};
  audit::LogWriter writer = ANIC_TRY(audit::LogWriter::open(made.path(), std::move(key)));
  std::vector<anic_record> batch;
  std::uint64_t tenant_seq = 0;
  for (std::uint64_t index = 0; index < kRecords; ++index) {
    batch.push_back(make_record(index, tenant_seq));
    if (batch.size() < 10'000) continue;
    ANIC_TRY(writer.append(batch));
    batch.clear();
  }
  ANIC_TRY(writer.seal());
  return made;
}

/// Leaf hashes alone, of as many records.
double hashed_per_s() {
  anic_record record{};
  const std::uint64_t begun = monotonic_ns();
  for (std::uint64_t i = 0; i < kRecords; ++i) record.mac[0] ^= audit::leaf_hash(record)[0] + i;
  return static_cast<double>(kRecords * kSecond) / static_cast<double>(monotonic_ns() - begun);
}

}  // namespace

Result<Json> record_per_s(const Bench& bench) {
  const policy::Policy policy = ANIC_TRY(guarded_policy());
  const auto folder = ANIC_TRY(Folder::make());
  const Pairs pairs = ANIC_TRY(alternate(
      "record_per_s", [&](Pairs& noted) { return recorded_per_s(bench, policy, noted); },
      [&](Pairs&) { return written_per_s(*folder); }, kRepeats));
  const std::vector<double> ratios = ours_over_peers(pairs);
  return bench_row(
      {.id = "record_per_s",
       .unit = "/s",
       .peer = "the same bytes to a file",
       .note = "decisions of the guardian, made on one CPU as fast as the ring takes them, and kept by "
               "agentnic-audit record on the other: hashed, on the disk every 100 ms or quarter of the "
               "ring, signed; to the last one, and the log verified"},
      pairs.ours, ratios, spread(pairs.peers).median, 500'000, Bound::AtLeast, pairs.problem);
}

Result<Json> verify_per_s() {
  const MadeLog log = ANIC_TRY(make_log());
  const Pairs pairs = ANIC_TRY(alternate(
      "verify_per_s",
      [&](Pairs&) -> Result<double> {
        const std::uint64_t begun = monotonic_ns();
        const audit::Verification found = ANIC_TRY(audit::verify_log(log.path(), log.key, {}));
        if (found.verdict != audit::Verdict::Valid || found.records != kRecords)
          return fail(Exit::Failed, "the log is not valid");
        return static_cast<double>(kRecords * kSecond) / static_cast<double>(monotonic_ns() - begun);
      },
      [](Pairs&) -> Result<double> { return hashed_per_s(); }, kRepeats));
  const std::vector<double> ratios = ours_over_peers(pairs);
  return bench_row(
      {.id = "verify_per_s",
       .unit = "/s",
       .peer = "leaf hashes alone",
       .note = fmt::format("public verification of a log of {} records on one core: numbers, leaf hashes, "
                           "tree, checkpoint; the log is in the page cache",
                           kRecords)},
      pairs.ours, ratios, spread(pairs.peers).median, 1'000'000, Bound::AtLeast, pairs.problem);
}

Result<Json> export_s() {
  const MadeLog log = ANIC_TRY(make_log());
  const std::string path = log.folder->part("export");
  const Pairs pairs = ANIC_TRY(alternate(
      "export_s",
      [&](Pairs&) -> Result<double> {
        const std::uint64_t begun = monotonic_ns();
        std::string text;
        const auto made =
            ANIC_TRY(audit::make_export(log.path(), log.key, "acme", [&](std::string_view line) -> Status {
              text += line;
              return {};
            }));
        ANIC_TRY(write_file(path, text));
        if (made.records != kRecords / kOneOf)
          return fail(Exit::Failed, "an export does not have all records");
        return static_cast<double>(monotonic_ns() - begun) / kSecond;
      },
      [&](Pairs&) -> Result<double> {
        const std::uint64_t begun = monotonic_ns();
        ANIC_TRY(audit::verify_log(log.path(), log.key, {}));
        return static_cast<double>(monotonic_ns() - begun) / kSecond;
      },
      kRepeats));
  const std::vector<double> ratios = peers_over_ours(pairs);
  return bench_row({.id = "export_s",
                    .unit = "s",
                    .peer = "verifying the whole log",
                    .note = fmt::format("{} records of one tenant out of {}, with their proofs, to a file",
                                        kRecords / kOneOf, kRecords)},
                   pairs.ours, ratios, spread(pairs.peers).median, 1, Bound::AtMost, pairs.problem);
}

}  // namespace agentnic::lab
