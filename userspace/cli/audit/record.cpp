// SPDX-License-Identifier: Apache-2.0
#include "cli/audit/record.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <iostream>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "audit/log_writer.hpp"
#include "audit/names.hpp"
#include "audit/sequence.hpp"
#include "base/clock.hpp"
#include "base/file.hpp"
#include "base/json.hpp"
#include "base/stop.hpp"
#include "base/user.hpp"
#include "cli/audit/reading.hpp"
#include "cli/audit/sink.hpp"
#include "cli/common/names.hpp"
#include "kern/audit_ring.hpp"
#include "kern/guardian.hpp"
#include "kern/instance.hpp"
#include "kern/maps.hpp"

namespace agentnic::cli {
namespace {

constexpr std::size_t kKeyMost = 4096;
constexpr std::size_t kBusyRecords = 256;  // fewer at a time: there is time to sleep
constexpr std::uint64_t kMs = 1'000'000;   // ns
constexpr int kBusySleepMs = 1;
constexpr int kIdleSleepMs = 20;  // the ring takes 260,000 requests a second for so long
constexpr int kTroubleSleepMs = 500;
constexpr std::uint64_t kReadsApartNs = 20 * kMs;
constexpr int kLastSinkMs = 10'000;

void say(const std::string& text) { std::cerr << "agentnic-audit: " << text << std::endl; }

/// What is opened with privileges, and kept without.
struct Opened {
  kern::Maps names;  ///< read-only
  kern::AuditRing ring;
  UniqueFd note;      ///< the program that records reads
  UniqueFd claim;     ///< one recorder for a ring
  std::string chain;  ///< boot and ring, which no other chain has
};

Result<std::string> chain_text(const kern::Maps& maps) {
  const std::string boot = ANIC_TRY(read_file("/proc/sys/kernel/random/boot_id", 64));
  return fmt::format("{} {}", boot.substr(0, boot.find('\n')), kern::map_id(maps.fd("anic_audit")));
}

Result<Opened> open_instance(const kern::NetNs& netns, const std::string& ifname) {
  const auto status = ANIC_TRY(kern::need_attached(netns, ifname, "record the audit of"));
  UniqueFd claim = ANIC_TRY(kern::claim_ring(status.dir));
  const kern::Maps maps = ANIC_TRY(kern::Maps::pinned(status.dir));
  return Opened{.names = ANIC_TRY(kern::Maps::pinned_to_read(status.dir, kNameMaps)),
                .ring = ANIC_TRY(kern::AuditRing::open(maps, true)),
                .note = ANIC_TRY(kern::open_note_program(status.dir)),
                .claim = std::move(claim),
                .chain = ANIC_TRY(chain_text(maps))};
}

/// With --wait: as soon as there is something to record.
Result<Opened> wait_for_instance(const RecordOptions& options) {
  for (bool told = false;;) {
    auto netns = kern::NetNs::open_or_current(options.netns);
    auto opened =
        netns ? open_instance(*netns, options.ifname) : Result<Opened>(fail(std::move(netns.error())));
    if (opened || !options.wait || opened.error().exit == Exit::Unsupported) return opened;
    if (stop_requested()) return fail(Exit::Failed, "stopped before there was something to record");
    if (!std::exchange(told, true)) say("waiting: " + opened.error().what);
    std::this_thread::sleep_for(std::chrono::milliseconds(kTroubleSleepMs));
  }
}

/// Makes the folder for the user, or finds it so.
Status prepare_folder(const std::string& dir, const User& user) {
  if (::mkdir(dir.c_str(), 0750) == 0) {
    if (::chown(dir.c_str(), user.uid, user.gid) != 0)
      return fail_errno(errno, "give away the folder " + dir);
    return {};
  }
  if (errno != EEXIST) return fail_errno(errno, "make the folder " + dir);
  struct stat info{};
  if (::lstat(dir.c_str(), &info) != 0) return fail_errno(errno, "look at the folder " + dir);
  if (!S_ISDIR(info.st_mode)) return fail(Exit::BadInput, fmt::format("record to {}: it is no folder", dir));
  if (info.st_uid != user.uid || (info.st_mode & (S_IWGRP | S_IRWXO)) != 0) {
    return fail(
        Exit::BadInput,
        fmt::format("record to {}: it is user {}'s with mode {:04o}, and has to be user {}'s alone to write",
                    dir, info.st_uid, info.st_mode & 07777, user.uid),
        fmt::format("chown {} {}; chmod 0750 {}", user.uid, dir, dir));
  }
  return {};
}

class Recorder {
 public:
  static Result<Recorder> open(const RecordOptions& options, Opened opened, audit::SigningKey key) {
    const std::string public_key = audit::verifier_key_text(key.verifier());
    audit::LogWriter log = ANIC_TRY(audit::LogWriter::open(options.log, std::move(key)));
    Recorder recorder(options, std::move(opened), std::move(log));
    ANIC_TRY(keep_file(audit::part_path(options.log, audit::kKeyPart), public_key, 0440));
    ANIC_TRY(recorder.find_place());
    ANIC_TRY(recorder.listen());
    return recorder;
  }

