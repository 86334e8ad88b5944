// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Records as a kernel writes them, from a key, and a folder for a log of them.

#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "audit/chain.hpp"
#include "audit/chain_key.hpp"
#include "audit/log_writer.hpp"
#include "audit/note.hpp"
#include "base/file.hpp"

namespace agentnic {

inline constexpr const char* kOrigin = "audit.example.net/host7/eth1";

/// Chains of records, one after the other.
class LogMaker {
 public:
  explicit LogMaker(audit::ChainKey key) : key_(key) {}

  anic_record& add(anic_record_kind kind, std::uint8_t tenant = 0) {
    anic_record record{};
    record.kind = static_cast<__u8>(kind);
    record.tenant = tenant;
    record.count = 1;
    record.time_ns = 1'000'000 * (records_.size() + 1);
    return add(record);
  }
  /// Numbers it, and seals it.
  anic_record& add(anic_record record) {
    record.seq = chain_.seq + 1;
    if (record.tenant != 0) {
      auto& seq = seqs_[record.tenant];
      record.tenant_seq = seq != 0 || record.kind == ANIC_RECORD_COMMIT ? seq + 1 : 0;
      seq = record.kind == ANIC_RECORD_DETACH ? 0 : record.tenant_seq;
    }
    const audit::Words mac = audit::mac_of(chain_, record);
    record.mac[0] = mac.low;
    record.mac[1] = mac.high;
    audit::advance(chain_, mac);
    records_.push_back(record);
    return records_.back();
  }
  void attach() {
    chain_ = {.key = key_.first(), .seq = 0, .mac = {}};
    seqs_.clear();
    anic_record record{};
    record.kind = ANIC_RECORD_ATTACH;
    record.observed = key_.number;
    record.requested = 1'700'000'000'000'000'000;
    record.count = 1;
    add(record);
    add(ANIC_RECORD_COMMIT);
    key_ = key_.next();
  }
  void begin_tenant(std::uint8_t tenant, const std::string& name) {
    anic_record record{};
    record.kind = ANIC_RECORD_COMMIT;
    record.tenant = tenant;
    record.count = 1;
    std::memcpy(record.reason, name.data(), name.size());
    add(record);
  }
  void decide(std::uint8_t tenant) {
    anic_record record{};
    record.kind = ANIC_RECORD_DECISION;
    record.decided = ANIC_DECIDED_APPROVE;
    record.proposed = 1;
    record.cls = 1;
    record.tenant = tenant;
    record.count = 1;
    record.time_ns = 1'000'000 * (records_.size() + 1);
    record.requested = record.approved = 100 + records_.size();
    add(record);
  }
  void fill(std::size_t until) {
    while (records_.size() < until) decide(records_.size() % 3 == 0 ? 2 : 1);
  }

  [[nodiscard]] const std::vector<anic_record>& records() const { return records_; }
  [[nodiscard]] audit::Chain& chain() { return chain_; }

 private:
  audit::ChainKey key_;
  audit::Chain chain_;
  std::map<std::uint8_t, std::uint64_t> seqs_;
  std::vector<anic_record> records_;
};

/// A folder that goes with it.
class TempFolder {
 public:
  TempFolder() {
    std::string name = std::filesystem::temp_directory_path() / "agentnic-log-XXXXXX";
    path_ = ::mkdtemp(name.data());
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string part(const char* name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline std::string content(const std::string& path) { return read_file(path, std::size_t{1} << 30U).value(); }
inline void overwrite(const std::string& path, const std::string& text) {
  std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  write_file(path, text).value();
}

}  // namespace agentnic
