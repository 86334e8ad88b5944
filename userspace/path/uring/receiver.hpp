// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Streams of TCP that are received over io_uring, without copies where that is possible.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "path/sockets/tcp.hpp"
#include "path/uring/buffers.hpp"
#include "path/uring/ring.hpp"
#include "path/uring/zcrx.hpp"

namespace agentnic::path {

enum class ReceiveMode : std::uint8_t {
  Multishot,         ///< the kernel copies into buffers of ours
  ZeroCopyNoDevice,  ///< zero-copy receive, into which the kernel copies
  ZeroCopy,          ///< the device writes to where we read
};

struct ReceiverOptions {
  /// Zero-copy receive from a device, or, with interface 0, without one; nothing: Multishot.
  std::optional<ZcrxOptions> zero_copy = std::nullopt;
  std::uint32_t buffers = 1024;      ///< of Multishot; a power of two
  std::size_t buffer_bytes = 16384;  ///< of each
};

/// What became of a stream.
struct ReceivedStream {
  std::uint64_t bytes = 0;
  int error = 0;  ///< errno that ended it, such as ECONNRESET; 0: the peer did
};

struct ReceiverCounters {
  std::uint64_t starved = 0;    ///< receives that ended because no memory was free; armed again
  std::uint64_t overflows = 0;  ///< completions that found no room
  std::optional<ZcrxCounters> zero_copy;
};

/// One thread.
class UringReceiver final {
 public:
  /// Zero-copy receive without a device is given up for Multishot where the kernel lacks it: why() says so.
  /// From a device it is not: Unsupported.
  static Result<UringReceiver> open(TcpListener listener, const ReceiverOptions& options = {});

  /// What came, in the order of each stream; streams are numbered as they were accepted.
  using Sink = std::function<void(std::size_t stream, std::span<const std::byte> bytes)>;
  /// Accepts so many and receives them to their ends, or until stop_requested(). Once.
  Result<std::vector<ReceivedStream>> run(std::size_t streams, const Sink& sink);

  [[nodiscard]] ReceiveMode mode() const noexcept { return mode_; }
  [[nodiscard]] const std::string& why() const noexcept { return why_; }
  [[nodiscard]] ReceiverCounters counters() const;

 private:
  enum class Op : std::uint8_t { Accept, Receive, Event, Other };
  UringReceiver(TcpListener listener, Ring ring) noexcept
      : listener_(std::move(listener)), ring_(std::move(ring)) {}
  static std::uint64_t id_of(Op op, std::uint32_t slot) noexcept {
    return static_cast<std::uint64_t>(op) | (static_cast<std::uint64_t>(slot) << 8U);
  }
  void handle(const io_uring_cqe& done, const Sink& sink);
  void received(std::uint32_t slot, const io_uring_cqe& done, const Sink& sink);
  void arm_receive(std::uint32_t slot);

  TcpListener listener_;
  Ring ring_;
  std::optional<ReceiveBuffers> buffers_;
  std::optional<Zcrx> zcrx_;
  ReceiveMode mode_ = ReceiveMode::Multishot;
  std::string why_;
  std::vector<std::optional<std::size_t>> by_slot_;  ///< the stream of it
  std::vector<ReceivedStream> streams_;
  std::size_t wanted_ = 0;
  std::size_t ended_ = 0;
  bool accepting_ = false;
  std::vector<std::uint32_t> again_;  ///< whose receive ended before they did
  ReceiverCounters counters_;
};

}  // namespace agentnic::path
