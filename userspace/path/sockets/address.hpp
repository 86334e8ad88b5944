// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>

#include "base/result.hpp"

namespace agentnic::path {

/// An IPv4 or IPv6 address with a port.
struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;

  /// From the numeric form; nothing is looked up.
  static Result<Address> parse(const std::string& host, std::uint16_t port);
  /// The one that a socket is bound to. Of an IPv6 socket that speaks IPv4 (::ffff:192.0.2.1): the IPv4 one.
  static Result<Address> of_socket(int fd);
  /// The one that it is connected to, likewise.
  static Result<Address> of_peer(int fd);
  [[nodiscard]] Address with_port(std::uint16_t port) const noexcept;
  [[nodiscard]] const sockaddr* get() const noexcept { return reinterpret_cast<const sockaddr*>(&storage); }
  [[nodiscard]] std::uint16_t port() const noexcept;
  /// 192.0.2.1:80, [2001:db8::1]:80
  [[nodiscard]] std::string text() const;
};

}  // namespace agentnic::path
