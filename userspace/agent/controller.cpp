// SPDX-License-Identifier: Apache-2.0
#include "agent/controller.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace agentnic::agent {
namespace {

/// Leaves everything as the policy has it: the baseline of all others.
class StaticController final : public Controller {
 public:
  Result<std::optional<std::vector<Proposal>>> decide(const Observation& /*observation*/) override {
    return std::vector<Proposal>{};
  }
  Status decided(const std::vector<Decision>& /*decisions*/) override { return {}; }
};

}  // namespace

std::vector<std::string> controller_names() { return {"static"}; }

Result<std::unique_ptr<Controller>> make_controller(const std::string& name, std::uint64_t /*seed*/) {
  if (name == "static") return std::make_unique<StaticController>();
  return fail(Exit::BadInput, fmt::format("there is no controller {}", name),
              fmt::format("there is {}", fmt::join(controller_names(), ", ")));
}

}  // namespace agentnic::agent
