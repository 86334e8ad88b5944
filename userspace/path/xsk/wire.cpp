// SPDX-License-Identifier: Apache-2.0
#include "path/xsk/wire.hpp"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <type_traits>

namespace agentnic::path {
namespace {

constexpr timeval kPatience = {.tv_sec = 10, .tv_usec = 0};
constexpr std::size_t kPerQueue = 3;
constexpr std::size_t kDescriptorsMax = 1 + kPerQueue * kXskQueuesMax;
static_assert(kDescriptorsMax <= 253);  // SCM_MAX_FD of the kernel

template <std::size_t kSize>
void put(char (&to)[kSize], const std::string& text) {
  std::memcpy(to, text.data(), std::min(text.size(), kSize - 1));
}

template <std::size_t kSize>
std::string text_of(const char (&from)[kSize]) {
  return {from, ::strnlen(from, kSize)};
}

template <typename Message>
std::span<const std::byte> bytes_of(const Message& message) {
  static_assert(std::has_unique_object_representations_v<Message>);
  return std::as_bytes(std::span(&message, 1));
}

Status send(int fd, std::span<const std::byte> message, std::span<const int> descriptors) {
  alignas(cmsghdr) char control[CMSG_SPACE(kDescriptorsMax * sizeof(int))] = {};
  iovec part{const_cast<std::byte*>(message.data()), message.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (!descriptors.empty()) {
    header.msg_control = control;
    header.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* first = CMSG_FIRSTHDR(&header);
    first->cmsg_level = SOL_SOCKET;
    first->cmsg_type = SCM_RIGHTS;
    first->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(first), descriptors.data(), descriptors.size_bytes());
  }
  if (::sendmsg(fd, &header, MSG_NOSIGNAL) != static_cast<ssize_t>(message.size()))
    return fail_errno(errno, "send a message of AF_XDP sockets");
  return {};
}

/// All descriptors that came are owned, whatever else is wrong.
Result<std::vector<UniqueFd>> receive(int fd, XskAnswer& answer) {
  alignas(cmsghdr) char control[CMSG_SPACE(kDescriptorsMax * sizeof(int))] = {};
  iovec part{&answer, sizeof(answer)};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof(control);
  ssize_t got = -1;
  do {
    got = ::recvmsg(fd, &header, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  const int code = errno;
  std::vector<UniqueFd> descriptors;
  for (cmsghdr* one = got < 0 ? nullptr : CMSG_FIRSTHDR(&header); one != nullptr;
       one = CMSG_NXTHDR(&header, one)) {
    if (one->cmsg_level != SOL_SOCKET || one->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (one->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int descriptor = -1;
      std::memcpy(&descriptor, CMSG_DATA(one) + i * sizeof(int), sizeof(int));
      descriptors.emplace_back(descriptor);
    }
  }
  if (got < 0 && (code == EAGAIN || code == EWOULDBLOCK))
    return fail(Exit::Failed, fmt::format("no answer within {} s", kPatience.tv_sec));
  if (got < 0) return fail_errno(code, "receive the answer");
  if (got == 0) return fail(Exit::Failed, "it ended before it answered");
  if (got != sizeof(answer) || answer.version != kXskWireVersion)
    return fail(Exit::Unsupported,
                fmt::format("its answer has {} bytes, version {}; this library speaks version {}", got,
                            answer.version, kXskWireVersion));
  if ((header.msg_flags & MSG_CTRUNC) != 0)
    return fail(Exit::Failed, "descriptors did not come", "ulimit -n");
  return descriptors;
}

Result<UniqueFd> connect_to(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path))
    return fail(Exit::BadInput, fmt::format("the path {} is too long for a unix socket", path));
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno(errno, "make a unix socket");
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof(kPatience));
  ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &kPatience, sizeof(kPatience));
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
    return fail_errno(errno, fmt::format("ask {} for AF_XDP sockets", path),
                      errno == ENOENT || errno == ECONNREFUSED ? "is agentnic-load serve running?" : "");
  return fd;
}

Result<XskGrant> grant_of(const XskAnswer& answer, const XskShape& shape, std::vector<UniqueFd> descriptors) {
  if (answer.queues == 0 || answer.queues > kXskQueuesMax ||
      descriptors.size() != 1 + kPerQueue * answer.queues)
    return fail(Exit::Failed,
                fmt::format("{} queues came with {} descriptors", answer.queues, descriptors.size()));
  XskGrant made;
  made.ifname = text_of(answer.ifname);
  made.ifindex = answer.ifindex;
  made.mtu = answer.mtu;
  made.shape = shape;
  made.huge_pages = answer.huge_pages != 0;
  made.memory = std::move(descriptors[0]);
  for (std::size_t i = 0; i < answer.queues; ++i) {
    XskQueueGrant one;
    one.queue = answer.queue[i];
    one.zero_copy = answer.zero_copy[i] != 0;
    const std::size_t first = 1 + kPerQueue * i;
    one.socket = std::move(descriptors[first]);
    one.transmit = std::move(descriptors[first + 1]);
    one.page = std::move(descriptors[first + 2]);
    made.queues.push_back(std::move(one));
  }
  return made;
}

}  // namespace

