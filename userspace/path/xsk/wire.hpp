// SPDX-License-Identifier: Apache-2.0
#pragma once

/// How an unprivileged program gets AF_XDP sockets from `agentnic-load serve`: one message each way over a
/// unix socket of type SOCK_SEQPACKET. The answer brings descriptors (SCM_RIGHTS): the memory first, then of
/// each queue the socket that receives, the one that sends, and the page. Fixed layouts in the host's byte
/// order: both ends are on one machine.

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "path/xsk/client.hpp"
#include "path/xsk/grant.hpp"

namespace agentnic::path {

inline constexpr std::uint32_t kXskWireVersion = 2;
inline constexpr std::uint32_t kXskAnyQueue = 0xffffffff;

struct XskAsk {
  std::uint32_t version = kXskWireVersion;
  std::uint32_t first_queue = kXskAnyQueue;  ///< or any that nobody has
  std::uint32_t queues = 1;                  ///< consecutive, unless any will do
  std::uint32_t frames = 0;
  std::uint32_t frame_bytes = 0;
  std::uint32_t bind = 0;  ///< XskBind
  std::uint32_t multi_buffer = 0;
  std::uint32_t busy_poll_us = 0;
  std::uint32_t busy_budget = 0;
  char service[32] = {};  ///< of the policy; ends with 0
};
static_assert(sizeof(XskAsk) == 68);

struct XskAnswer {
  std::uint32_t version = kXskWireVersion;
  std::uint32_t exit = 0;  ///< enum Exit; all but Done have `what` and `hint`, and nothing else
  std::uint32_t ifindex = 0;
  std::uint32_t mtu = 0;
  std::uint32_t huge_pages = 0;
  std::uint32_t queues = 0;
  std::uint32_t queue[kXskQueuesMax] = {};
  std::uint32_t zero_copy[kXskQueuesMax] = {};
  char ifname[16] = {};
  char what[256] = {};
  char hint[128] = {};
};
static_assert(sizeof(XskAnswer) == 24 + 512 + 400);

/// What is asked for, in the words of the library.
struct XskRequest {
  std::string service;
  std::uint32_t first_queue = kXskAnyQueue;
  std::uint32_t queues = 1;
  XskShape shape = {};
};

/// Where serve listens by default: /run/agentnic/xsk-IFACE.
std::string xsk_socket_path(const std::string& ifname);

/// Asks the daemon that listens at `path`. Its refusals come as they are, with their exit.
Result<XskClient> connect_xsk(const std::string& path, const XskRequest& request);
/// The answer of the daemon that listens at `path`, to who has asked for such a shape.
Result<XskGrant> receive_grant(int connection_fd, const std::string& path, const XskShape& shape);

// --- the daemon's end ---

/// Of a message that may have come from anybody: bad input unless it is one.
Result<XskRequest> read_ask(std::span<const std::byte> message);
/// The descriptors stay the caller's.
Status send_grant(int connection_fd, const XskGrant& grant);
Status send_refusal(int connection_fd, const Error& error);

}  // namespace agentnic::path