  Result<int> run() {
    tell_begin();
    while (!stop_requested() && !ended_) {
      const std::size_t got = ANIC_TRY(step());
      const int sleep_ms = trouble_                ? kTroubleSleepMs
                           : got >= kBusyRecords   ? 0
                           : got > 0 || unsynced() ? kBusySleepMs
                                                   : kIdleSleepMs;
      ANIC_TRY(serve(sleep_ms));
    }
    while (!ended_ && ANIC_TRY(step()) > 0) {  // what came while the signal did
    }
    ANIC_TRY(make_durable());
    ANIC_TRY(seal());
    for (const auto& sink : sinks_) warn(sink->finish(kLastSinkMs));
    tell_end();
    return trouble_ ? 1 : 0;
  }

 private:
  Recorder(const RecordOptions& options, Opened opened, audit::LogWriter log)
      : options_(options), opened_(std::move(opened)), log_(std::move(log)) {
    if (!options.checkpoint_file.empty())
      sinks_.push_back(std::make_unique<FileSink>(options.checkpoint_file));
    if (!options.checkpoint_command.empty())
      sinks_.push_back(std::make_unique<CommandSink>(options.checkpoint_command));
    position_ = synced_ = opened_.ring.taken();
    sealed_ns_ = monotonic_ns();
  }

  [[nodiscard]] bool unsynced() const { return position_ != synced_; }

  /// Where the log stands in the chain that the ring is of.
  Status find_place() {
    for (const std::string& note : log_.notes()) say(options_.log + ": " + note);
    const std::string path = audit::part_path(options_.log, audit::kChainPart);
    const std::string known = read_file(path, kKeyMost).value_or("");
    if (known.substr(0, known.find('\n')) == opened_.chain && log_.size() != 0) {
      const auto last = ANIC_TRY(audit::read_records(options_.log, log_.size() - 1, 1));
      if (last.empty()) return fail(Exit::Failed, "read the last record of " + options_.log);
      seq_ = last.front().seq;
      return {};
    }
    ANIC_TRY(keep_file(path, opened_.chain + "\n", 0640));
    return {};
  }

  /// Takes what is new into the log; how many records. What the disk refuses stays in the ring.
  Result<std::size_t> step() {
    const kern::RecordsRead read = ANIC_TRY(opened_.ring.peek(position_));
    if (!read.records.empty()) {
      ANIC_TRY(skip_repeats(read.records));
      const auto fresh =
          std::ranges::find_if(read.records, [&](const auto& record) { return record.seq > seq_; });
      if (!ANIC_TRY(add({fresh, read.records.end()}))) return std::size_t{0};
    }
    position_ = read.position;
    const std::uint64_t now = monotonic_ns();
    if (unsynced() && (now - synced_ns_ >= options_.sync_ms * kMs ||
                       opened_.ring.unread_bytes() >= opened_.ring.size_bytes() / 4))
      ANIC_TRY(make_durable());
    if (log_.size() - log_.sealed() >= options_.checkpoint_records ||
        (log_.size() != log_.sealed() && now - sealed_ns_ >= options_.checkpoint_seconds * 1000 * kMs))
      ANIC_TRY(seal());
    for (const auto& sink : sinks_) warn(sink->poll());
    return read.records.size();
  }

