// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What programs that own AF_XDP sockets are told on their command lines.

#include <map>
#include <string>

#include "cli/common/program.hpp"
#include "path/sockets/udp.hpp"
#include "path/xsk/wire.hpp"

namespace agentnic::cli {

inline const std::map<std::string, path::Wait> kWaits = {{"block", path::Wait::Block},
                                                         {"spin", path::Wait::Spin}};
inline const std::map<std::string, path::XskBind> kBinds = {
    {"auto", path::XskBind::Auto}, {"copy", path::XskBind::Copy}, {"zerocopy", path::XskBind::ZeroCopy}};

struct XskOptions {
  std::string socket;
  std::string wait = "block";
  std::string bind = "auto";
  path::XskRequest request;
  bool json = false;
};

/// SERVICE, --socket, --queue, --queues, --frames, --frame-bytes, --bind, --jumbo, --busy-poll,
/// --busy-budget,
/// --wait, --json.
void add_xsk_options(CLI::App& app, XskOptions& options);

/// Gets what was asked for from agentnic-load serve.
Result<path::XskClient> connect(const XskOptions& options);

/// What was obtained, and what became of it, of each queue.
Json to_json(path::XskClient& client);

/// `ready`, with what was obtained, so that whoever started this knows that packets may come.
void announce(const std::string& schema, const XskOptions& options, path::XskClient& client);

}  // namespace agentnic::cli
