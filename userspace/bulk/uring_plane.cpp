// SPDX-License-Identifier: Apache-2.0
#include "bulk/uring_plane.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "base/clock.hpp"
#include "base/stop.hpp"

namespace agentnic::bulk {
namespace {

using path::UringPump;
using Op = UringPump::Op;

constexpr std::uint32_t kBuffers = 4;
constexpr std::size_t kBufferBytes = 256 << 10;
static_assert(kBufferBytes <= kDataMost);

/// To be asked for once more.
bool is_passing(int result) { return result == -EINTR || result == -EAGAIN || result == -ENOBUFS; }

/// The buffers that nothing is in, and how long nothing has been done; ends what is under way when it goes.
class Work {
 public:
  explicit Work(UringPump& pump) : pump_(pump) {
    for (std::uint32_t i = 0; i < pump.buffers(); ++i) free_.push_back(i);
  }
  Work(const Work&) = delete;
  Work& operator=(const Work&) = delete;
  ~Work() { pump_.cancel(); }

  [[nodiscard]] bool has_free() const { return !free_.empty(); }
  std::uint32_t take() {
    const std::uint32_t number = free_.back();
    free_.pop_back();
    return number;
  }
  void give_back(std::uint32_t number) { free_.push_back(number); }
  /// Something else was waited for.
  void touch() { moved_ns_ = monotonic_ns(); }

  template <typename Handle>
  Status wait(const Channel& channel, Handle&& handle) {
    if (stop_requested()) return fail(Exit::Failed, "stopped");
    Status status;
    pump_.wait([&](const UringPump::Done& done) {
      if (done.result > 0) touch();
      if (const Status handled = handle(done); !handled) status = handled;
    });
    if (status &&
        monotonic_ns() - moved_ns_ > static_cast<std::uint64_t>(channel.timeout_ms()) * 1'000'000ULL)
      return fail(Exit::Failed,
                  fmt::format("wait for {}: nothing for {} ms", channel.peer(), channel.timeout_ms()));
    return status;
  }

 private:
  UringPump& pump_;
  std::vector<std::uint32_t> free_;
  std::uint64_t moved_ns_ = monotonic_ns();
};

}  // namespace

/// A range on its way from the file to the peer. Buffers are read ahead; how much of one is sent in one go,
/// as a Data, is asked for when it goes, so that a rate that changes is kept to.
class UringPlane::Sending {
 public:
  Sending(UringPump& pump, Channel& channel, const Range& range, Hasher& hasher, Meter& meter)
      : pump_(pump), channel_(channel), range_(range), hasher_(hasher), meter_(meter), at_(range.from) {}

  Result<Outcome> run() {
    while ((at_ < range_.to && outcome_.ending == Ending::Whole) || !pieces_.empty()) {
      read_ahead();
      ANIC_TRY(send_next());
      if (pump_.under_way() == 0) continue;
      if (!sending_) work_.touch();  // a file that is slow is no fault of the peer's
      ANIC_TRY(work_.wait(channel_, [&](const UringPump::Done& done) { return handle(done); }));
    }
    return outcome_;
  }

 private:
  struct Piece {
    std::uint32_t buffer = 0;
    std::uint64_t at = 0;  ///< in the file
    std::size_t bytes = 0;
    std::size_t read = 0;
    std::size_t sent = 0;
    std::size_t announced = 0;  ///< to here
    bool broken = false;
  };

  void read_ahead() {
    while (outcome_.ending == Ending::Whole && at_ < range_.to && work_.has_free()) {
      const std::size_t bytes = std::min<std::uint64_t>(kBufferBytes, range_.to - at_);
      pieces_.push_back({.buffer = work_.take(), .at = at_, .bytes = bytes});
      at_ += bytes;
      read(pieces_.back());
    }
  }

  void read(const Piece& piece) {
    pump_.read(range_.fd, piece.at + piece.read, piece.buffer,
               pump_.buffer(piece.buffer).subspan(piece.read, piece.bytes - piece.read));
  }

