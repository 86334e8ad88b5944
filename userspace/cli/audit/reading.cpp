// SPDX-License-Identifier: Apache-2.0
#include "cli/audit/reading.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "audit/log.hpp"
#include "base/unique_fd.hpp"

namespace agentnic::cli {
namespace {

constexpr int kAnswerSeconds = 30;

}  // namespace

std::string socket_path(int dir_fd) { return fmt::format("/proc/self/fd/{}/{}", dir_fd, audit::kSocketPart); }

Result<bool> record_reading(const std::string& dir, anic_record_kind kind, std::uint32_t tenant,
                            const std::string& reason) {
  if (!audit::is_recorded(dir)) return false;
  const std::string what = "have this read of " + dir + " recorded";
  const UniqueFd folder(::open(dir.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  const UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!folder || !fd) return fail_errno(errno, what);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = socket_path(folder.get());
  std::memcpy(address.sun_path, path.data(), std::min(path.size(), sizeof(address.sun_path) - 1));
  const timeval patience{.tv_sec = kAnswerSeconds, .tv_usec = 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
    return fail_errno(errno, what);
  ReadRequest request{.kind = static_cast<std::uint32_t>(kind), .tenant = tenant};
  std::memcpy(request.reason, reason.data(), std::min(reason.size(), sizeof(request.reason)));
  ReadAnswer answer;
  if (::send(fd.get(), &request, sizeof(request), MSG_NOSIGNAL) != sizeof(request))
    return fail_errno(errno, what);
  const ssize_t got = ::recv(fd.get(), &answer, sizeof(answer), 0);
  if (got < 0) return fail_errno(errno, what);
  if (got != sizeof(answer)) return fail(Exit::Failed, what + ": the recorder ended");
  const std::string why_not(answer.why_not, ::strnlen(answer.why_not, sizeof(answer.why_not)));
  if (!why_not.empty()) return fail(Exit::Failed, fmt::format("{}: {}", what, why_not));
  return true;
}

}  // namespace agentnic::cli
