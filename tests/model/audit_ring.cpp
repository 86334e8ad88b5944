// SPDX-License-Identifier: Apache-2.0
#include "audit_ring.hpp"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <span>

namespace agentnic::model {

/// A ring of the kernel's is never full to the last byte: it would look empty.
std::size_t AuditRing::free_bytes() const { return ANIC_AUDIT_BYTES - 1 - unread_.size() * ANIC_AUDIT_TAKES; }

bool AuditRing::may_add(std::size_t records) const {
  return waiting_.empty() && chain_.ended == 0 &&
         free_bytes() >= ANIC_AUDIT_RESERVE + records * ANIC_AUDIT_TAKES;
}

bool AuditRing::in_tenancy(std::uint32_t tenant) const { return std::span(chain_.tenancy)[tenant] % 2 == 1; }

AuditRing::Written AuditRing::written_now(const anic_record& record) const {
  const bool is_numbered = record.tenant != 0 && in_tenancy(record.tenant);
  return {.record = record, .tenancy = is_numbered ? std::span(chain_.tenancy)[record.tenant] : 0};
}

/// Into the ring: numbered in its tenancy, if that has begun there and no later one has.
bool AuditRing::enter(Written& written) {
  if (chain_.ended != 0 || free_bytes() < ANIC_AUDIT_TAKES) return false;
  anic_record& record = written.record;
  record.seq = ++chain_.seq;
  if (written.tenancy != 0) {
    __u64& last = std::span(chain_.tenant_seq)[record.tenant];
    __u32& numbered = std::span(chain_.numbered)[record.tenant];
    if (record.kind == ANIC_RECORD_COMMIT) {
      last = 0;
      numbered = written.tenancy;
    }
    if (numbered == written.tenancy) record.tenant_seq = ++last;
  }
  unread_.push_back(record);
  return true;
}

bool AuditRing::add(anic_record& record) {
  Written written = written_now(record);
  if (!enter(written)) return false;
  record = written.record;
  return true;
}

bool AuditRing::keep(anic_record record) {
  if (chain_.ended != 0) return false;
  if (waiting_.empty() && has_room_before_end() && add(record)) return true;
  if (waiting_.size() == ANIC_WAITING_MAX) {
    lose(record);
    return false;
  }
  waiting_.push_back(written_now(record));
  chain_.waiting = static_cast<__u32>(waiting_.size());
  return true;
}

void AuditRing::begin_tenancy(std::uint32_t tenant, const anic_record& record) {
  __u32& tenancy = std::span(chain_.tenancy)[tenant];
  ++tenancy;
  if (!keep(record)) ++tenancy;
}

void AuditRing::end_tenancy(std::uint32_t tenant, const anic_record& record) {
  keep(record);
  ++std::span(chain_.tenancy)[tenant];
}

void AuditRing::lose(const anic_record& record) {
  const bool is_named = record.kind < ANIC_RECORD_LOST;
  std::span(chain_.lost.by_kind)[is_named ? record.kind : 0] += record.count;
  chain_.lost_total += record.count;
  chain_.lost_now = 1;
}

void AuditRing::flush(anic_record lost) {
  while (!waiting_.empty() && has_room_before_end() && enter(waiting_.front())) waiting_.pop_front();
  chain_.waiting = static_cast<__u32>(waiting_.size());
  if (chain_.lost_now != 0 && may_add(1)) say_lost(lost);
}

void AuditRing::say_lost(anic_record lost) {
  std::memcpy(lost.reason, &chain_.lost, sizeof(lost.reason));
  if (!add(lost)) return;
  chain_.lost = {};
  chain_.lost_now = 0;
}

/// What waits is lost; the last two records have room of their own.
void AuditRing::end(const anic_record& lost, anic_record last) {
  for (const Written& written : waiting_) lose(written.record);
  waiting_.clear();
  chain_.waiting = 0;
  if (chain_.lost_now != 0) say_lost(lost);
  add(last);
  chain_.ended = 1;
}

bool AuditRing::has_room_before_end() const { return free_bytes() >= ANIC_AUDIT_LAST + ANIC_AUDIT_TAKES; }

std::vector<anic_record> AuditRing::take(std::size_t most) {
  const auto end = unread_.begin() + static_cast<std::ptrdiff_t>(std::min(most, unread_.size()));
  std::vector<anic_record> taken(unread_.begin(), end);
  unread_.erase(unread_.begin(), end);
  return taken;
}

}  // namespace agentnic::model
