// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A decision as whoever asked has it, from proposal and answer, in the words that the audit has for it.
/// Pure.

#include <cstdint>

#include "abi/guardian.h"
#include "audit/sentence.hpp"

namespace agentnic::audit {

/// The record, as far as who asked knows it: its time and MAC are zero.
anic_record record_of(const anic_proposal& proposal, const anic_answer& answer, std::uint64_t session);

/// What such a record says; `seq` is null for a rejection that is still counted together with others.
Json decision_json(const anic_record& record, const Names& names);

}  // namespace agentnic::audit
