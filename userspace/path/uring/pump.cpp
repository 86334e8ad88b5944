// SPDX-License-Identifier: Apache-2.0
#include "path/uring/pump.hpp"

#include <sys/socket.h>

#include <utility>

namespace agentnic::path {

Result<UringPump> UringPump::open(std::uint32_t buffers, std::size_t bytes) {
  Mapping memory = ANIC_TRY(Mapping::anonymous(buffers * bytes, "buffers of an io_uring"));
  Ring ring = ANIC_TRY(Ring::open({.submissions = 2 * buffers, .completions = 4 * buffers}));
  ANIC_TRY(ring.start());
  return UringPump(std::move(memory), std::move(ring), buffers, bytes);
}

io_uring_sqe* UringPump::next(Op op, std::uint32_t number) {
  ++under_way_;
  return ring_.next(static_cast<std::uint64_t>(op) | (static_cast<std::uint64_t>(number) << 8U));
}

void UringPump::read(int file, std::uint64_t offset, std::uint32_t number, std::span<std::byte> part) {
  io_uring_prep_read(next(Op::Read, number), file, part.data(), static_cast<unsigned>(part.size()), offset);
}

void UringPump::write(int file, std::uint64_t offset, std::uint32_t number, std::span<const std::byte> part) {
  io_uring_prep_write(next(Op::Write, number), file, part.data(), static_cast<unsigned>(part.size()), offset);
}

void UringPump::send(int socket, std::uint32_t number, std::span<const std::byte> part) {
  io_uring_prep_send(next(Op::Send, number), socket, part.data(), part.size(), MSG_NOSIGNAL);
}

void UringPump::receive(int socket, std::uint32_t number, std::span<std::byte> part) {
  io_uring_prep_recv(next(Op::Receive, number), socket, part.data(), part.size(), 0);
}

void UringPump::cancel() {
  while (under_way_ > 0) {
    ring_.cancel_all();
    wait([](const Done&) {});
  }
}

}  // namespace agentnic::path
