// SPDX-License-Identifier: Apache-2.0
#include "path/sockets/poller.hpp"

#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "path/tick.hpp"

namespace agentnic::path {
namespace {

// As linux/eventpoll.h has them since Linux 6.9; Debian 12's headers are older.
struct BusyPollParams {
  std::uint32_t busy_poll_usecs;
  std::uint16_t busy_poll_budget;
  std::uint8_t prefer_busy_poll;
  std::uint8_t pad;
};
static_assert(sizeof(BusyPollParams) == 8);
constexpr unsigned long kSetParams = _IOW(0x8A, 0x01, BusyPollParams);

}  // namespace

Result<Poller> Poller::open(const BusyPoll& busy_poll) {
  UniqueFd fd(::epoll_create1(EPOLL_CLOEXEC));
  if (!fd) return fail_errno(errno, "make an epoll instance");
  Poller made(std::move(fd), ANIC_TRY(make_tick()));
  ANIC_TRY(made.add(made.tick_.get(), EPOLLIN));
  if (busy_poll.us == 0) return made;
  const BusyPollParams params{
      .busy_poll_usecs = busy_poll.us, .busy_poll_budget = busy_poll.budget, .prefer_busy_poll = 1, .pad = 0};
  if (::ioctl(made.fd_.get(), kSetParams, &params) == 0) return made;
  if (errno == ENOTTY || errno == EINVAL)
    return fail(Exit::Unsupported, "busy polling by epoll: this kernel has none", "it takes Linux 6.9");
  return fail_errno(errno, "turn busy polling by epoll on",
                    errno == EPERM ? "more than 64 packets a poll take CAP_NET_ADMIN" : "");
}

Status Poller::add(int fd, std::uint32_t events) {
  epoll_event event{.events = events, .data = {.fd = fd}};
  if (::epoll_ctl(fd_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return fail_errno(errno, "wait for a socket");
  return {};
}

void Poller::change(int fd, std::uint32_t events) noexcept {
  epoll_event event{.events = events, .data = {.fd = fd}};
  ::epoll_ctl(fd_.get(), EPOLL_CTL_MOD, fd, &event);
}

void Poller::remove(int fd) noexcept { ::epoll_ctl(fd_.get(), EPOLL_CTL_DEL, fd, nullptr); }

std::span<const epoll_event> Poller::wait(std::span<epoll_event> list, Wait wait) noexcept {
  const int count =
      ::epoll_wait(fd_.get(), list.data(), static_cast<int>(list.size()), wait == Wait::Block ? -1 : 0);
  list = list.first(count > 0 ? static_cast<std::size_t>(count) : 0);
  const auto tick = std::ranges::find(list, tick_.get(), [](const epoll_event& one) { return one.data.fd; });
  if (tick == list.end()) return list;
  take_tick(tick_);
  std::swap(*tick, list.back());
  return list.first(list.size() - 1);
}

void Poller::wait_ready(std::uint64_t timeout_ns) const noexcept {
  wait_for_events(fd_.get(), POLLIN, timeout_ns);
}

}  // namespace agentnic::path