  void send(const Piece& piece) {
    pump_.send(channel_.fd(), piece.buffer,
               pump_.buffer(piece.buffer).subspan(piece.sent, piece.announced - piece.sent));
  }

  /// Begins with the first piece once it has been read, and forgets those that will not be sent.
  Status send_next() {
    if (sending_ || pieces_.empty()) return {};
    Piece& first = pieces_.front();
    if (!first.broken && first.read < first.bytes) return {};
    if (outcome_.ending == Ending::Whole && first.broken) {
      outcome_.ending = Ending::File;
      outcome_.why = "it could not be read to its end: it became shorter meanwhile";
    } else if (outcome_.ending == Ending::Whole && channel_.readable()) {
      outcome_.ending = Ending::Interrupted;
    }
    if (outcome_.ending != Ending::Whole) {
      work_.give_back(first.buffer);
      pieces_.pop_front();
      return {};
    }
    const std::size_t bytes = meter_.piece(first.bytes - first.sent);
    ANIC_TRY(meter_.pace(bytes));
    hasher_.add(pump_.buffer(first.buffer).subspan(first.sent, bytes));
    ANIC_TRY(channel_.begin_data(bytes));
    work_.touch();
    first.announced = first.sent + bytes;
    sending_ = true;
    send(first);
    return {};
  }

  Status handle(const UringPump::Done& done) {
    const auto piece = std::ranges::find(pieces_, done.buffer, &Piece::buffer);
    if (done.op == Op::Read) {
      if (done.result > 0) piece->read += static_cast<std::size_t>(done.result);
      if (done.result <= 0 && !is_passing(done.result)) {
        piece->broken = true;
      } else if (piece->read < piece->bytes) {
        read(*piece);
      }
      return {};
    }
    if (done.result <= 0 && !is_passing(done.result)) return channel_.gone("send to");
    const std::size_t more = done.result > 0 ? static_cast<std::size_t>(done.result) : 0;
    piece->sent += more;
    outcome_.bytes += more;
    meter_.moved(more);
    if (piece->sent < piece->announced) {
      send(*piece);
      return {};
    }
    channel_.end_data();
    if (piece->sent == piece->bytes) {
      work_.give_back(piece->buffer);
      pieces_.pop_front();  // sends are in order
    }
    sending_ = false;
    return {};
  }

  UringPump& pump_;
  Work work_{pump_};
  Channel& channel_;
  const Range& range_;
  Hasher& hasher_;
  Meter& meter_;
  Outcome outcome_;
  std::uint64_t at_;  ///< to read from next
  std::deque<Piece> pieces_;
  bool sending_ = false;
};

/// A range on its way from the peer to the file.
class UringPlane::Receiving {
 public:
  Receiving(UringPump& pump, Channel& channel, const Range& range, Hasher& hasher, Meter& meter)
      : pump_(pump),
        channel_(channel),
        range_(range),
        hasher_(hasher),
        meter_(meter),
        pieces_(pump.buffers()) {}

  Result<Outcome> run() {
    const Status received = receive_all();
    if (!received) {  // what has come is kept for the next session
      while (pump_.under_way() > (receiving_ ? 1U : 0U))
        pump_.wait([&](const UringPump::Done& done) { static_cast<void>(handle(done)); });
      return fail(received.error());
    }
    outcome_.bytes = at_ - range_.from;
    if (outcome_.ending == Ending::File) {
      outcome_.bytes = failed_at_ - range_.from;
      // What was written behind it would be taken for content that follows.
      static_cast<void>(::ftruncate(range_.fd, static_cast<off_t>(failed_at_)));
    }
    return outcome_;
  }

 private:
  struct Piece {
    std::uint64_t at = 0;  ///< in the file
    std::size_t bytes = 0;
    std::size_t written = 0;
  };

