// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The reference model of the audit's ring: which record gets which number, which waits, and which is lost,
/// as abi/audit.h says it. MACs are not its business.

#include <cstddef>
#include <deque>
#include <vector>

#include "abi/audit.h"

namespace agentnic::model {

class AuditRing final {
 public:
  /// Whether so many records of what is requested may enter.
  [[nodiscard]] bool may_add(std::size_t records) const;

  /// The record becomes the next of the chain and gets its numbers. False: there is no room.
  bool add(anic_record& record);

  /// Of protection or of an operator: if it cannot enter now it waits, and if it cannot wait it is lost.
  void keep(const anic_record& record);

  void lose(const anic_record& record);

  /// What waits enters; then what was lost is said, in this record.
  void flush(anic_record lost);

  /// Nothing follows.
  void end() { chain_.ended = 1; }

  /// What a reader takes: so many at most.
  std::vector<anic_record> take(std::size_t most);

  /// As the map has it; without MAC and key.
  [[nodiscard]] const anic_chain& chain() const { return chain_; }

 private:
  [[nodiscard]] std::size_t free_bytes() const;

  anic_chain chain_{};
  std::deque<anic_record> unread_;
  std::deque<anic_record> waiting_;
};

}  // namespace agentnic::model
