// SPDX-License-Identifier: Apache-2.0
#include "path/uring/receiver.hpp"

#include <fmt/format.h>

#include <cerrno>

#include "base/stop.hpp"

namespace agentnic::path {
namespace {

constexpr unsigned kSlots = 1024;  // streams at a time

/// There was no memory to receive into, or no room for a completion.
bool is_starved(int code) noexcept {
  return code == -ENOBUFS || code == -ENOMEM || code == -ENOSPC || code == -EAGAIN || code == -EINTR;
}

}  // namespace

Result<UringReceiver> UringReceiver::open(TcpListener listener, const ReceiverOptions& options) {
  UringReceiver made(
      std::move(listener),
      ANIC_TRY(Ring::open({.files = kSlots, .large_completions = options.zero_copy.has_value()})));
  made.by_slot_.resize(kSlots);
  if (options.zero_copy) {
    ZcrxOptions zcrx = *options.zero_copy;
    zcrx.event_id = id_of(Op::Event, 0);
    auto opened = Zcrx::open(made.ring_, zcrx);
    if (!opened && (zcrx.ifindex != 0 || opened.error().exit != Exit::Unsupported))
      return fail(opened.error());
    if (opened) {
      made.zcrx_.emplace(std::move(*opened));
      made.mode_ = zcrx.ifindex != 0 ? ReceiveMode::ZeroCopy : ReceiveMode::ZeroCopyNoDevice;
      return made;
    }
    made.why_ = opened.error().text();
  }
  made.buffers_.emplace(ANIC_TRY(ReceiveBuffers::open(made.ring_, 0, options.buffers, options.buffer_bytes)));
  return made;
}

Result<std::vector<ReceivedStream>> UringReceiver::run(std::size_t streams, const Sink& sink) {
  ANIC_TRY(ring_.start());
  wanted_ = streams;
  while (ended_ < wanted_ && !stop_requested()) {
    if (!accepting_ && streams_.size() < wanted_) {
      io_uring_prep_multishot_accept_direct(ring_.next(id_of(Op::Accept, 0)), listener_.fd(), nullptr,
                                            nullptr, 0);
      accepting_ = true;
    }
    if (!again_.empty() && zcrx_) zcrx_->flush();
    for (const std::uint32_t slot : again_) arm_receive(slot);
    again_.clear();
    ring_.submit(Wait::Block);
    ring_.reap([&](const io_uring_cqe& done) { handle(done, sink); });
    if (buffers_) buffers_->publish();
  }
  ring_.cancel_all();  // no memory of ours is written from here on
  listener_.end();
  counters_.overflows = ring_.overflows();
  if (ended_ < wanted_)
    return fail(Exit::Failed, fmt::format("stopped after {} of {} streams", ended_, wanted_));
  return streams_;
}

ReceiverCounters UringReceiver::counters() const {
  ReceiverCounters counters = counters_;
  if (zcrx_) counters.zero_copy = zcrx_->counters();
  return counters;
}

void UringReceiver::handle(const io_uring_cqe& done, const Sink& sink) {
  const auto slot = static_cast<std::uint32_t>(done.user_data >> 8U);
  switch (static_cast<Op>(done.user_data & 0xffU)) {
    case Op::Accept:
      if (!has_more(done)) accepting_ = false;
      if (done.res < 0) break;
      if (streams_.size() == wanted_) {  // one too many
        io_uring_prep_close_direct(ring_.next(id_of(Op::Other, 0)), static_cast<unsigned>(done.res));
        break;
      }
      by_slot_[static_cast<std::size_t>(done.res)] = streams_.size();
      streams_.emplace_back();
      arm_receive(static_cast<std::uint32_t>(done.res));
      break;
    case Op::Receive:
      received(slot, done, sink);
      break;
    case Op::Event:
      zcrx_->event(done);
      break;
    case Op::Other:
      break;
  }
}

void UringReceiver::received(std::uint32_t slot, const io_uring_cqe& done, const Sink& sink) {
  const std::size_t number = *by_slot_[slot];
  ReceivedStream& stream = streams_[number];
  if (done.res > 0) {
    stream.bytes += static_cast<std::uint64_t>(done.res);
    if (zcrx_) {
      sink(number, zcrx_->chunk(done));
      zcrx_->give_back(done);
    } else {
      const auto id = static_cast<std::uint16_t>(done.flags >> IORING_CQE_BUFFER_SHIFT);
      buffers_->taken();
      sink(number, buffers_->buffer(id).first(static_cast<std::size_t>(done.res)));
      buffers_->give_back(id);
    }
  }
  if (has_more(done)) return;
  if (done.res > 0 || is_starved(done.res)) {
    if (done.res < 0) ++counters_.starved;
    if (done.res == -ENOBUFS && buffers_) buffers_->missed();
    again_.push_back(slot);
    return;
  }
  stream.error = -done.res;
  ++ended_;
  by_slot_[slot].reset();
  io_uring_prep_close_direct(ring_.next(id_of(Op::Other, 0)), slot);
}

void UringReceiver::arm_receive(std::uint32_t slot) {
  io_uring_sqe* entry = ring_.next(id_of(Op::Receive, slot));
  const int fd = static_cast<int>(slot);
  if (zcrx_) {
    zcrx_->prepare(entry, fd);
  } else {
    buffers_->publish();
    io_uring_prep_recv_multishot(entry, fd, nullptr, 0, 0);
    entry->flags |= IOSQE_BUFFER_SELECT;
    entry->buf_group = buffers_->group();
  }
  entry->flags |= IOSQE_FIXED_FILE;
}

}  // namespace agentnic::path
