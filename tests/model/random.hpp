// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Random policies and frames of few values, so that they meet: prefixes that overlap, ports that several
/// services name, flows that come again.

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "lab/packet.hpp"
#include "policy/model.hpp"

namespace agentnic::model {

/// Everything follows from the seed.
class Random final {
 public:
  explicit Random(std::uint32_t seed) : engine_(seed) {}

  /// Less than `end`.
  std::uint32_t below(std::size_t end) { return static_cast<std::uint32_t>(engine_() % end); }

  /// Valid, whatever it says.
  policy::Policy policy();

  /// Of 14 to 3,400 bytes: of all protocols, some of them cut off, some with a few other bytes.
  lab::Frame frame();

  /// From one packet to the next: of the order of what they take at the rates of policy().
  std::uint32_t step_ns() { return one_in(50) ? below(30'000'000) : below(200'000); }

  /// Of a packet at TC, as the kernel keeps it.
  std::uint32_t queue() { return one_in(8) ? below(300) : below(4); }

 private:
  bool one_in(std::size_t n) { return below(n) == 0; }

  anic_prefix prefix();
  anic_class any_class();
  std::uint8_t protocol();
  std::uint16_t port();
  anic_role role();
  void add_tenants(policy::Policy& policy);
  void add_ports(policy::Policy& policy);
  void add_budgets(policy::Policy& policy);
  void add_cpus(policy::Policy& policy);
  void add_ip(lab::PacketBuilder& builder);
  void add_extensions(lab::PacketBuilder& builder);
  void add_transport(lab::PacketBuilder& builder, bool is_ipv6);

  std::mt19937 engine_;
};

/// A policy for people who look for what went wrong: one line a rule.
std::string policy_text(const policy::Policy& policy);

}  // namespace agentnic::model
