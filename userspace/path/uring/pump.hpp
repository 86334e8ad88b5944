// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Content between a file and a stream over io_uring: while one buffer is sent, the next are read, and while
/// one is received, those before are written.

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.hpp"
#include "path/mapping.hpp"
#include "path/uring/ring.hpp"

namespace agentnic::path {

/// One thread: the one that opened it. Whoever asks for something leaves that buffer alone until it is done.
class UringPump final {
 public:
  enum class Op : std::uint8_t { Read, Write, Send, Receive };
  struct Done {
    Op op = Op::Read;
    std::uint32_t buffer = 0;
    std::int32_t result = 0;  ///< bytes, which may be fewer than were asked for, or -errno
  };

  static Result<UringPump> open(std::uint32_t buffers, std::size_t bytes);
  UringPump(UringPump&& other) = default;
  UringPump(const UringPump&) = delete;
  UringPump& operator=(const UringPump&) = delete;
  UringPump& operator=(UringPump&&) = delete;
  ~UringPump() = default;

  [[nodiscard]] std::uint32_t buffers() const noexcept { return buffers_; }
  [[nodiscard]] std::span<std::byte> buffer(std::uint32_t number) noexcept {
    return {memory_.get() + number * bytes_, bytes_};
  }

  /// Part of a file at an offset, to or from part of a buffer.
  void read(int file, std::uint64_t offset, std::uint32_t number, std::span<std::byte> part);
  void write(int file, std::uint64_t offset, std::uint32_t number, std::span<const std::byte> part);
  /// Part of a buffer, to or from a stream.
  void send(int socket, std::uint32_t number, std::span<const std::byte> part);
  void receive(int socket, std::uint32_t number, std::span<std::byte> part);

  /// Waits until something is done, for at most kStopCheckMs (base/stop.hpp), and calls `handle(const Done&)`
  /// for each. What it asks for is begun by the next call.
  template <typename Handle>
  void wait(Handle&& handle) {
    ring_.submit(Wait::Block);
    ring_.reap([&](const io_uring_cqe& done) {
      --under_way_;
      handle(Done{.op = static_cast<Op>(done.user_data & 0xffU),
                  .buffer = static_cast<std::uint32_t>(done.user_data >> 8U),
                  .result = done.res});
    });
  }
  /// Ends all that is under way; nobody is told of it.
  void cancel();
  [[nodiscard]] std::uint32_t under_way() const noexcept { return under_way_; }

 private:
  UringPump(Mapping memory, Ring ring, std::uint32_t buffers, std::size_t bytes) noexcept
      : memory_(std::move(memory)), ring_(std::move(ring)), buffers_(buffers), bytes_(bytes) {}
  io_uring_sqe* next(Op op, std::uint32_t number);

  Mapping memory_;  ///< after the ring, when it ends
  Ring ring_;
  std::uint32_t buffers_;
  std::size_t bytes_;
  std::uint32_t under_way_ = 0;
};

}  // namespace agentnic::path