  /// What is in the log already must be what is in the ring: else one of both was changed.
  Status skip_repeats(const std::vector<anic_record>& records) const {
    const auto fresh = std::ranges::find_if(records, [&](const auto& record) { return record.seq > seq_; });
    const auto repeats = static_cast<std::uint64_t>(fresh - records.begin());
    if (repeats == 0) return {};
    std::uint64_t index = log_.size() - (seq_ - records.front().seq + 1);
    for (std::uint64_t i = 0; i < repeats;) {
      const auto there = ANIC_TRY(audit::read_records(options_.log, index + i, repeats - i));
      if (there.empty() || std::memcmp(there.data(), &records[i], there.size() * sizeof(anic_record)) != 0)
        return fail(Exit::Failed,
                    fmt::format("record to {}: record {} of the log is not what the kernel wrote",
                                options_.log, index + i),
                    "agentnic-audit verify " + options_.log);
      i += there.size();
    }
    return {};
  }

  /// False: the disk does not take them now.
  Result<bool> add(std::span<const anic_record> fresh) {
    if (fresh.empty()) return true;
    if (fresh.front().seq != seq_ + 1)
      say(fmt::format("records {} to {} are not in the ring: somebody else took them, and the log has a gap",
                      seq_ + 1, fresh.front().seq - 1));
    if (std::ranges::any_of(fresh, [](const auto& record) { return record.kind == ANIC_RECORD_COMMIT; }) ||
        log_.size() == 0)
      warn(write_names());
    const std::uint64_t before = log_.size();
    const Status appended = log_.append(fresh);
    const std::uint64_t done = log_.size() - before;
    if (done != 0) {
      seq_ = fresh[done - 1].seq;
      if (!unsynced()) synced_ns_ = monotonic_ns();
      ended_ = audit::ends_chain(fresh[done - 1]);
    }
    if (!appended) return troubled(appended.error());
    trouble_ = false;
    return true;
  }

  Result<bool> troubled(const Error& error) {
    if (!std::exchange(trouble_, true))
      say(error.text() + "; records stay in the kernel's ring until this is mended");
    return false;
  }

  /// Only then the kernel may write over them.
  Status make_durable() {
    if (!unsynced()) return {};
    ANIC_TRY(log_.sync());
    opened_.ring.take(position_);
    synced_ = position_;
    synced_ns_ = monotonic_ns();
    return {};
  }

  Status seal() {
    sealed_ns_ = monotonic_ns();
    auto note = log_.seal();
    if (!note) {
      static_cast<void>(troubled(note.error()));
      return {};
    }
    if (!*note) return {};
    for (const auto& sink : sinks_) warn(sink->offer(**note));
    return {};
  }

  static void warn(const Status& status) {
    if (!status) say(status.error().text());
  }

  /// What ids are called from the next record on.
  Status write_names() {
    audit::NameBook book = ANIC_TRY(read_name_book(opened_.names));
    book.first = log_.size();
    if (book_ && book_->same_names(book)) return {};
    const std::string path = audit::part_path(options_.log, audit::kNamesPart);
    const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640));
    const std::string line = audit::name_book_line(book);
    if (!fd || ::write(fd.get(), line.data(), line.size()) != static_cast<ssize_t>(line.size()))
      return fail_errno(errno, "write " + path);
    book_ = std::move(book);
    return {};
  }

  // --- readers ---

