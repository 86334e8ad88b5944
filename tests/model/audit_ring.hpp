// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The reference model of the audit's ring: which record gets which number, which waits, and which is lost,
/// as abi/audit.h says it. MACs are not its business.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "abi/audit.h"

namespace agentnic::model {

class AuditRing final {
 public:
  /// Whether so many records of what is requested may enter.
  [[nodiscard]] bool may_add(std::size_t records) const;

  /// A record of now becomes the next of the chain and gets its numbers. False: there is no room.
  bool add(anic_record& record);

  /// Of protection or of an operator: if it cannot enter now it waits, and if it cannot wait it is lost
  /// (false).
  bool keep(anic_record record);

  /// Whether an id is a tenant's, whose records are numbered.
  [[nodiscard]] bool in_tenancy(std::uint32_t tenant) const;
  /// An id becomes a tenant's by the record of that, unless it is lost, or is nobody's after the record.
  void begin_tenancy(std::uint32_t tenant, const anic_record& record);
  void end_tenancy(std::uint32_t tenant, const anic_record& record);

  void lose(const anic_record& record);

  /// What waits enters; then what was lost is said, in this record.
  void flush(anic_record lost);

  /// Nothing follows on the last record.
  void end(const anic_record& lost, anic_record last);

  /// What a reader takes: so many at most.
  std::vector<anic_record> take(std::size_t most);

  /// As the map has it; without MAC and key.
  [[nodiscard]] const anic_chain& chain() const { return chain_; }

 private:
  /// A record, and the tenancy that it was written in; 0: none.
  struct Written {
    anic_record record;
    std::uint32_t tenancy = 0;
  };
  [[nodiscard]] Written written_now(const anic_record& record) const;
  bool enter(Written& written);
  void say_lost(anic_record lost);
  /// For one that is not one of the last two.
  [[nodiscard]] bool has_room_before_end() const;
  [[nodiscard]] std::size_t free_bytes() const;

  anic_chain chain_{};
  std::deque<anic_record> unread_;
  std::deque<Written> waiting_;
};

}  // namespace agentnic::model
