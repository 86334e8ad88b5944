// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A TCP server that sends back what it receives, to many at once, over io_uring. One call to the kernel
/// submits what there is to do for all connections and brings what has become of it.

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <vector>

#include "base/result.hpp"
#include "path/sockets/tcp.hpp"
#include "path/sockets/tcp_echo.hpp"
#include "path/uring/buffers.hpp"
#include "path/uring/ring.hpp"

namespace agentnic::path {

struct UringEchoOptions {
  unsigned connections =
      8192;  ///< at a time, as far as RLIMIT_NOFILE goes; the next is turned away, more wait
  std::uint32_t buffers = 1024;      ///< for all of them; a power of two, at most 32,768
  std::size_t buffer_bytes = 16384;  ///< of each
  std::size_t zerocopy_from =
      SIZE_MAX;             ///< what is at least so long is sent without a copy; see docs/path-a.md
  BusyPoll busy_poll = {};  ///< Ring's
};

/// Beside those that every echo server has.
struct UringCounters {
  std::uint64_t starved = 0;    ///< receives that ended because the kernel had no buffer left; armed again
  std::uint64_t cancelled = 0;  ///< receives from slow peers, until they have taken what there is for them
  std::uint64_t bundles = 0;    ///< sends of several buffers
  std::uint64_t zerocopy = 0;   ///< sends without a copy, as far as was asked for
  std::uint64_t copied = 0;     ///< ... of which the kernel copied after all
  std::uint64_t overflows = 0;  ///< completions that found no room
};

/// One thread. Received bytes go out from the buffer that they came in. What a slow peer does not take is
/// copied to memory of its own, so that it holds nothing that others wait for, and no more is read from it.
class UringEcho final {
 public:
  static Result<UringEcho> open(TcpListener listener, const UringEchoOptions& options = {});
  UringEcho(const UringEcho&) = delete;
  UringEcho& operator=(const UringEcho&) = delete;
  UringEcho(UringEcho&&) = default;
  UringEcho& operator=(UringEcho&&) = delete;
  ~UringEcho() = default;

  /// Until `stop`, or stop_requested(). Once.
  Result<TcpEchoCounters> run(Wait wait, const std::stop_token& stop = {});
  [[nodiscard]] const UringCounters& more() const noexcept { return more_; }

 private:
  enum class Op : std::uint8_t { Accept, Receive, Send, SendBundle, SendZerocopy, SendHeld, Cancel, Close };
  struct Piece {
    std::uint16_t buffer = 0;
    std::uint32_t offset = 0;
    std::uint32_t length = 0;
  };
  struct Connection {
    std::vector<Piece> pieces;                        ///< received, and to be sent
    std::vector<std::byte> held;                      ///< the same, of a peer that is slow
    std::vector<std::byte> behind;                    ///< what came while `held` was under way
    std::size_t under_way = 0;                        ///< pieces of the send that is under way
    std::uint32_t notices = 0;                        ///< sends without a copy whose memory is still read
    std::optional<std::size_t> lease = std::nullopt;  ///< of bundles_
    bool receiving = false;
    bool cancelling = false;
    bool sending = false;
    bool ended = false;  ///< by the peer
    bool broken = false;
    bool queued = false;  ///< it is in ready_
  };

  UringEcho(TcpListener listener, Ring ring, ReceiveBuffers buffers, const UringEchoOptions& options);
  static std::uint64_t id_of(Op op, std::uint32_t slot, std::uint32_t extra = 0) noexcept {
    return static_cast<std::uint64_t>(op) | (static_cast<std::uint64_t>(slot) << 8U) |
           (static_cast<std::uint64_t>(extra) << 32U);
  }
  void handle(const io_uring_cqe& done);
  void accepted(const io_uring_cqe& done);
  void received(std::uint32_t slot, const io_uring_cqe& done);
  void sent_pieces(std::uint32_t slot, const io_uring_cqe& done, Op op);
  void sent_held(std::uint32_t slot, const io_uring_cqe& done);
  void queue(std::uint32_t slot);
  void advance(std::uint32_t slot);
  void arm_accept();
  void arm_receive(std::uint32_t slot);
  void cancel_receive(std::uint32_t slot);
  void send_pieces(std::uint32_t slot);
  void send_held(std::uint32_t slot);
  void consume(Connection& connection, std::size_t bytes, bool gives_back);
  void hold(Connection& connection, bool first_is_read);
  void drop_pieces(Connection& connection);
  void close(std::uint32_t slot);
  std::span<std::byte> bytes_of(const Piece& piece) noexcept {
    return buffers_.buffer(piece.buffer).subspan(piece.offset, piece.length);
  }

  TcpListener listener_;
  UringEchoOptions options_;
  Ring ring_;
  ReceiveBuffers buffers_;
  std::vector<BufferRing> bundles_;  ///< that sends of several buffers lease
  std::vector<std::size_t> free_bundles_;
  std::vector<std::unique_ptr<Connection>> by_slot_;
  std::vector<std::uint32_t> ready_;    ///< of which something completed
  std::vector<std::uint32_t> starved_;  ///< that wait for a buffer
  std::uint64_t open_ = 0;
  unsigned at_once_ = 0;  ///< of what will be submitted, what completes without waiting
  bool accepting_ = false;
  TcpEchoCounters counters_;
  UringCounters more_;
};

}  // namespace agentnic::path
