// SPDX-License-Identifier: Apache-2.0
#include "bulk/tcp_plane.hpp"

#include <fcntl.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "base/file.hpp"

namespace agentnic::bulk {
namespace {

constexpr std::size_t kBuffer = 256 << 10;

std::string cannot_write(int code) { return "write: " + std::generic_category().message(code); }

/// From the page cache to the socket; less than all when the file ends, or cannot be read.
Result<std::size_t> send_file(Channel& channel, int fd, std::uint64_t at, std::size_t bytes) {
  std::size_t done = 0;
  while (done < bytes) {
    auto from = static_cast<off_t>(at + done);
    const ssize_t sent = ::sendfile(channel.fd(), fd, &from, bytes - done);
    if (sent > 0) {
      done += static_cast<std::size_t>(sent);
    } else if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
      ANIC_TRY(channel.wait(false, true));
    } else if (sent < 0 && (errno == EPIPE || errno == ECONNRESET)) {
      return channel.gone("send to");
    } else {
      break;
    }
  }
  return done;
}

}  // namespace

TcpPlane::TcpPlane() : buffer_(std::make_unique_for_overwrite<std::byte[]>(kBuffer)) {
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return;
  pipe_out_.reset(ends[0]);
  pipe_in_.reset(ends[1]);
  ::fcntl(pipe_in_.get(), F_SETPIPE_SZ, kDataMost);  // a smaller one does, too
}

Result<Outcome> TcpPlane::send(Channel& channel, const Range& range, Hasher& hasher, Meter& meter) {
  Outcome outcome;
  for (std::uint64_t at = range.from; at < range.to;) {
    if (channel.readable()) {
      outcome.ending = Ending::Interrupted;
      break;
    }
    const std::size_t bytes = meter.piece(std::min<std::uint64_t>(kDataMost, range.to - at));
    ANIC_TRY(meter.pace(bytes));
    ANIC_TRY(channel.begin_data(bytes));
    if (!ANIC_TRY(send_piece(channel, range.fd, at, bytes, hasher))) {
      channel.end_data();
      outcome.ending = Ending::File;
      outcome.why = "it could not be read to its end: it became shorter meanwhile";
      break;
    }
    channel.end_data();
    at += bytes;
    outcome.bytes += bytes;
    meter.moved(bytes);
  }
  return outcome;
}

Result<bool> TcpPlane::send_piece(Channel& channel, int fd, std::uint64_t at, std::size_t bytes,
                                  Hasher& hasher) {
  bool whole = true;
  while (bytes > 0) {
    const std::size_t size = hasher.counts() ? std::min(bytes, kBuffer) : bytes;
    std::size_t sent = 0;
    if (hasher.counts()) {
      const std::span<std::byte> part(buffer_.get(), size);
      whole = whole && read_at(fd, part, at) == size;
      hasher.add(part);
    }
    if (whole) sent = ANIC_TRY(send_file(channel, fd, at, size));
    whole = sent == size;
    if (!whole) {
      const std::size_t missing = std::min(size - sent, kBuffer);
      std::fill_n(buffer_.get(), missing, std::byte{});
      ANIC_TRY(channel.send_all({buffer_.get(), missing}));
      sent += missing;
    }
    at += sent;
    bytes -= sent;
  }
  return whole;
}

Result<Outcome> TcpPlane::receive(Channel& channel, const Range& range, Hasher& hasher, Meter& meter) {
  Outcome outcome;
  for (std::uint64_t at = range.from; at < range.to;) {
    if (ANIC_TRY(channel.peek()).kind != Kind::Data) {
      outcome.ending = Ending::Interrupted;
      break;
    }
    const std::size_t left = channel.take_data();
    if (left > range.to - at) return fail(Exit::BadInput, channel.peer() + " sends more than the file has");
    at += left;
    ANIC_TRY(receive_piece(channel, range, left, hasher, meter, outcome));
    if (outcome.ending == Ending::File) break;
  }
  return outcome;
}

Status TcpPlane::receive_piece(Channel& channel, const Range& range, std::size_t left, Hasher& hasher,
                               Meter& meter, Outcome& outcome) {
  if (pipe_in_ && range.fd >= 0 && !hasher.counts())
    return splice_piece(channel, range, left, meter, outcome);
  while (left > 0) {
    const std::span<std::byte> room(buffer_.get(), std::min(left, kBuffer));
    const auto part = room.first(ANIC_TRY(channel.receive_some(room)));
    left -= part.size();
    if (outcome.ending == Ending::File) continue;  // the rest of this Data is in the way
    hasher.add(part);
    meter.moved(part.size());
    if (const int code = range.fd < 0 ? 0 : write_at(range.fd, part, range.from + outcome.bytes); code != 0) {
      outcome.ending = Ending::File;
      outcome.why = cannot_write(code);
    } else {
      outcome.bytes += part.size();
    }
  }
  return {};
}

Status TcpPlane::splice_piece(Channel& channel, const Range& range, std::size_t left, Meter& meter,
                              Outcome& outcome) {
  while (left > 0) {
    const ssize_t got =
        ::splice(channel.fd(), nullptr, pipe_in_.get(), nullptr, left, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) return channel.gone("receive from");
    if (got < 0) {
      ANIC_TRY(channel.wait(true, false));
      continue;
    }
    left -= static_cast<std::size_t>(got);
    for (auto inside = static_cast<std::size_t>(got); inside > 0;) {
      auto to = static_cast<loff_t>(range.from + outcome.bytes);
      const ssize_t put = ::splice(pipe_out_.get(), nullptr, range.fd, &to, inside, SPLICE_F_MOVE);
      if (put < 0 && errno == EINTR) continue;
      if (put <= 0) {
        // What is in the pipe, and in the way, goes with it; another pipe is not made: buffers do.
        outcome.ending = Ending::File;
        outcome.why = cannot_write(put < 0 ? errno : EIO);
        pipe_in_.reset();
        pipe_out_.reset();
        Hasher none(Digest::None);
        return receive_piece(channel, {}, left, none, meter, outcome);
      }
      inside -= static_cast<std::size_t>(put);
      outcome.bytes += static_cast<std::uint64_t>(put);
    }
    meter.moved(static_cast<std::size_t>(got));
  }
  return {};
}

}  // namespace agentnic::bulk
