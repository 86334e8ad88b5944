// SPDX-License-Identifier: Apache-2.0
#pragma once

/// One record of the audit, for people as a sentence and for machines as JSON. Pure.

#include <cstdint>
#include <functional>
#include <string>

#include "abi/audit.h"
#include "base/json.hpp"

namespace agentnic::audit {

/// What a record has only as a number: names by id (an empty one: none is known), and how far the wall clock
/// is ahead of CLOCK_MONOTONIC, in ns.
struct Names {
  std::function<std::string(std::uint32_t)> tenant;
  std::function<std::string(std::uint32_t)> service;
  std::function<std::string(std::uint32_t)> agent;
  std::int64_t wall_ahead_ns = 0;
};

/// `tenant acme`, or by its number; `the instance` for 0.
std::string tenant_text(std::uint32_t tenant, const Names& names);

/// Whose traffic: `tenant acme`, or `traffic of no tenant` for 0.
std::string traffic_text(std::uint32_t tenant, const Names& names);

/// What a change is of, after its kind: ` rpc`, ` chat`, ` rpc bucket 7`, or nothing.
std::string scope_text(std::uint8_t change, std::uint8_t cls, std::uint16_t service, std::uint16_t bucket,
                       const Names& names);

/// A time of CLOCK_MONOTONIC as hours, minutes, seconds and milliseconds, UTC.
std::string time_text(std::uint64_t monotonic_ns, const Names& names);
/// ... with its date.
std::string date_text(std::uint64_t monotonic_ns, const Names& names);

/// What happened and why. Words of others are quoted, control characters escaped.
std::string event_text(const anic_record& record, const Names& names);

/// One line without its end: number, time, event_text().
std::string sentence(const anic_record& record, const Names& names);

/// Whether the guardian came so far as to look at the value in force.
bool looked_at_value(const anic_record& record);

/// A value of a change as JSON has it: a number, or a word where it is one; null: it has none.
Json value_json(std::uint8_t change, std::uint64_t value);

/// What records of this kind have of their own. Units and clocks are in the names of keys.
Json event_json(const anic_record& record, const Names& names);

/// All of it.
Json record_json(const anic_record& record, const Names& names);

}  // namespace agentnic::audit
