// SPDX-License-Identifier: Apache-2.0
#include "path/sockets/options.hpp"

#include <fmt/format.h>
#include <sys/socket.h>

#include <cerrno>

namespace agentnic::path {
namespace {

Status set(int fd, int option, int value, const std::string& what) {
  if (::setsockopt(fd, SOL_SOCKET, option, &value, sizeof(value)) != 0)
    return fail_errno(errno, what, errno == EPERM ? "this takes CAP_NET_ADMIN: run as root" : "");
  return {};
}

}  // namespace

Status set_busy_poll(int fd, const BusyPoll& busy_poll) {
  if (busy_poll.us == 0) return {};
  const std::string what = fmt::format("turn preferred busy polling on, for {} us", busy_poll.us);
  ANIC_TRY(set(fd, SO_PREFER_BUSY_POLL, 1, what));
  ANIC_TRY(set(fd, SO_BUSY_POLL, static_cast<int>(busy_poll.us), what));
  return set(fd, SO_BUSY_POLL_BUDGET, busy_poll.budget, what);
}

Status set_options(int fd, const SocketOptions& options) {
  if (options.buffer_bytes != 0) {
    ANIC_TRY(set(fd, SO_RCVBUF, options.buffer_bytes, "set the size of a receive buffer"));
    ANIC_TRY(set(fd, SO_SNDBUF, options.buffer_bytes, "set the size of a send buffer"));
  }
  if (options.reuse_port) ANIC_TRY(set(fd, SO_REUSEPORT, 1, "share a port"));
  if (options.incoming_cpu)
    ANIC_TRY(set(fd, SO_INCOMING_CPU, *options.incoming_cpu, "prefer packets of a CPU"));
  return set_busy_poll(fd, options.busy_poll);
}

}  // namespace agentnic::path
