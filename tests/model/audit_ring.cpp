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

bool AuditRing::add(anic_record& record) {
  if (chain_.ended != 0 || free_bytes() < ANIC_AUDIT_TAKES) return false;
  record.seq = ++chain_.seq;
  if (record.tenant != 0) record.tenant_seq = ++std::span(chain_.tenant_seq)[record.tenant];
  unread_.push_back(record);
  return true;
}

void AuditRing::keep(const anic_record& record) {
  if (chain_.ended != 0) return;
  if (anic_record next = record; waiting_.empty() && add(next)) return;
  if (waiting_.size() == ANIC_WAITING_MAX) return lose(record);
  waiting_.push_back(record);
  chain_.waiting = static_cast<__u32>(waiting_.size());
}

void AuditRing::lose(const anic_record& record) {
  const std::span by_kind(chain_.lost.by_kind);
  if (record.kind < by_kind.size()) by_kind[record.kind] += record.count;
  chain_.lost_total += record.count;
  chain_.lost_now = 1;
}

void AuditRing::flush(anic_record lost) {
  while (!waiting_.empty() && add(waiting_.front())) waiting_.pop_front();
  chain_.waiting = static_cast<__u32>(waiting_.size());
  if (chain_.lost_now == 0 || !may_add(1)) return;
  std::memcpy(lost.reason, &chain_.lost, sizeof(lost.reason));
  add(lost);
  chain_.lost = {};
  chain_.lost_now = 0;
}

std::vector<anic_record> AuditRing::take(std::size_t most) {
  const auto end = unread_.begin() + static_cast<std::ptrdiff_t>(std::min(most, unread_.size()));
  std::vector<anic_record> taken(unread_.begin(), end);
  unread_.erase(unread_.begin(), end);
  return taken;
}

}  // namespace agentnic::model
