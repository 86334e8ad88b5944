// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What both ends of a bulk session are told on their command lines, and how they tell what they did.

#include <optional>
#include <string>

#include "bulk/meter.hpp"
#include "bulk/session.hpp"
#include "cli/common/program.hpp"

namespace agentnic::cli {

struct BulkOptions {
  std::string secret;
  std::string rate;
  std::string budget;
  std::string tenant;
  std::string netns;
  unsigned timeout_s = 30;
  std::string transport = "auto";
  std::string device;
  std::uint16_t slots = 16;
  std::uint32_t slot_kib = 256;
  bool json = false;
};

/// --secret, --rate, --budget, --tenant, --netns, --timeout, --transport, --device, --slots, --slot-kib,
/// --json.
void add_bulk_options(CLI::App& command, BulkOptions& options);

Result<bulk::SessionOptions> session_options(const BulkOptions& options);
/// Bit/s of --rate, or 0.
Result<std::uint64_t> rate_of(const BulkOptions& options);

/// A JSON line, with the schema first.
void print_event(const char* event, const Json& members);
Json to_json(const bulk::Totals& totals);
/// One sentence.
std::string summary(const bulk::Totals& totals);

}  // namespace agentnic::cli
