// SPDX-License-Identifier: Apache-2.0
#include "path/uring/tcp_echo.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/stop.hpp"

namespace agentnic::path {
namespace {

constexpr std::uint16_t kReceiveGroup = 0;
constexpr std::size_t kBundles = 32;
constexpr std::uint32_t kBundlePieces = 64;
constexpr int kSendFlags = MSG_NOSIGNAL;

/// A ring may have as many files as its process: the soft limit goes up to the hard one for it.
unsigned places(unsigned wanted) noexcept {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return wanted;
  if (files.rlim_cur < wanted) {
    files.rlim_cur = std::min<rlim_t>(wanted, files.rlim_max);
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  return static_cast<unsigned>(std::min<rlim_t>(wanted, files.rlim_cur));
}

bool is_later(int code) noexcept { return code == -EAGAIN || code == -EINTR || code == -ENOBUFS; }

}  // namespace

UringEcho::UringEcho(TcpListener listener, Ring ring, ReceiveBuffers buffers, const UringEchoOptions& options)
    : listener_(std::move(listener)),
      options_(options),
      ring_(std::move(ring)),
      buffers_(std::move(buffers)),
      by_slot_(options.connections) {}

Result<UringEcho> UringEcho::open(TcpListener listener, const UringEchoOptions& wanted) {
  UringEchoOptions options = wanted;
  options.connections = places(wanted.connections);
  Ring ring = ANIC_TRY(Ring::open({.files = options.connections, .busy_poll = options.busy_poll}));
  ReceiveBuffers buffers =
      ANIC_TRY(ReceiveBuffers::open(ring, kReceiveGroup, options.buffers, options.buffer_bytes));
  UringEcho made(std::move(listener), std::move(ring), std::move(buffers), options);
  if ((made.ring_.get()->features & IORING_FEAT_RECVSEND_BUNDLE) != 0) {  // Linux 6.10
    for (std::size_t i = 0; i < kBundles; ++i) {
      made.bundles_.push_back(
          ANIC_TRY(BufferRing::open(made.ring_, static_cast<std::uint16_t>(i + 1), kBundlePieces)));
      made.free_bundles_.push_back(i);
    }
  }
  return made;
}

Result<TcpEchoCounters> UringEcho::run(Wait wait, const std::stop_token& stop) {
  ANIC_TRY(ring_.start());
  while (!stop.stop_requested() && !stop_requested()) {
    if (!accepting_ && open_ < options_.connections) arm_accept();
    // Who waits for a buffer that has come back is not kept waiting.
    ring_.submit(ready_.empty() ? wait : Wait::Spin, std::exchange(at_once_, 0));
    ring_.reap([this](const io_uring_cqe& done) { handle(done); });
    for (const std::uint32_t slot : ready_) advance(slot);
    ready_.clear();
    if (buffers_.all_taken()) continue;
    buffers_.publish();
    for (const std::uint32_t slot : starved_) {
      if (by_slot_[slot]) queue(slot);
    }
    starved_.clear();
  }
  ring_.cancel_all();  // no memory of ours is read or written from here on
  listener_.end();
  more_.overflows = ring_.overflows();
  return counters_;
}

void UringEcho::handle(const io_uring_cqe& done) {
  const auto op = static_cast<Op>(done.user_data & 0xffU);
  const auto slot = static_cast<std::uint32_t>((done.user_data >> 8U) & 0xffffffU);
  switch (op) {
    case Op::Accept:
      accepted(done);
      break;
    case Op::Receive:
      received(slot, done);
      break;
    case Op::Send:
    case Op::SendBundle:
    case Op::SendZerocopy:
      sent_pieces(slot, done, op);
      break;
    case Op::SendHeld:
      sent_held(slot, done);
      break;
    case Op::Cancel:
      if (done.res < 0 && by_slot_[slot]) {  // it was over, or is to be asked again
        by_slot_[slot]->cancelling = false;
        queue(slot);
      }
      break;
    case Op::Close:
      break;
  }
}

void UringEcho::accepted(const io_uring_cqe& done) {
  if (!has_more(done)) accepting_ = false;
  if (done.res < 0) {
    if (done.res == -ENFILE || done.res == -EMFILE || done.res == -ENOMEM) ++counters_.full;
    return;
  }
  const auto slot = static_cast<std::uint32_t>(done.res);
  by_slot_[slot] = std::make_unique<Connection>();
  ++counters_.accepted;
  counters_.most = std::max(counters_.most, ++open_);
  queue(slot);
}

void UringEcho::received(std::uint32_t slot, const io_uring_cqe& done) {
  Connection& connection = *by_slot_[slot];
  if (!has_more(done)) connection.receiving = connection.cancelling = false;
  if (done.res > 0) {
    const Piece piece{.buffer = static_cast<std::uint16_t>(done.flags >> IORING_CQE_BUFFER_SHIFT),
                      .offset = 0,
                      .length = static_cast<std::uint32_t>(done.res)};
    buffers_.taken();
    if (connection.broken) {
      buffers_.give_back(piece.buffer);
    } else if (!connection.held.empty()) {
      const auto bytes = bytes_of(piece);
      connection.behind.insert(connection.behind.end(), bytes.begin(), bytes.end());
      buffers_.give_back(piece.buffer);
    } else {
      connection.pieces.push_back(piece);
    }
  } else if (done.res == 0) {
    connection.ended = true;
  } else if (done.res == -ENOBUFS) {
    ++more_.starved;
    buffers_.missed();
  } else if (!is_later(done.res) && done.res != -ECANCELED) {
    connection.broken = true;
  }
  queue(slot);
}

/// Of the pieces under way, the first `bytes` are sent. Without `gives_back`, the kernel still reads them.
void UringEcho::consume(Connection& connection, std::size_t bytes, bool gives_back) {
  counters_.bytes += bytes;
  std::size_t gone = 0;
  for (; gone < connection.under_way && bytes > 0; ++gone) {
    Piece& piece = connection.pieces[gone];
    const auto part = static_cast<std::uint32_t>(std::min<std::size_t>(bytes, piece.length));
    piece.offset += part;
    piece.length -= part;
    bytes -= part;
    if (piece.length != 0) break;
    if (gives_back) buffers_.give_back(piece.buffer);
  }
  connection.pieces.erase(connection.pieces.begin(),
                          connection.pieces.begin() + static_cast<std::ptrdiff_t>(gone));
  connection.under_way -= gone;
}

void UringEcho::sent_pieces(std::uint32_t slot, const io_uring_cqe& done, Op op) {
  Connection& connection = *by_slot_[slot];
  queue(slot);
  if ((done.flags & IORING_CQE_F_NOTIF) != 0) {
    --connection.notices;
    if ((static_cast<std::uint32_t>(done.res) & IORING_NOTIF_USAGE_ZC_COPIED) != 0) ++more_.copied;
    buffers_.give_back(static_cast<std::uint16_t>(done.user_data >> 32U));
    return;
  }
  const bool is_read = op == Op::SendZerocopy && has_more(done);  // until its notice comes
  if (is_read) ++connection.notices;
  if (done.res < 0 && !is_later(done.res)) connection.broken = true;
  if (done.res > 0) consume(connection, static_cast<std::size_t>(done.res), !is_read);
  if (op == Op::SendBundle && has_more(done)) return;
  connection.sending = false;
  const bool is_short = connection.under_way != 0;
  connection.under_way = 0;
  if (connection.lease) {
    const std::size_t lease = *std::exchange(connection.lease, std::nullopt);
    // What was not sent would go out with the next bundle. Without memory for a new one there is one less.
    if (!is_short || bundles_[lease].renew()) free_bundles_.push_back(lease);
  }
  if (!is_short) return;
  if (!connection.broken) ++counters_.slow;
  hold(connection, is_read);
}

/// Copies what is not sent, and gives its buffers back; that of a first piece that is still read goes back
/// with its notice.
void UringEcho::hold(Connection& connection, bool first_is_read) {
  for (const Piece& piece : connection.pieces) {
    const auto bytes = bytes_of(piece);
    connection.held.insert(connection.held.end(), bytes.begin(), bytes.end());
    if (!std::exchange(first_is_read, false)) buffers_.give_back(piece.buffer);
  }
  connection.pieces.clear();
}

void UringEcho::sent_held(std::uint32_t slot, const io_uring_cqe& done) {
  Connection& connection = *by_slot_[slot];
  queue(slot);
  connection.sending = false;
  if (done.res < 0) {
    connection.broken = connection.broken || !is_later(done.res);
    return;
  }
  counters_.bytes += static_cast<std::size_t>(done.res);
  connection.held.erase(connection.held.begin(), connection.held.begin() + done.res);
  if (connection.held.empty()) connection.held.swap(connection.behind);
}

void UringEcho::queue(std::uint32_t slot) {
  if (!std::exchange(by_slot_[slot]->queued, true)) ready_.push_back(slot);
}

/// What is to be done next for a connection, now that something completed.
void UringEcho::advance(std::uint32_t slot) {
  Connection& connection = *by_slot_[slot];
  connection.queued = false;
  if (connection.broken && !connection.sending) drop_pieces(connection);
  if (!connection.sending) {
    if (!connection.held.empty()) {
      send_held(slot);
    } else if (!connection.pieces.empty()) {
      send_pieces(slot);
    }
  }
  const bool wants = !connection.ended && !connection.broken && connection.held.empty();
  if (wants && !connection.receiving) {
    if (buffers_.all_taken()) {
      starved_.push_back(slot);
    } else {
      arm_receive(slot);
    }
  }
  if (!wants && connection.receiving && !connection.cancelling) cancel_receive(slot);
  if ((connection.ended || connection.broken) && !connection.receiving && !connection.sending &&
      connection.pieces.empty() && connection.held.empty() && connection.notices == 0)
    close(slot);
}

void UringEcho::drop_pieces(Connection& connection) {
  for (const Piece& piece : connection.pieces) buffers_.give_back(piece.buffer);
  connection.pieces.clear();
  connection.held.clear();
  connection.behind.clear();
}

void UringEcho::arm_accept() {
  io_uring_prep_multishot_accept_direct(ring_.next(id_of(Op::Accept, 0)), listener_.fd(), nullptr, nullptr,
                                        0);
  accepting_ = true;
}

void UringEcho::arm_receive(std::uint32_t slot) {
  buffers_.publish();  // it takes one at once when something is there already
  io_uring_sqe* entry = ring_.next(id_of(Op::Receive, slot));
  io_uring_prep_recv_multishot(entry, static_cast<int>(slot), nullptr, 0, 0);
  entry->flags |= IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT;
  entry->buf_group = buffers_.group();
  by_slot_[slot]->receiving = true;
}

void UringEcho::cancel_receive(std::uint32_t slot) {
  io_uring_prep_cancel64(ring_.next(id_of(Op::Cancel, slot)), id_of(Op::Receive, slot), 0);
  by_slot_[slot]->cancelling = true;
  if (!by_slot_[slot]->broken) ++more_.cancelled;
  ++at_once_;
}

void UringEcho::send_pieces(std::uint32_t slot) {
  Connection& connection = *by_slot_[slot];
  const int fd = static_cast<int>(slot);
  const Piece& first = connection.pieces.front();
  connection.sending = true;
  connection.under_way = 1;
  io_uring_sqe* entry = nullptr;
  // None of these waits for room: what the peer does not take at once is held elsewhere.
  const bool without_copy = first.length >= options_.zerocopy_from;
  if (!without_copy && connection.pieces.size() > 1 && !free_bundles_.empty()) {
    connection.lease = free_bundles_.back();
    free_bundles_.pop_back();
    BufferRing& bundle = bundles_[*connection.lease];
    connection.under_way = std::min<std::size_t>(connection.pieces.size(), kBundlePieces);
    for (std::size_t i = 0; i < connection.under_way; ++i)
      bundle.add(bytes_of(connection.pieces[i]), connection.pieces[i].buffer);
    bundle.publish();
    entry = ring_.next(id_of(Op::SendBundle, slot));
    io_uring_prep_send_bundle(entry, fd, 0, kSendFlags | MSG_DONTWAIT);
    entry->flags |= IOSQE_BUFFER_SELECT;
    entry->buf_group = bundle.group();
    ++more_.bundles;
  } else if (without_copy) {
    entry = ring_.next(id_of(Op::SendZerocopy, slot, first.buffer));
    io_uring_prep_send_zc(entry, fd, bytes_of(first).data(), first.length, kSendFlags | MSG_DONTWAIT,
                          IORING_SEND_ZC_REPORT_USAGE);
    ++more_.zerocopy;
  } else {
    entry = ring_.next(id_of(Op::Send, slot));
    io_uring_prep_send(entry, fd, bytes_of(first).data(), first.length, kSendFlags | MSG_DONTWAIT);
  }
  entry->flags |= IOSQE_FIXED_FILE;
  // Nothing waits for this one: neither what lies behind it, nor an end, nor somebody without a buffer. What
  // fills a buffer is of a stream, and may leave a rest that is to be held.
  if (first.length < options_.buffer_bytes && connection.under_way == connection.pieces.size() &&
      connection.receiving && !connection.ended && starved_.empty())
    ++at_once_;
}

void UringEcho::send_held(std::uint32_t slot) {
  Connection& connection = *by_slot_[slot];
  io_uring_sqe* entry = ring_.next(id_of(Op::SendHeld, slot));
  io_uring_prep_send(entry, static_cast<int>(slot), connection.held.data(), connection.held.size(),
                     kSendFlags | MSG_WAITALL);
  entry->flags |= IOSQE_FIXED_FILE;
  connection.sending = true;
}

void UringEcho::close(std::uint32_t slot) {
  ++(by_slot_[slot]->broken ? counters_.reset : counters_.ended);
  by_slot_[slot].reset();
  --open_;
  io_uring_prep_close_direct(ring_.next(id_of(Op::Close, slot)), slot);
  ++at_once_;
}

}  // namespace agentnic::path
