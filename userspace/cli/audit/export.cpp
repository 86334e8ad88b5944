// SPDX-License-Identifier: Apache-2.0
#include "cli/audit/export.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <iostream>
#include <span>
#include <utility>

#include "audit/export.hpp"
#include "audit/log.hpp"
#include "audit/note.hpp"
#include "base/file.hpp"
#include "base/unique_fd.hpp"
#include "cli/audit/reading.hpp"
#include "cli/common/program.hpp"
#include "kern/guardian.hpp"

namespace agentnic::cli {
namespace {

constexpr std::size_t kKeyMost = 4096;
constexpr std::size_t kBuffer = std::size_t{1} << 20U;

/// The folder's group may read what is put there, and nobody else: it is the tenant's.
Result<UniqueFd> open_folder(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  struct stat info{};
  if (!fd || ::fstat(fd.get(), &info) != 0)
    return fail(Exit::BadInput, fmt::format("export to {}: it is no folder that can be opened", path),
                fmt::format("install -d -m 0750 -g GROUP-OF-THE-TENANT {}", path));
  if ((info.st_mode & (S_IWGRP | S_IRWXO)) != 0)
    return fail(
        Exit::BadInput,
        fmt::format("export to {}: others than its owner may write to it, or than its group read it", path),
        "chmod 0750 " + path);
  return fd;
}

/// A file that is there as a whole, or not at all.
class Draft {
 public:
  static Result<Draft> open(const std::string& folder, int folder_fd, const std::string& name) {
    Draft draft;
    draft.path_ = fmt::format("{}/.{}.{}", folder, name, ::getpid());
    draft.final_ = fmt::format("{}/{}", folder, name);
    draft.fd_ =
        UniqueFd(::open(draft.path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0400));
    struct stat info{};
    if (!draft.fd_ || ::fstat(folder_fd, &info) != 0) return fail_errno(errno, "write " + draft.path_);
    if (::fchown(draft.fd_.get(), static_cast<uid_t>(-1), info.st_gid) != 0 ||
        ::fchmod(draft.fd_.get(), 0440) != 0)
      return fail_errno(errno, fmt::format("give {} to the group of its folder", draft.path_),
                        "run it as the folder's owner, in that group, or as root");
    return draft;
  }
  Draft(Draft&& other) noexcept
      : path_(std::exchange(other.path_, {})), final_(std::move(other.final_)), fd_(std::move(other.fd_)) {}
  Draft& operator=(Draft&&) = delete;
  Draft(const Draft&) = delete;
  Draft& operator=(const Draft&) = delete;
  ~Draft() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }

  Status add(std::string_view text) {
    buffer_ += text;
    return buffer_.size() < kBuffer ? Status() : flush();
  }
  Status finish() {
    ANIC_TRY(flush());
    if (::fsync(fd_.get()) != 0 || std::rename(path_.c_str(), final_.c_str()) != 0)
      return fail_errno(errno, "write " + final_);
    path_.clear();
    return {};
  }
  [[nodiscard]] const std::string& path() const { return final_; }

 private:
  Draft() = default;
  Status flush() {
    const int code = write_at(fd_.get(), std::as_bytes(std::span(buffer_)), written_);
    if (code != 0) return fail_errno(code, "write " + path_);
    written_ += buffer_.size();
    buffer_.clear();
    return {};
  }

  std::string path_;
  std::string final_;
  UniqueFd fd_;
  std::string buffer_;
  std::uint64_t written_ = 0;
};

}  // namespace

Result<int> export_records(const ExportOptions& options) {
  ANIC_TRY(audit::check_log(options.log));
  ANIC_TRY(kern::check_reason(options.reason));
  const std::string key_text = ANIC_TRY(read_file(audit::part_path(options.log, audit::kKeyPart), kKeyMost));
  const audit::VerifierKey key = ANIC_TRY(audit::parse_verifier_key(key_text));
  const UniqueFd folder = ANIC_TRY(open_folder(options.out));
  bool recorded = false;
  if (audit::is_recorded(options.log)) {
    const std::uint32_t tenant = ANIC_TRY(audit::find_tenant(options.log, options.tenant));
    recorded = ANIC_TRY(record_reading(options.log, ANIC_RECORD_EXPORT, tenant, options.reason));
  }
  if (!recorded)
    std::cerr << "agentnic-audit: no recorder is at work; of this export there is no record, and nothing "
                 "proves that it is complete\n";
  Draft draft = ANIC_TRY(Draft::open(options.out, folder.get(), fmt::format("{}.export", options.tenant)));
  const auto made = ANIC_TRY(audit::make_export(options.log, key, options.tenant,
                                                [&](std::string_view line) { return draft.add(line); }));
  ANIC_TRY(draft.finish());
  if (options.json) {
    print_json({{"schema", "agentnic.exported/1"},
                {"log", options.log},
                {"tenant", options.tenant},
                {"file", draft.path()},
                {"records", made.records},
                {"log_records", made.size},
                {"recorded", recorded}});
  } else {
    std::cout << fmt::format(
        "{}: {} records of tenant {}, with proofs that they are in the log of {} records\n", draft.path(),
        made.records, options.tenant, made.size);
  }
  return 0;
}

}  // namespace agentnic::cli
