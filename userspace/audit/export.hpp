// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A tenant's own records, with proofs that they are in the log, and that none of them is left out.
/// docs/audit.md has the format (agentnic.export/1).

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "audit/note.hpp"
#include "base/result.hpp"

namespace agentnic::audit {

/// What make_export() found.
struct ExportMade {
  std::uint64_t records = 0;
  std::uint64_t size = 0;  ///< of the log, by the checkpoint
};

/// Calls `write` with each line, its end included, up to the last checkpoint. Fails where the log has no such
/// tenant, is not what the checkpoint says, or does not know for sure whose records are whose.
Result<ExportMade> make_export(const std::string& dir, const VerifierKey& key, const std::string& tenant,
                               const std::function<Status(std::string_view)>& write);

/// The tenant's id now: bad input when it has none, or has ended.
Result<std::uint32_t> find_tenant(const std::string& dir, const std::string& tenant);

/// From its beginning on: the time for which a name had an id.
struct Tenancy {
  std::uint64_t first = 0;  ///< index in the log
  std::uint64_t records = 0;
  bool complete = false;  ///< nothing of it can have been left out
};

struct ExportCheck {
  std::string tenant;
  std::uint64_t size = 0;  ///< of the log
  std::uint64_t records = 0;
  std::vector<Tenancy> tenancies;
  std::uint64_t exported_at_ns = 0;  ///< wall clock, of the record of this export; 0: it has none

  [[nodiscard]] bool complete() const;
};

/// Checks an export line by line, with the public key alone.
class ExportChecker final {
 public:
  explicit ExportChecker(VerifierKey key) : key_(std::move(key)) {}
  /// The next line, without its end. What fails is bad input for what cannot be read, and failed for what was
  /// read and is not true; both name the line.
  Status add(std::string_view line);
  /// After the last line.
  Result<ExportCheck> finish();

 private:
  Status read_head(std::string_view line);
  Status read_record(std::string_view line);

  VerifierKey key_;
  ExportCheck check_;
  Checkpoint checkpoint_;
  std::uint64_t lines_ = 0;
  std::uint64_t next_index_ = 0;
  std::uint64_t tenant_seq_ = 0;  ///< of the last record; 0: no tenancy is open
  std::uint8_t tenant_ = 0;       ///< id
};

}  // namespace agentnic::audit
