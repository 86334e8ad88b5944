// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The ring that the kernel puts records of the audit in. Positions count bytes since its beginning and never
/// go back; at a position stands a header of 8 bytes, then what it heads, rounded up to 8 (ringbuf of Linux,
/// Documentation/bpf/ringbuf.rst; struct bpf_ringbuf_hdr).

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "abi/audit.h"
#include "base/result.hpp"
#include "kern/maps.hpp"

namespace agentnic::kern {

/// Records in their order, and the position after them.
struct RecordsRead {
  std::vector<anic_record> records;
  std::uint64_t position = 0;
};

/// What stands in a ring between two positions, up to a record that is still being written. `data`: the ring
/// twice, one after the other. Fails, naming the position, where something else stands than a record: no
/// length is trusted. Pure.
Result<RecordsRead> read_records(std::span<const std::byte> data, std::uint64_t from, std::uint64_t to);

/// The mapped ring of one instance. Move-only. One thread; other processes may read, and take, meanwhile.
class AuditRing final {
 public:
  /// `takes`: take() will be called.
  static Result<AuditRing> open(const Maps& maps, bool takes);
  AuditRing(AuditRing&& other) noexcept;
  AuditRing& operator=(AuditRing&&) = delete;
  AuditRing(const AuditRing&) = delete;
  AuditRing& operator=(const AuditRing&) = delete;
  ~AuditRing();

  /// What has come since a position, or since what was taken last. The ring stays as it is. What was taken
  /// and written over meanwhile is left out.
  [[nodiscard]] Result<RecordsRead> peek(std::optional<std::uint64_t> from = std::nullopt) const;

  /// Gives the room before a position back to the kernel, unless somebody has.
  void take(std::uint64_t until) const noexcept;

  /// Where the kernel may write up to.
  [[nodiscard]] std::uint64_t taken() const noexcept;
  [[nodiscard]] std::uint64_t unread_bytes() const noexcept;
  [[nodiscard]] std::uint64_t size_bytes() const noexcept { return size_; }

 private:
  AuditRing() = default;
  [[nodiscard]] std::uint64_t written() const noexcept;

  std::uint64_t page_ = 0;  ///< size
  std::uint64_t size_ = 0;
  std::byte* consumer_ = nullptr;        ///< a page with the position of who takes
  const std::byte* producer_ = nullptr;  ///< a page with that of the kernel, then the data twice
};

}  // namespace agentnic::kern
