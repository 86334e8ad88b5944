// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A TCP server that sends back what it receives, to many at once.

#include <cstdint>
#include <memory>
#include <stop_token>
#include <vector>

#include "base/result.hpp"
#include "path/sockets/poller.hpp"
#include "path/sockets/tcp.hpp"
#include "path/wait.hpp"

namespace agentnic::path {

struct TcpEchoCounters {
  std::uint64_t accepted = 0;
  std::uint64_t ended = 0;  ///< the peer was done, and has all
  std::uint64_t reset = 0;  ///< gone with something under way, or without a word
  std::uint64_t full =
      0;  ///< times at which nobody more could be accepted for a while, or until somebody went
  std::uint64_t most = 0;   ///< connections at a time
  std::uint64_t bytes = 0;  ///< sent back
  std::uint64_t slow = 0;   ///< times at which a peer's window was full: no more is read from it meanwhile
};

/// One thread. Of each connection at most one read is held back: who does not take answers is not read from.
class TcpEcho final {
 public:
  static Result<TcpEcho> open(TcpListener listener, const BusyPoll& busy_poll = {});
  /// Until `stop`, or stop_requested().
  const TcpEchoCounters& run(Wait wait, const std::stop_token& stop = {});

 private:
  struct Connection {
    TcpStream stream;
    std::vector<std::byte> held;  ///< read, and not yet sent
  };
  static constexpr std::size_t kReadBytes = 65536;

  TcpEcho(TcpListener listener, Poller poller);
  void accept_all();
  void serve(int fd, std::uint32_t events);
  StreamState read_and_echo(Connection& connection);
  StreamState send_held(Connection& connection);
  void close(int fd, bool is_reset);

  TcpListener listener_;
  Poller poller_;
  std::vector<std::unique_ptr<Connection>> by_fd_;
  std::vector<std::byte> buffer_;
  std::uint64_t open_ = 0;
  bool full_ = false;           ///< the listener is not waited for
  std::uint64_t retry_ns_ = 0;  ///< when it is again
  TcpEchoCounters counters_;
};

}  // namespace agentnic::path