  Status receive_all() {
    while (true) {
      // What the peer says between two Data is looked at when all before is in the file, unless it is there.
      if (in_data_ == 0 && wants_more() && (pump_.under_way() == 0 || channel_.readable()))
        ANIC_TRY(begin_data());
      if (in_data_ > 0 && !receiving_ && work_.has_free()) receive();
      if (!receiving_) work_.touch();  // a disk that is slow is no fault of the peer's
      if (pump_.under_way() > 0) {
        ANIC_TRY(work_.wait(channel_, [&](const UringPump::Done& done) { return handle(done); }));
      } else if (in_data_ == 0 && !wants_more()) {
        return {};
      }
    }
  }

  [[nodiscard]] bool wants_more() const { return outcome_.ending == Ending::Whole && at_ < range_.to; }

  Status begin_data() {
    const Kind said = ANIC_TRY(channel_.peek()).kind;
    work_.touch();
    if (said != Kind::Data) {
      outcome_.ending = Ending::Interrupted;
      return {};
    }
    in_data_ = channel_.take_data();
    if (in_data_ > range_.to - at_)
      return fail(Exit::BadInput, channel_.peer() + " sends more than the file has");
    return {};
  }

  void receive() {
    const std::uint32_t number = work_.take();
    pump_.receive(channel_.fd(), number, pump_.buffer(number).first(std::min(in_data_, kBufferBytes)));
    receiving_ = true;
  }

  void write(std::uint32_t number) {
    const Piece& piece = pieces_[number];
    pump_.write(range_.fd, piece.at + piece.written, number,
                pump_.buffer(number).subspan(piece.written, piece.bytes - piece.written));
  }

  Status handle(const UringPump::Done& done) {
    if (done.op == Op::Receive) return received(done);
    Piece& piece = pieces_[done.buffer];
    if (done.result > 0) piece.written += static_cast<std::size_t>(done.result);
    if (done.result <= 0 && !is_passing(done.result)) {
      // The rest of this Data is in the way.
      if (outcome_.ending != Ending::File || piece.at < failed_at_) {
        failed_at_ = piece.at + piece.written;
        outcome_.why = "write: " + std::generic_category().message(done.result < 0 ? -done.result : EIO);
      }
      outcome_.ending = Ending::File;
    } else if (piece.written < piece.bytes) {
      write(done.buffer);
      return {};
    }
    work_.give_back(done.buffer);
    return {};
  }

  Status received(const UringPump::Done& done) {
    receiving_ = false;
    if (done.result <= 0) {
      work_.give_back(done.buffer);
      if (is_passing(done.result)) return {};
      return channel_.gone("receive from");
    }
    const auto bytes = static_cast<std::size_t>(done.result);
    in_data_ -= bytes;
    if (outcome_.ending == Ending::File) {
      work_.give_back(done.buffer);
      return {};
    }
    hasher_.add(pump_.buffer(done.buffer).first(bytes));
    meter_.moved(bytes);
    pieces_[done.buffer] = {.at = at_, .bytes = bytes};
    at_ += bytes;
    if (range_.fd >= 0) {
      write(done.buffer);
    } else {
      work_.give_back(done.buffer);
    }
    return {};
  }

  UringPump& pump_;
  Work work_{pump_};
  Channel& channel_;
  const Range& range_;
  Hasher& hasher_;
  Meter& meter_;
  Outcome outcome_;
  std::uint64_t at_ = range_.from;  ///< to write to next
  std::uint64_t failed_at_ = 0;     ///< when a write did: where the file ends
  std::size_t in_data_ = 0;         ///< that is still to come of the Data that was announced
  std::vector<Piece> pieces_;       ///< by the number of the buffer
  bool receiving_ = false;
};

Result<std::unique_ptr<UringPlane>> UringPlane::open() {
  return std::unique_ptr<UringPlane>(new UringPlane(ANIC_TRY(UringPump::open(kBuffers, kBufferBytes))));
}

Result<Outcome> UringPlane::send(Channel& channel, const Range& range, Hasher& hasher, Meter& meter) {
  return Sending(pump_, channel, range, hasher, meter).run();
}

Result<Outcome> UringPlane::receive(Channel& channel, const Range& range, Hasher& hasher, Meter& meter) {
  return Receiving(pump_, channel, range, hasher, meter).run();
}

}  // namespace agentnic::bulk
