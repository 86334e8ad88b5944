// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Path C: content in slots of registered memory. Who sends fills a slot of its own, writes it to the peer's
/// slot of the same number (RDMA WRITE with immediate: the number), and goes on as long as the peer has slots
/// left; who receives gives each back when it is empty (a credit: SEND with immediate, how many). So nothing
/// arrives that nobody waits for.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bulk/plane.hpp"
#include "path/rdma/cm.hpp"
#include "path/rdma/device.hpp"
#include "path/rdma/endpoint.hpp"
#include "path/rdma/memory.hpp"
#include "path/rdma/queue_pair.hpp"

namespace agentnic::bulk {

struct RdmaOptions {
  std::string device;  ///< of this name alone
  std::uint16_t slots = 16;
  std::uint32_t slot_bytes = 256 << 10;
};

class RdmaPlane final : public Plane {
 public:
  /// On the device that has the channel's own address. Unsupported: there is none.
  static Result<std::unique_ptr<RdmaPlane>> open(const Channel& channel, const RdmaOptions& options,
                                                 bool receives);

  [[nodiscard]] path::RdmaEndpoint endpoint() const;
  Status connect(const Channel& channel, const path::RdmaEndpoint& peer);
  /// The same by rdma_cm: the server's end, then the client's.
  Result<std::uint16_t> listen(const Channel& channel);
  Status accept(const Channel& channel, const path::RdmaEndpoint& peer, const path::CmToken& token);
  Status connect_cm(const Channel& channel, const path::RdmaEndpoint& peer, std::uint16_t port,
                    const path::CmToken& token);

  Result<Outcome> send(Channel& channel, const Range& range, Hasher& hasher, Meter& meter) override;
  Result<Outcome> receive(Channel& channel, const Range& range, Hasher& hasher, Meter& meter) override;
  [[nodiscard]] std::string name() const override { return "rdma"; }

  [[nodiscard]] std::string text() const { return device_.text(); }
  [[nodiscard]] std::uint64_t registration_ns() const noexcept { return memory_.registration_ns(); }

 private:
  RdmaPlane(path::RdmaDevice device, path::RdmaMemory memory, const RdmaOptions& options, bool receives)
      : device_(std::move(device)), memory_(std::move(memory)), options_(options), receives_(receives) {}
  /// What both ends have of slots.
  Status meet(const Channel& channel, const path::RdmaEndpoint& peer);
  [[nodiscard]] path::LocalRange slot(std::uint32_t number, std::uint32_t bytes) const noexcept;
  /// Waits until something completes, or the peer says something; why it cannot, if so.
  Result<std::optional<std::string>> sleep(Channel& channel, std::uint64_t since_ns, bool listens);
  Status send_one(const Range& range, std::uint64_t at, std::uint32_t bytes, Hasher& hasher);
  Status give_credits();

  path::RdmaDevice device_;
  path::RdmaMemory memory_;
  std::vector<std::byte> copy_;  ///< of a slot, which the peer cannot change any more
  std::optional<path::QueuePair> pair_;
  std::optional<path::CmListener> listener_;
  std::optional<path::CmConnection> connection_;
  RdmaOptions options_;
  bool receives_;
  path::RdmaEndpoint peer_;
  std::uint32_t slots_ = 0;       ///< of both ends
  std::uint32_t slot_bytes_ = 0;  ///< likewise
  std::uint32_t next_ = 0;        ///< slot to send
  std::uint32_t credits_ = 0;     ///< slots of the peer that are empty
  std::uint32_t under_way_ = 0;   ///< writes, or credits
  std::uint32_t owed_ = 0;        ///< credits that are not sent
};

}  // namespace agentnic::bulk
