// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A reliable connected queue pair (RC) and its completion queue. States and attributes: ibv_modify_qp(3).

#include <infiniband/verbs.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "path/rdma/device.hpp"
#include "path/rdma/endpoint.hpp"
#include "path/rdma/memory.hpp"

namespace agentnic::path {

struct QueuePairOptions {
  std::uint32_t sends = 64;     ///< requests under way
  std::uint32_t receives = 64;  ///< that wait for a message
  std::uint32_t inline_bytes = 64;
  /// How long a packet waits for its answer (4.096 us times 2 to this), and how often it is sent again.
  std::uint8_t timeout = 16;
  std::uint8_t retries = 6;  ///< 7 is for ever with some devices
  /// How often it is sent again when the peer has no receive for it (7: for ever), and after how long (an
  /// index, see ibv_modify_qp(3); 12: 0.64 ms).
  std::uint8_t rnr_retries = 6;
  std::uint8_t rnr_timer = 12;
  std::uint8_t reads = 8;  ///< under way at a time, at most
};

/// A range of registered memory.
struct LocalRange {
  std::byte* at = nullptr;
  std::uint32_t bytes = 0;
  std::uint32_t key = 0;
};
struct RemoteRange {
  std::uint64_t address = 0;
  std::uint32_t key = 0;
};

/// What a request came to.
struct Completion {
  std::uint64_t id = 0;
  ibv_wc_status status = IBV_WC_SUCCESS;
  bool received = false;  ///< it is a receive: a message, or the notice of a write
  std::uint32_t bytes = 0;
  std::optional<std::uint32_t> immediate = std::nullopt;
  std::uint32_t vendor = 0;  ///< the device's own word on an error
};

/// "the peer has no memory there, or not for this (remote access error)": in words, with the standard's name.
std::string completion_text(const Completion& completion);

/// One thread. It goes before its device and memory. After the first completion that is no success the queue
/// pair is in the state ERROR: all that was under way completes as flushed, and nothing more goes over it.
class QueuePair final {
 public:
  QueuePair(QueuePair&&) noexcept = default;
  QueuePair& operator=(QueuePair&& other) noexcept;
  QueuePair(const QueuePair&) = delete;
  QueuePair& operator=(const QueuePair&) = delete;
  ~QueuePair() = default;

  /// RESET, then INIT: messages can be waited for. `remote_access`: IBV_ACCESS_REMOTE_*, what the peer may
  /// do.
  static Result<QueuePair> open(const RdmaDevice& device, unsigned remote_access,
                                const QueuePairOptions& options = {});

  /// What the peer has to know, without memory.
  [[nodiscard]] RdmaEndpoint endpoint() const;
  /// RTR, then RTS: with the smaller of both MTUs, and no more reads under way than the peer answers.
  Status connect(const RdmaEndpoint& peer);
  /// The same by attributes of somebody else (path/rdma/cm.hpp), one state at a time.
  Status modify(ibv_qp_attr& attributes, int mask);

  /// Waits for a message; without a range it has none of content.
  Status receive(std::uint64_t id, const LocalRange& range = {});
  /// Up to inline_bytes() are copied at once: their memory may be anybody's, and is free again.
  Status send(std::uint64_t id, const LocalRange& range,
              std::optional<std::uint32_t> immediate = std::nullopt);
  /// Into the peer's memory; with an immediate the peer gets a completion for it.
  Status write(std::uint64_t id, const LocalRange& from, const RemoteRange& to,
               std::optional<std::uint32_t> immediate = std::nullopt);
  Status read(std::uint64_t id, const LocalRange& to, const RemoteRange& from);

  /// What has completed; valid until the next call. An error: the completion queue is of no use any more.
  Result<std::span<const Completion>> poll();
  /// Asks to be woken by event_fd() for the next one; poll() again before sleeping.
  Status arm();
  /// Takes what made event_fd() readable.
  void take_events() noexcept;
  [[nodiscard]] int event_fd() const noexcept { return channel_->fd; }
  [[nodiscard]] const RdmaDevice& device() const noexcept { return *device_; }
  [[nodiscard]] const QueuePairOptions& options() const noexcept { return options_; }
  [[nodiscard]] std::uint32_t inline_bytes() const noexcept { return inline_bytes_; }
  [[nodiscard]] ibv_qp_state state() const;
  /// Puts it into the state ERROR: what is under way completes as flushed.
  Status give_up();

 private:
  struct Release {
    void operator()(ibv_comp_channel* channel) const noexcept { ibv_destroy_comp_channel(channel); }
    void operator()(ibv_cq* queue) const noexcept { ibv_destroy_cq(queue); }
    void operator()(ibv_qp* pair) const noexcept { ibv_destroy_qp(pair); }
  };
  QueuePair() = default;
  Status post(ibv_send_wr& request, const LocalRange& range);

  const RdmaDevice* device_ = nullptr;
  QueuePairOptions options_;
  std::uint32_t sequence_ = 0;
  std::uint32_t inline_bytes_ = 0;
  std::unique_ptr<ibv_comp_channel, Release> channel_;
  std::unique_ptr<ibv_cq, Release> completions_;
  std::unique_ptr<ibv_qp, Release> pair_;
  std::vector<Completion> done_;
};

}  // namespace agentnic::path