  Status listen() {
    folder_ = UniqueFd(::open(options_.log.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    socket_ = UniqueFd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!folder_ || !socket_) return fail_errno(errno, "listen in " + options_.log);
    const std::string path = socket_path(folder_.get());
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), std::min(path.size(), sizeof(address.sun_path) - 1));
    ::unlink(path.c_str());
    if (::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
        ::chmod(path.c_str(), 0660) != 0 || ::listen(socket_.get(), 8) != 0)
      return fail_errno(errno, "listen at " + audit::part_path(options_.log, audit::kSocketPart));
    return {};
  }

  /// Waits, and answers one reader.
  Status serve(int sleep_ms) {
    if (sleep_ms == 0) return {};
    pollfd listening{.fd = socket_.get(), .events = POLLIN, .revents = 0};
    if (monotonic_ns() - served_ns_ < kReadsApartNs) listening.fd = -1;
    if (::poll(&listening, 1, sleep_ms) <= 0 || (listening.revents & POLLIN) == 0) return {};
    served_ns_ = monotonic_ns();
    const UniqueFd reader(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!reader) return {};
    ReadRequest request;
    ucred who{};
    socklen_t length = sizeof(who);
    pollfd asked{.fd = reader.get(), .events = POLLIN, .revents = 0};
    if (::getsockopt(reader.get(), SOL_SOCKET, SO_PEERCRED, &who, &length) != 0 ||
        ::poll(&asked, 1, 100) <= 0 ||
        ::recv(reader.get(), &request, sizeof(request), MSG_DONTWAIT | MSG_TRUNC) != sizeof(request))
      return {};
    const ReadAnswer answer = ANIC_TRY(note_reader(request, who.uid));
    static_cast<void>(::send(reader.get(), &answer, sizeof(answer), MSG_DONTWAIT | MSG_NOSIGNAL));
    return {};
  }

  Result<ReadAnswer> note_reader(const ReadRequest& request, uid_t uid) {
    ReadAnswer answer;
    const auto kind = static_cast<anic_record_kind>(request.kind);
    const std::string reason(request.reason, ::strnlen(request.reason, sizeof(request.reason)));
    Status noted = fail(Exit::BadInput, "this recorder does not understand the request");
    if (request.version == 1 && request.pad == 0)
      noted = kern::note_read(opened_.note.get(), kind, request.tenant, uid, reason);
    if (!noted) {
      const std::string why_not = noted.error().text();
      std::memcpy(answer.why_not, why_not.data(), std::min(why_not.size(), sizeof(answer.why_not) - 1));
    } else if (kind == ANIC_RECORD_EXPORT) {
      ANIC_TRY(step());
      ANIC_TRY(make_durable());
      ANIC_TRY(seal());
    }
    answer.sealed = log_.sealed();
    return answer;
  }

  // --- words ---

  void tell_begin() const {
    if (options_.json) {
      const Json line = {{"schema", "agentnic.recorder/1"},
                         {"event", "begin"},
                         {"interface", options_.ifname},
                         {"log", options_.log},
                         {"records", log_.size()},
                         {"sealed_records", log_.sealed()},
                         {"next_seq", seq_ + 1}};
      std::cout << line.dump() << std::endl;
      return;
    }
    std::cout << fmt::format(
                     "recording {} to {}: {} records, {} of them sealed; the next is #{} of its chain",
                     options_.ifname, options_.log, log_.size(), log_.sealed(), seq_ + 1)
              << std::endl;
  }

  void tell_end() const {
    if (options_.json) {
      const Json line = {{"schema", "agentnic.recorder/1"},
                         {"event", "end"},
                         {"interface", options_.ifname},
                         {"log", options_.log},
                         {"records", log_.size()},
                         {"sealed_records", log_.sealed()},
                         {"detached", ended_}};
      std::cout << line.dump() << std::endl;
      return;
    }
    std::cout << fmt::format("{}: {} records, {} of them sealed", ended_ ? "detached" : "stopped",
                             log_.size(), log_.sealed())
              << std::endl;
  }

  const RecordOptions& options_;
  Opened opened_;
  audit::LogWriter log_;
  std::vector<std::unique_ptr<CheckpointSink>> sinks_;
  std::optional<audit::NameBook> book_;
  UniqueFd folder_;
  UniqueFd socket_;
  std::uint64_t seq_ = 0;       ///< of the last record, in its chain
  std::uint64_t position_ = 0;  ///< in the ring: what is before it is in the log
  std::uint64_t synced_ = 0;    ///< ... on the disk, and taken
  std::uint64_t synced_ns_ = 0;
  std::uint64_t sealed_ns_ = 0;
  std::uint64_t served_ns_ = 0;
  bool trouble_ = false;
  bool ended_ = false;
};

}  // namespace

Result<int> record(const RecordOptions& options) {
  ANIC_TRY(kern::need_privileges("record"));
  User user = ANIC_TRY(find_user(options.user, "--user"));
  if (!options.group.empty()) user.gid = ANIC_TRY(find_group(options.group));
  audit::SigningKey key =
      ANIC_TRY(audit::SigningKey::parse(ANIC_TRY(read_secret_file(options.key, kKeyMost))));
  catch_stop_signals();
  Opened opened = ANIC_TRY(wait_for_instance(options));
  ::umask(0027);
  ANIC_TRY(prepare_folder(options.log, user));
  ANIC_TRY(become_user(user));
  Recorder recorder = ANIC_TRY(Recorder::open(options, std::move(opened), std::move(key)));
  return recorder.run();
}

}  // namespace agentnic::cli
