// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A network interface as the calling thread's namespace has it.

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.hpp"

namespace agentnic::kern {

struct Interface {
  std::string name;
  std::uint32_t ifindex = 0;
  std::string driver;    ///< "?" when the driver does not say
  std::string firmware;  ///< empty when there is none
  std::uint32_t rx_queues = 1;
  std::uint32_t tx_queues = 1;
};

/// Offloads that change what an endpoint sees; nothing where the driver has no such switch.
struct Offloads {
  std::optional<bool> tx_checksum;
  std::optional<bool> rx_checksum;
  std::optional<bool> tso;
  std::optional<bool> gso;
  std::optional<bool> gro;
  std::optional<bool> rx_vlan;
};

/// By its name or an alternative one; the result has the first. An interface that is not there is bad input.
Result<Interface> find_interface(const std::string& name);

Offloads read_offloads(const std::string& name);

/// The XDP program on an interface, whatever its mode. id 0: none.
struct XdpProgram {
  std::uint32_t id = 0;
  std::string name;  ///< empty when it may not be read
};
Result<XdpProgram> attached_xdp(std::uint32_t ifindex);

/// Turns VLAN receive offload on or off. Unsupported where the driver does not let it be.
Status set_rx_vlan(const std::string& name, bool on);

}  // namespace agentnic::kern
