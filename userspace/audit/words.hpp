// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The words of the guardian and of its records, as people and JSON have them. Pure.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "abi/guardian.h"

namespace agentnic::audit {

/// The other way round of policy::change_name().
std::optional<anic_change> change_of(std::string_view name);

/// enum anic_record_kind: "decision"; "?" for what this version does not know, as in the next three.
std::string_view record_name(std::uint8_t kind);
/// enum anic_decided: "approve".
std::string_view decided_name(std::uint8_t decided);
/// enum anic_invariant: "R1"; "form" for a malformed proposal.
std::string_view invariant_name(std::uint8_t invariant);
/// enum anic_failsafe: "heartbeat".
std::string_view failsafe_name(std::uint8_t failsafe);

/// What an invariant says, in few words, lower case.
std::string_view invariant_meaning(std::uint8_t invariant);

/// What the values of a change are: "weight", "bps", "class", "path" or "cpu"; the end of their JSON keys.
std::string_view value_unit(std::uint8_t change);

/// A value of a change: "200", "2Gbit", "rpc", "xsk", "CPU 3".
std::string value_text(std::uint8_t change, std::uint64_t value);

/// A text of ANIC_TEXT_LEN bytes: to its NUL, if it has one.
std::string_view text_of(const char (&text)[ANIC_TEXT_LEN]);

}  // namespace agentnic::audit
