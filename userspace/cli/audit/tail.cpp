// SPDX-License-Identifier: Apache-2.0
#include "cli/audit/tail.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <iostream>
#include <optional>
#include <span>
#include <thread>

#include "audit/log.hpp"
#include "audit/names.hpp"
#include "audit/sentence.hpp"
#include "audit/sequence.hpp"
#include "base/clock.hpp"
#include "base/stop.hpp"
#include "cli/audit/reading.hpp"
#include "cli/common/names.hpp"
#include "kern/audit_ring.hpp"
#include "kern/guardian.hpp"
#include "kern/instance.hpp"
#include "kern/maps.hpp"

namespace agentnic::cli {
namespace {

constexpr auto kPoll = std::chrono::milliseconds(50);
constexpr std::uint64_t kAtATime = 4096;

/// One record, for those who want to see it.
void print(const anic_record& record, const audit::Names& names, const audit::Filter& filter,
           const Json& head, bool json) {
  if (!filter.lets(record, names)) return;
  if (json) {
    Json line = head;
    line["record"] = audit::record_json(record, names);
    std::cout << line.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n';
  } else {
    std::cout << audit::sentence(record, names) << '\n';
  }
}

/// All of them, or an error: what could not be written must not be taken.
Status flush() {
  if (!std::cout.flush()) return fail(Exit::Failed, "write records to standard output: it takes no more");
  return {};
}

/// The id of the filter's tenant, for the record of this read; 0: of all.
std::uint32_t tenant_id(const audit::NameBook& book, const std::string& name) {
  for (const auto& [id, tenant] : book.tenants) {
    if (tenant == name) return id;
  }
  return 0;
}

Result<int> tail_ring(const TailOptions& options, const audit::Filter& filter) {
  ANIC_TRY(kern::need_privileges("tail"));
  const kern::NetNs netns = ANIC_TRY(kern::NetNs::open_or_current(options.netns));
  const auto status = ANIC_TRY(kern::need_attached(netns, options.ifname, "read the audit of"));
  std::optional<UniqueFd> claim;
  if (options.take) claim = ANIC_TRY(kern::claim_ring(status.dir));
  const kern::Maps maps = ANIC_TRY(kern::Maps::pinned(status.dir));
  const kern::AuditRing ring = ANIC_TRY(kern::AuditRing::open(maps, options.take));
  const UniqueFd note = ANIC_TRY(kern::open_note_program(status.dir));
  const std::uint32_t tenant = tenant_id(ANIC_TRY(read_name_book(maps)), filter.tenant);
  if (Status noted = kern::note_read(note.get(), ANIC_RECORD_READ, tenant, ::getuid(), "tail"); !noted)
    // Who is to make room must see what is there.
    std::cerr << "agentnic-audit: of this read there is no record: " << noted.error().text() << '\n';
  const Json head = {
      {"schema", "agentnic.record/1"}, {"interface", options.ifname}, {"netns", options.netns}};
  for (std::optional<std::uint64_t> position;;) {
    const kern::RecordsRead read = ANIC_TRY(ring.peek(position));
    position = read.position;
    if (!read.records.empty()) {
      // Names of now: a policy may have come in force.
      const audit::Names names = ANIC_TRY(read_audit_names(maps));
      for (const anic_record& record : read.records) print(record, names, filter, head, options.json);
      ANIC_TRY(flush());
    }
    if (options.take) ring.take(read.position);
    if (!options.follow || stop_requested()) return 0;
    std::this_thread::sleep_for(kPoll);
  }
}

/// A log from its beginning on, with the names and clocks that stand in it.
class LogTail {
 public:
  LogTail(const TailOptions& options, const audit::Filter& filter)
      : options_(options), filter_(filter), head_({{"schema", "agentnic.record/1"}, {"log", options.log}}) {}

  /// Prints what is there by now.
  Status go_on() {
    for (;;) {
      const auto records = ANIC_TRY(audit::read_records(options_.log, index_, kAtATime));
      if (records.empty()) return flush();
      const auto books = ANIC_TRY(audit::read_name_books(options_.log));
      for (const anic_record& record : records) {
        const bool has_clock = record.kind == ANIC_RECORD_ATTACH || record.kind == ANIC_RECORD_COMMIT ||
                               record.kind == ANIC_RECORD_DETACH;
        const auto ahead = static_cast<std::int64_t>(record.requested - record.time_ns);
        const audit::NameBook& book = audit::book_of(books, index_);
        if (&book != book_ || (has_clock && ahead != ahead_)) {
          if (has_clock) ahead_ = ahead;
          book_ = &book;
          names_ = audit::names_of(book, ahead_);
        }
        head_["index"] = index_++;
        print(record, names_, filter_, head_, options_.json);
      }
      book_ = nullptr;
    }
  }

 private:
  const TailOptions& options_;
  const audit::Filter& filter_;
  Json head_;
  audit::Names names_;
  const audit::NameBook* book_ = nullptr;
  std::int64_t ahead_ = 0;  ///< ns of the wall clock before CLOCK_MONOTONIC
  std::uint64_t index_ = 0;
};

Result<int> tail_log(const TailOptions& options, const audit::Filter& filter) {
  ANIC_TRY(audit::check_log(options.log));
  const auto books = ANIC_TRY(audit::read_name_books(options.log));
  const std::uint32_t tenant =
      filter.tenant.empty() || books.empty() ? 0 : tenant_id(books.back(), filter.tenant);
  if (!ANIC_TRY(record_reading(options.log, ANIC_RECORD_READ, tenant, "tail")))
    std::cerr << "agentnic-audit: no recorder is at work; of this read there is no record\n";
  LogTail tail(options, filter);
  for (;;) {
    ANIC_TRY(tail.go_on());
    if (!options.follow || stop_requested()) return 0;
    std::this_thread::sleep_for(kPoll);
  }
}

}  // namespace

Result<int> tail(const TailOptions& options) {
  if (options.ifname.empty() == options.log.empty())
    return fail(Exit::BadInput, "tail: which records? Those in an interface's ring, or those of a log",
                "agentnic-audit tail IFACE, or --log DIR");
  if (options.take && options.ifname.empty())
    return fail(Exit::BadInput, "tail: --take is for the ring of an interface");
  const audit::Filter filter = ANIC_TRY(audit::parse_filter(options.filter, wall_ns()));
  if (options.take && !options.filter.nothing())
    return fail(Exit::BadInput,
                "tail: --take takes all records out of the ring, and a filter would not print all");
  if (options.follow) catch_stop_signals();
  return options.log.empty() ? tail_ring(options, filter) : tail_log(options, filter);
}

}  // namespace agentnic::cli
