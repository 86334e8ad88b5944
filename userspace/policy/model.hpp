// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A policy as its author means it, after validation.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "abi/meta.h"
#include "abi/types.h"

namespace agentnic::policy {

/// One named port: where its packets go, and as what they count.
struct Service {
  std::string name;
  std::uint8_t protocol = 0;  ///< IPPROTO_UDP or IPPROTO_TCP
  std::uint16_t port = 0;
  anic_class cls = ANIC_CLASS_NONE;
  anic_path path = ANIC_PATH_NONE;
};

/// A port that is never dropped, redirected or re-classed.
struct ControlPort {
  std::uint8_t protocol = 0;
  std::uint16_t port = 0;
};

using Digest = std::array<std::uint8_t, ANIC_DIGEST_LEN>;

struct Policy {
  std::string name;
  std::vector<Service> services;
  std::vector<ControlPort> control;
  Digest digest{};  ///< SHA-256 of the document without white space, keys sorted

  [[nodiscard]] bool needs_xsk() const;
};

/// The words of the policy language; "?" for a value that has none.
std::string_view class_name(std::uint8_t cls);
std::string_view path_name(std::uint8_t path);
std::string_view protocol_name(std::uint8_t protocol);

/// Lower-case hexadecimal.
std::string digest_text(const std::uint8_t* bytes, std::size_t count);

}  // namespace agentnic::policy
