// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Waiting for many sockets: epoll(7), level-triggered.

#include <sys/epoll.h>

#include <cstdint>
#include <span>

#include "base/result.hpp"
#include "base/unique_fd.hpp"
#include "path/sockets/options.hpp"
#include "path/wait.hpp"

namespace agentnic::path {

/// One thread.
class Poller final {
 public:
  /// `busy_poll`: of epoll itself, for the devices of all its sockets (EPIOCSPARAMS, Linux 6.9; Unsupported
  /// before). All must be of one device's queue for it to work.
  static Result<Poller> open(const BusyPoll& busy_poll = {});

  /// Events come with this descriptor until it is closed. `events`: EPOLLIN, EPOLLOUT.
  Status add(int fd, std::uint32_t events);
  void change(int fd, std::uint32_t events) noexcept;
  void remove(int fd) noexcept;
  /// Those that there are, in `list`; none after kStopCheckMs (base/stop.hpp), or a signal. Wait::Spin: does
  /// not wait.
  std::span<const epoll_event> wait(std::span<epoll_event> list, Wait wait) noexcept;
  /// Until there are some, for at most `timeout_ns`, or less, without looking at which.
  void wait_ready(std::uint64_t timeout_ns) const noexcept;

 private:
  Poller(UniqueFd fd, UniqueFd tick) noexcept : fd_(std::move(fd)), tick_(std::move(tick)) {}
  UniqueFd fd_;
  UniqueFd tick_;
};

}  // namespace agentnic::path
