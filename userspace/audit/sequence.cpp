// SPDX-License-Identifier: Apache-2.0
#include "audit/sequence.hpp"

#include <fmt/format.h>

namespace agentnic::audit {
namespace {

bool is_well_formed(const anic_record& record) {
  return record.kind > ANIC_RECORD_NONE && record.kind < ANIC_RECORD__MAX &&
         record.decided < ANIC_DECIDED__MAX && record.invariant < ANIC_INVARIANT__MAX && record._pad == 0 &&
         record.seq != 0;
}

}  // namespace

std::optional<Break> Sequence::add(const anic_record& record) {
  const bool begins = begins_chain(record) && record.seq == 1;
  const std::uint64_t expected = begins || ended_ ? 1 : seq_ + 1;
  const auto broken = [&](Break::Kind kind, std::string what) {
    return Break{.kind = kind, .expected = expected, .what = std::move(what)};
  };
  if (!is_well_formed(record)) return broken(Break::Kind::Malformed, "it is not a record of a guardian");
  if (record.seq != expected) {
    return broken(record.seq > expected ? Break::Kind::Missing : Break::Kind::Repeated,
                  fmt::format("it has number {} in its chain, where {} is the next", record.seq, expected));
  }
  if (ended_ && !begins) return broken(Break::Kind::Malformed, "it does not begin a chain, and none goes on");
  const std::uint64_t before = begins ? 0 : tenant_seq_[record.tenant];
  const std::uint64_t next = begins_tenancy(record) ? 1 : before + 1;
  const bool of_part = record.tenant_seq != 0;
  if (of_part && (record.tenant == 0 || (before == 0 && !begins_tenancy(record))))
    return broken(Break::Kind::Malformed, "it has a number of a tenant's part, and there is none");
  if ((of_part || begins_tenancy(record)) && record.tenant_seq != next) {
    return broken(
        record.tenant_seq > next ? Break::Kind::Missing : Break::Kind::Repeated,
        fmt::format("it has number {} of its tenant, where {} is the next", record.tenant_seq, next));
  }
  if (begins) {
    tenant_seq_ = {};
    first_ = size_;
    ++chains_;
  }
  ++size_;
  seq_ = record.seq;
  ended_ = ends_chain(record);
  if (of_part) tenant_seq_[record.tenant] = ends_tenancy(record) ? 0 : next;
  return std::nullopt;
}

}  // namespace agentnic::audit
