// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What every log of records keeps to, whatever they say: numbers without a hole, in each chain and of each
/// tenant. Pure.

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "abi/audit.h"

namespace agentnic::audit {

/// Why a record cannot follow on those before.
struct Break {
  enum class Kind {
    Malformed,  ///< no guardian writes such a record
    Missing,    ///< its number is too high
    Repeated,   ///< its number is too low
  };
  Kind kind = Kind::Malformed;
  std::uint64_t expected = 0;  ///< number in the chain
  std::string what;
};

class Sequence final {
 public:
  /// Takes the next record, or says why it is not the next one, and stays.
  std::optional<Break> add(const anic_record& record);

  [[nodiscard]] std::uint64_t size() const { return size_; }      ///< records, of all chains
  [[nodiscard]] std::uint64_t chains() const { return chains_; }  ///< begun
  [[nodiscard]] std::uint64_t first() const { return first_; }  ///< index of the present chain's first record
  [[nodiscard]] std::uint64_t seq() const { return seq_; }      ///< of the last record
  /// Whether the present chain has its last record; none has, before the first.
  [[nodiscard]] bool ended() const { return ended_; }

 private:
  std::uint64_t size_ = 0;
  std::uint64_t chains_ = 0;
  std::uint64_t first_ = 0;
  std::uint64_t seq_ = 0;
  bool ended_ = true;
  std::array<std::uint64_t, ANIC_TENANT_SEQS> tenant_seq_{};  ///< 0: it has no tenancy
};

/// Whether a record begins or ends a chain, or a tenant's part of one.
[[nodiscard]] inline bool begins_chain(const anic_record& record) {
  return record.kind == ANIC_RECORD_ATTACH;
}
[[nodiscard]] inline bool ends_chain(const anic_record& record) {
  return record.kind == ANIC_RECORD_DETACH && record.tenant == 0;
}
[[nodiscard]] inline bool begins_tenancy(const anic_record& record) {
  return record.kind == ANIC_RECORD_COMMIT && record.tenant != 0;
}
[[nodiscard]] inline bool ends_tenancy(const anic_record& record) {
  return record.kind == ANIC_RECORD_DETACH && record.tenant != 0;
}

}  // namespace agentnic::audit
