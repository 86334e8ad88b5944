// SPDX-License-Identifier: Apache-2.0
#include "cli/load/failsafe.hpp"

#include <fmt/format.h>

#include <iostream>
#include <map>
#include <memory>

#include "abi/guardian.h"
#include "kern/generation.hpp"
#include "kern/guardian.hpp"
#include "kern/instance.hpp"
#include "kern/maps.hpp"
#include "policy/text.hpp"

namespace agentnic::cli {
namespace {

struct Options {
  std::string ifname;
  std::string netns;
  std::string order;
  std::string tenant;
  std::string reason;
  bool json = false;
};

const std::map<std::string, anic_order_kind> kOrders = {
    {"enter", ANIC_ORDER_ENTER}, {"exit", ANIC_ORDER_EXIT}, {"ack", ANIC_ORDER_ACK}};

/// 0 without a name: the instance.
Result<std::uint32_t> tenant_of(const Options& options, const kern::PinDir& dir) {
  if (options.tenant.empty()) return 0;
  const kern::Maps maps = ANIC_TRY(kern::Maps::pinned(dir));
  const policy::Ids ids = kern::ids_of(ANIC_TRY(kern::read_names(maps)));
  if (const auto found = ids.tenants.find(options.tenant); found != ids.tenants.end()) return found->second;
  return fail(Exit::BadInput, fmt::format("failsafe {}: the policy in force has no tenant {}", options.order,
                                          policy::json_text(options.tenant)));
}

/// What was done, or that it was so before.
std::string outcome(anic_order_kind kind, bool changed) {
  switch (kind) {
    case ANIC_ORDER_ENTER:
      return changed ? "is in fail-safe until you end it" : "was in fail-safe by an operator already";
    case ANIC_ORDER_EXIT:
      return changed ? "has left fail-safe" : "was not in fail-safe";
    default:
      return changed ? "has its alarm acknowledged" : "had no alarm";
  }
}

Result<int> failsafe(const Options& options) {
  const anic_order_kind kind = kOrders.at(options.order);
  if (kind == ANIC_ORDER_ENTER && options.reason.empty())
    return fail(Exit::BadInput, "failsafe enter: --reason is required", "it goes into the audit");
  ANIC_TRY(kern::check_reason(options.reason));
  ANIC_TRY(kern::need_privileges("failsafe"));
  const kern::NetNs netns = ANIC_TRY(kern::NetNs::open_or_current(options.netns));
  const auto status = ANIC_TRY(kern::need_attached(netns, options.ifname, "order fail-safe of"));
  const std::uint32_t tenant = ANIC_TRY(tenant_of(options, status.dir));
  const bool changed = ANIC_TRY(kern::order_failsafe(status.dir, kind, tenant, options.reason));
  if (options.json) {
    print_json({{"schema", "agentnic.failsafe/1"},
                {"interface", options.ifname},
                {"netns", netns.name()},
                {"order", options.order},
                {"tenant", tenant == 0 ? Json(nullptr) : Json(options.tenant)},
                {"already", !changed}});
  } else {
    std::cout << fmt::format("{}{}: {} {}\n", options.ifname, netns.suffix(),
                             tenant == 0 ? "the instance" : "tenant " + options.tenant,
                             outcome(kind, changed));
  }
  return 0;
}

}  // namespace

void add_failsafe(Program& program) {
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      program.command("failsafe", "put traffic under the fallback profile, take it out, acknowledge an alarm",
                      [=] { return failsafe(*options); });
  command->add_option("IFACE", options->ifname, "interface")->required();
  command->add_option("ORDER", options->order, "enter, exit or ack")
      ->required()
      ->check(CLI::IsMember(kOrders));
  command->add_option("--tenant", options->tenant, "of this tenant alone; else of the whole instance");
  command->add_option("--reason", options->reason, "words for the audit; enter requires them");
  command->add_option("--netns", options->netns, "look for it in this network namespace (ip netns)");
  command->add_flag("--json", options->json, "print JSON; units are in the key names");
}

}  // namespace agentnic::cli
