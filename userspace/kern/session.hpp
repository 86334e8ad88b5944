// SPDX-License-Identifier: Apache-2.0
#pragma once

/// One session with the guardian: a ring to put proposals in, a program that judges them, a page with the
/// answers.

#include <cstdint>
#include <memory>
#include <optional>

#include "abi/observe.h"
#include "base/result.hpp"
#include "base/unique_fd.hpp"
#include "kern/bpffs.hpp"
#include "kern/guardian.hpp"
#include "kern/maps.hpp"

struct session_bpf;
struct user_ring_buffer;

namespace agentnic::kern {

/// Owns a session; closes it when it goes, as far as that can be done. Move-only. One thread.
class Session final {
 public:
  /// `maps`: the pinned ones of this instance.
  static Result<Session> open(const PinDir& dir, const Maps& maps, const SessionRequest& request);
  Session(Session&& other) noexcept;
  Session& operator=(Session&&) = delete;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session();

  [[nodiscard]] std::uint64_t id() const noexcept { return id_; }

  /// Puts a proposal in the ring; the next drain() judges it. Its cookie, not 0, tells its answer from
  /// others.
  [[nodiscard]] Status propose(const anic_proposal& proposal) const;

  /// Has the guardian judge what is in the ring, ANIC_DRAIN_MAX proposals at most, and is the heartbeat. How
  /// many were answered; nothing: the session is over. `observe`: has the observation written anew, too.
  [[nodiscard]] Result<std::optional<int>> drain(bool observe = false) const;

  /// The observation as the last drain wrote it; valid until the next one.
  [[nodiscard]] const anic_observation& observation() const { return page_->observation; }

  /// The answer with this cookie, if it is among the last ANIC_DRAIN_MAX.
  [[nodiscard]] std::optional<anic_answer> answer(std::uint64_t cookie) const;

  /// What the guardian knows of it; nothing: it is over.
  [[nodiscard]] Result<std::optional<anic_session>> look(const Maps& maps) const;

  /// Gives back what the session changed. False: it was over.
  Result<bool> close();

  /// Leaves it open for the guardian to end, when its heartbeat is missed.
  void abandon() noexcept { id_ = 0; }

  /// For whoever hands them to another process; borrowed.
  [[nodiscard]] int ring_fd() const noexcept;
  [[nodiscard]] int page_fd() const noexcept;
  [[nodiscard]] int drain_fd() const noexcept;

 private:
  struct Destroy {
    void operator()(session_bpf* skeleton) const noexcept;
    void operator()(user_ring_buffer* ring) const noexcept;
    void operator()(const anic_page* page) const noexcept;
  };

  Session() = default;
  [[nodiscard]] Status load(const Maps& maps);
  [[nodiscard]] Status map_page();

  std::uint64_t id_ = 0;  ///< 0: closed
  std::uint32_t slot_ = 0;
  UniqueFd close_program_;
  std::unique_ptr<session_bpf, Destroy> skeleton_;
  std::unique_ptr<user_ring_buffer, Destroy> ring_;
  std::unique_ptr<const anic_page, Destroy> page_;
};

}  // namespace agentnic::kern
