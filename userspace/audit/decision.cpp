// SPDX-License-Identifier: Apache-2.0
#include "audit/decision.hpp"

#include <algorithm>

#include "audit/words.hpp"

namespace agentnic::audit {

anic_record record_of(const anic_proposal& proposal, const anic_answer& answer, std::uint64_t session) {
  anic_record record{};
  record.seq = answer.seq;
  record.kind = ANIC_RECORD_DECISION;
  record.session = session;
  record.count = 1;
  record.service = proposal.service;
  record.bucket = proposal.bucket;
  record.tenant = proposal.tenant;
  record.cls = proposal.cls;
  record.proposed = proposal.kind;
  record.decided = answer.decided;
  record.invariant = answer.invariant;
  record.rewritten = answer.rewritten;
  record.observed = answer.observed;
  record.requested = answer.requested;
  record.approved = answer.approved;
  record.until_ns = answer.until_ns;
  std::ranges::copy(proposal.reason, record.reason);
  return record;
}

Json decision_json(const anic_record& record, const Names& names) {
  Json json;
  json["seq"] = record.seq == 0 ? Json(nullptr) : Json(record.seq);
  json["invariant"] = record.invariant == 0 ? Json(nullptr) : Json(invariant_name(record.invariant));
  json["until_monotonic_ns"] = record.until_ns == 0 ? Json(nullptr) : Json(record.until_ns);
  json.update(event_json(record, names));
  return json;
}

}  // namespace agentnic::audit