std::string xsk_socket_path(const std::string& ifname) { return "/run/agentnic/xsk-" + ifname; }

Result<XskClient> connect_xsk(const std::string& path, const XskRequest& request) {
  XskAsk ask;
  if (request.service.empty() || request.service.size() >= sizeof(ask.service))
    return fail(Exit::BadInput, fmt::format("no service can be called \"{}\"", request.service));
  ANIC_TRY(check_shape(request.shape, request.queues));
  ask.first_queue = request.first_queue;
  ask.queues = request.queues;
  ask.frames = request.shape.frames;
  ask.frame_bytes = request.shape.frame_bytes;
  ask.bind = static_cast<std::uint32_t>(request.shape.bind);
  ask.multi_buffer = request.shape.multi_buffer ? 1 : 0;
  ask.busy_poll_us = request.shape.busy_poll_us;
  ask.busy_budget = request.shape.busy_budget;
  put(ask.service, request.service);
  const UniqueFd connection = ANIC_TRY(connect_to(path));
  ANIC_TRY(send(connection.get(), bytes_of(ask), {}));
  return XskClient::adopt(ANIC_TRY(receive_grant(connection.get(), path, request.shape)));
}

Result<XskGrant> receive_grant(int connection_fd, const std::string& path, const XskShape& shape) {
  XskAnswer answer;
  auto descriptors = receive(connection_fd, answer);
  if (!descriptors) {
    descriptors.error().what = fmt::format("ask {} for AF_XDP sockets: {}", path, descriptors.error().what);
    return fail(std::move(descriptors.error()));
  }
  if (answer.exit != 0)
    return fail(answer.exit <= 3 ? static_cast<Exit>(answer.exit) : Exit::Failed, text_of(answer.what),
                text_of(answer.hint));
  return grant_of(answer, shape, std::move(*descriptors));
}

Result<XskRequest> read_ask(std::span<const std::byte> message) {
  XskAsk ask;
  std::uint32_t version = 0;
  if (message.size() >= sizeof(version)) std::memcpy(&version, message.data(), sizeof(version));
  if (message.size() != sizeof(ask) || version != kXskWireVersion)
    return fail(Exit::BadInput, fmt::format("a message of {} bytes, version {}: version {} has {}",
                                            message.size(), version, kXskWireVersion, sizeof(ask)));
  std::memcpy(&ask, message.data(), sizeof(ask));
  const std::string service = text_of(ask.service);
  // As policies name services: what comes from anybody goes into the log.
  const bool is_name = std::ranges::all_of(service, [](char one) {
    return (one >= 'a' && one <= 'z') || (one >= '0' && one <= '9') || one == '-' || one == '_' || one == '.';
  });
  if (service.empty() || service.size() == sizeof(ask.service) || !is_name)
    return fail(Exit::BadInput, "what is asked for is not the name of a service");
  XskRequest request{.service = service,
                     .first_queue = ask.first_queue,
                     .queues = ask.queues,
                     .shape = {.frames = ask.frames,
                               .frame_bytes = ask.frame_bytes,
                               .bind = static_cast<XskBind>(ask.bind),
                               .multi_buffer = ask.multi_buffer != 0,
                               .busy_poll_us = ask.busy_poll_us,
                               .busy_budget = ask.busy_budget}};
  ANIC_TRY(check_shape(request.shape, request.queues));
  return request;
}

Status send_grant(int connection_fd, const XskGrant& grant) {
  XskAnswer answer;
  answer.ifindex = grant.ifindex;
  answer.mtu = grant.mtu;
  answer.huge_pages = grant.huge_pages ? 1 : 0;
  answer.queues = static_cast<std::uint32_t>(grant.queues.size());
  put(answer.ifname, grant.ifname);
  std::vector<int> descriptors = {grant.memory.get()};
  for (std::size_t i = 0; i < grant.queues.size(); ++i) {
    answer.queue[i] = grant.queues[i].queue;
    answer.zero_copy[i] = grant.queues[i].zero_copy ? 1 : 0;
    for (const UniqueFd* fd : {&grant.queues[i].socket, &grant.queues[i].transmit, &grant.queues[i].page})
      descriptors.push_back(fd->get());
  }
  return send(connection_fd, bytes_of(answer), descriptors);
}

Status send_refusal(int connection_fd, const Error& error) {
  XskAnswer answer;
  answer.exit = static_cast<std::uint32_t>(error.exit);
  put(answer.what, error.what);
  put(answer.hint, error.hint);
  return send(connection_fd, bytes_of(answer), {});
}

}  // namespace agentnic::path
