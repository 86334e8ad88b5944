// SPDX-License-Identifier: Apache-2.0
#include "path/sockets/address.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>

#include <cerrno>
#include <cstring>

namespace agentnic::path {
namespace {

Address unmapped(const Address& address) noexcept {
  const auto* in6 = reinterpret_cast<const sockaddr_in6*>(&address.storage);
  if (address.storage.ss_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) return address;
  Address plain;
  auto* in = reinterpret_cast<sockaddr_in*>(&plain.storage);
  in->sin_family = AF_INET;
  in->sin_port = in6->sin6_port;
  std::memcpy(&in->sin_addr, &in6->sin6_addr.s6_addr[12], sizeof(in->sin_addr));
  plain.length = sizeof(*in);
  return plain;
}

}  // namespace

Result<Address> Address::parse(const std::string& host, std::uint16_t port) {
  Address address;
  auto* in = reinterpret_cast<sockaddr_in*>(&address.storage);
  auto* in6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
  if (::inet_pton(AF_INET, host.c_str(), &in->sin_addr) == 1) {
    in->sin_family = AF_INET;
    in->sin_port = htons(port);
    address.length = sizeof(*in);
    return address;
  }
  if (::inet_pton(AF_INET6, host.c_str(), &in6->sin6_addr) == 1) {
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(port);
    address.length = sizeof(*in6);
    return address;
  }
  return fail(Exit::BadInput, fmt::format("{} is not an IPv4 or IPv6 address", host),
              "names are not looked up");
}

Result<Address> Address::of_socket(int fd) {
  Address address;
  address.length = sizeof(address.storage);
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address.storage), &address.length) != 0)
    return fail_errno(errno, "ask for the address of a socket");
  return unmapped(address);
}

Result<Address> Address::of_peer(int fd) {
  Address address;
  address.length = sizeof(address.storage);
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&address.storage), &address.length) != 0)
    return fail_errno(errno, "ask for the peer of a socket");
  return unmapped(address);
}

Address Address::with_port(std::uint16_t port) const noexcept {
  Address address = *this;
  if (storage.ss_family == AF_INET) {
    reinterpret_cast<sockaddr_in*>(&address.storage)->sin_port = htons(port);
  } else {
    reinterpret_cast<sockaddr_in6*>(&address.storage)->sin6_port = htons(port);
  }
  return address;
}

std::uint16_t Address::port() const noexcept {
  return ntohs(storage.ss_family == AF_INET ? reinterpret_cast<const sockaddr_in*>(&storage)->sin_port
                                            : reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_port);
}

std::string Address::text() const {
  char host[INET6_ADDRSTRLEN] = {};
  if (storage.ss_family == AF_INET) {
    ::inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(&storage)->sin_addr, host, sizeof(host));
    return fmt::format("{}:{}", host, port());
  }
  ::inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_addr, host, sizeof(host));
  return fmt::format("[{}]:{}", host, port());
}

}  // namespace agentnic::path
