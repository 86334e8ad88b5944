// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Path C: a port of an RDMA device that speaks RoCEv2, and the address it has there (GID). Layouts and
/// limits: libibverbs; RoCEv2: InfiniBand Architecture Specification, annex A17.

#include <infiniband/verbs.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/result.hpp"
#include "path/sockets/address.hpp"

namespace agentnic::path {

/// 16 bytes: an IPv6 address, or an IPv4 one below ::ffff:0:0/96.
using Gid = std::array<std::byte, 16>;

/// Of an address; IPv4 as it stands in a GID.
Gid gid_of(const Address& address);
/// "198.18.1.1", "2001:db8::1".
std::string gid_text(const Gid& gid);

/// An entry of a port's table of RoCEv2 GIDs.
struct RdmaPort {
  std::string device;
  std::uint8_t port = 0;
  bool active = false;
  std::uint32_t gid_index = 0;
  Gid gid{};
  std::uint32_t ifindex = 0;  ///< of the interface that has the address, in its network namespace
  ibv_mtu mtu = IBV_MTU_256;
};

/// An open device, and the port and GID of it that were chosen. Movable; what is made of it goes before it.
class RdmaDevice final {
 public:
  RdmaDevice(RdmaDevice&&) noexcept = default;
  RdmaDevice& operator=(RdmaDevice&&) = delete;
  RdmaDevice(const RdmaDevice&) = delete;
  RdmaDevice& operator=(const RdmaDevice&) = delete;
  ~RdmaDevice() = default;

  /// The port that has this address, in this network namespace. `name`: of this device alone. Unsupported:
  /// says which devices there are, and what they have.
  static Result<RdmaDevice> open(const Address& local, const std::string& name = {});

  [[nodiscard]] ibv_context* context() const noexcept { return context_.get(); }
  [[nodiscard]] ibv_pd* domain() const noexcept { return domain_.get(); }
  [[nodiscard]] const RdmaPort& port() const noexcept { return port_; }
  [[nodiscard]] const ibv_device_attr& limits() const noexcept { return *limits_; }
  /// An event that ends all that is made of it, such as its removal; nothing: all is well.
  [[nodiscard]] std::optional<std::string> trouble() const;
  /// "rxe0 port 1, GID 1 (198.18.1.1), MTU 1024".
  [[nodiscard]] std::string text() const;

 private:
  struct Close {
    void operator()(ibv_context* context) const noexcept { ibv_close_device(context); }
    void operator()(ibv_pd* domain) const noexcept { ibv_dealloc_pd(domain); }
  };
  RdmaDevice() = default;
  std::unique_ptr<ibv_context, Close> context_;
  std::unique_ptr<ibv_pd, Close> domain_;
  std::unique_ptr<ibv_device_attr> limits_;
  RdmaPort port_;
};

}  // namespace agentnic::path
