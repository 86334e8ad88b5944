// SPDX-License-Identifier: Apache-2.0
#include "path/rdma/queue_pair.hpp"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <random>
#include <utility>

namespace agentnic::path {
namespace {

constexpr std::uint32_t k24Bits = (1U << 24U) - 1;
constexpr std::uint8_t kHops = 64;
constexpr int kBatch = 32;

/// Verbs answer with an errno, and here and there with -1.
Status done(int code, const std::string& what) {
  if (code == 0) return {};
  return fail_errno(code > 0 ? code : errno, what);
}

const char* reason_of(ibv_wc_status status) {
  switch (status) {
    case IBV_WC_RNR_RETRY_EXC_ERR:
      return "the peer had nothing to receive it into";
    case IBV_WC_RETRY_EXC_ERR:
      return "the peer, or the link, does not answer";
    case IBV_WC_REM_ACCESS_ERR:
      return "the peer has no such memory, or not for this";
    case IBV_WC_REM_INV_REQ_ERR:
      return "the peer cannot take such a request";
    case IBV_WC_REM_OP_ERR:
      return "the peer failed to carry it out";
    case IBV_WC_LOC_PROT_ERR:
    case IBV_WC_LOC_ACCESS_ERR:
      return "this end's memory is not registered for it";
    case IBV_WC_LOC_LEN_ERR:
      return "it does not fit what waits for it";
    case IBV_WC_WR_FLUSH_ERR:
      return "it was under way when the queue pair failed";
    default:
      return "the device failed";
  }
}

}  // namespace

std::string completion_text(const Completion& completion) {
  return fmt::format("{} ({}, vendor error {:#x})", reason_of(completion.status),
                     ibv_wc_status_str(completion.status), completion.vendor);
}

Result<QueuePair> QueuePair::open(const RdmaDevice& device, unsigned remote_access,
                                  const QueuePairOptions& options) {
  const ibv_device_attr& limits = device.limits();
  const auto most = static_cast<std::uint32_t>(limits.max_qp_wr);
  const std::string on = " on " + device.port().device;
  if (options.sends > most || options.receives > most ||
      options.sends + options.receives > static_cast<std::uint32_t>(limits.max_cqe)) {
    return fail(Exit::Unsupported, fmt::format("make a queue pair of {} and {} requests{}: it has at most {}",
                                               options.sends, options.receives, on, most));
  }
  QueuePair made;
  made.device_ = &device;
  made.options_ = options;
  made.options_.reads = static_cast<std::uint8_t>(
      std::min({static_cast<int>(options.reads), limits.max_qp_rd_atom, limits.max_qp_init_rd_atom}));
  made.sequence_ = std::random_device{}() & k24Bits;
  made.channel_.reset(ibv_create_comp_channel(device.context()));
  if (!made.channel_) return fail_errno(errno, "make a completion channel" + on);
  ::fcntl(made.channel_->fd, F_SETFL, ::fcntl(made.channel_->fd, F_GETFL) | O_NONBLOCK);
  made.completions_.reset(ibv_create_cq(device.context(), static_cast<int>(options.sends + options.receives),
                                        nullptr, made.channel_.get(), 0));
  if (!made.completions_) return fail_errno(errno, "make a completion queue" + on);
  ibv_qp_init_attr wanted{};
  wanted.send_cq = wanted.recv_cq = made.completions_.get();
  wanted.qp_type = IBV_QPT_RC;
  wanted.sq_sig_all = 1;
  wanted.cap = {.max_send_wr = options.sends,
                .max_recv_wr = options.receives,
                .max_send_sge = 1,
                .max_recv_sge = 1,
                .max_inline_data = options.inline_bytes};
  made.pair_.reset(ibv_create_qp(device.domain(), &wanted));
  if (!made.pair_) return fail_errno(errno, "make a queue pair" + on);
  made.inline_bytes_ = wanted.cap.max_inline_data;
  ibv_qp_attr init{};
  init.qp_state = IBV_QPS_INIT;
  init.port_num = device.port().port;
  init.qp_access_flags = remote_access | IBV_ACCESS_LOCAL_WRITE;
  ANIC_TRY(done(ibv_modify_qp(made.pair_.get(), &init,
                              IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS),
                "bring a queue pair to INIT" + on));
  made.done_.reserve(kBatch);
  return made;
}

/// In an order in which nothing goes before what was made of it.
QueuePair& QueuePair::operator=(QueuePair&& other) noexcept {
  pair_ = std::move(other.pair_);
  completions_ = std::move(other.completions_);
  channel_ = std::move(other.channel_);
  device_ = other.device_;
  options_ = other.options_;
  sequence_ = other.sequence_;
  inline_bytes_ = other.inline_bytes_;
  done_ = std::move(other.done_);
  return *this;
}

RdmaEndpoint QueuePair::endpoint() const {
  RdmaEndpoint endpoint;
  endpoint.queue_pair = pair_->qp_num;
  endpoint.sequence = sequence_;
  endpoint.gid = device_->port().gid;
  endpoint.mtu = device_->port().mtu;
  endpoint.reads = options_.reads;
  return endpoint;
}

Status QueuePair::connect(const RdmaEndpoint& peer) {
  const std::string to = " for " + gid_text(peer.gid);
  ibv_qp_attr ready{};
  ready.qp_state = IBV_QPS_RTR;
  ready.path_mtu = std::min(device_->port().mtu, peer.mtu);
  ready.dest_qp_num = peer.queue_pair;
  ready.rq_psn = peer.sequence;
  ready.max_dest_rd_atomic = options_.reads;
  ready.min_rnr_timer = options_.rnr_timer;
  ready.ah_attr.is_global = 1;
  ready.ah_attr.port_num = device_->port().port;
  ready.ah_attr.grh.sgid_index = static_cast<std::uint8_t>(device_->port().gid_index);
  ready.ah_attr.grh.hop_limit = kHops;
  std::memcpy(ready.ah_attr.grh.dgid.raw, peer.gid.data(), peer.gid.size());
  ANIC_TRY(done(ibv_modify_qp(pair_.get(), &ready,
                              IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                                  IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER),
                "bring a queue pair to RTR" + to));
  ibv_qp_attr sending{};
  sending.qp_state = IBV_QPS_RTS;
  sending.timeout = options_.timeout;
  sending.retry_cnt = options_.retries;
  sending.rnr_retry = options_.rnr_retries;
  sending.sq_psn = sequence_;
  sending.max_rd_atomic = std::min(options_.reads, peer.reads);
  return done(ibv_modify_qp(pair_.get(), &sending,
                            IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                                IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC),
              "bring a queue pair to RTS" + to);
}

Status QueuePair::modify(ibv_qp_attr& attributes, int mask) {
  return done(ibv_modify_qp(pair_.get(), &attributes, mask),
              "change a queue pair on " + device_->port().device);
}

Status QueuePair::receive(std::uint64_t id, const LocalRange& range) {
  ibv_sge place{.addr = reinterpret_cast<std::uint64_t>(range.at), .length = range.bytes, .lkey = range.key};
  ibv_recv_wr request{};
  request.wr_id = id;
  request.sg_list = &place;
  request.num_sge = range.at != nullptr ? 1 : 0;
  ibv_recv_wr* bad = nullptr;
  return done(ibv_post_recv(pair_.get(), &request, &bad), "wait for a message on " + device_->port().device);
}

Status QueuePair::post(ibv_send_wr& request, const LocalRange& range) {
  ibv_sge place{.addr = reinterpret_cast<std::uint64_t>(range.at), .length = range.bytes, .lkey = range.key};
  request.sg_list = &place;
  request.num_sge = range.bytes != 0 ? 1 : 0;
  if (request.opcode != IBV_WR_RDMA_READ && range.bytes != 0 && range.bytes <= inline_bytes_)
    request.send_flags |= IBV_SEND_INLINE;
  ibv_send_wr* bad = nullptr;
  return done(ibv_post_send(pair_.get(), &request, &bad), "send a request on " + device_->port().device);
}

Status QueuePair::send(std::uint64_t id, const LocalRange& range, std::optional<std::uint32_t> immediate) {
  ibv_send_wr request{};
  request.wr_id = id;
  request.opcode = immediate ? IBV_WR_SEND_WITH_IMM : IBV_WR_SEND;
  request.imm_data = __builtin_bswap32(immediate.value_or(0));
  return post(request, range);
}

Status QueuePair::write(std::uint64_t id, const LocalRange& from, const RemoteRange& to,
                        std::optional<std::uint32_t> immediate) {
  ibv_send_wr request{};
  request.wr_id = id;
  request.opcode = immediate ? IBV_WR_RDMA_WRITE_WITH_IMM : IBV_WR_RDMA_WRITE;
  request.imm_data = __builtin_bswap32(immediate.value_or(0));
  request.wr.rdma = {.remote_addr = to.address, .rkey = to.key};
  return post(request, from);
}

Status QueuePair::read(std::uint64_t id, const LocalRange& to, const RemoteRange& from) {
  ibv_send_wr request{};
  request.wr_id = id;
  request.opcode = IBV_WR_RDMA_READ;
  request.wr.rdma = {.remote_addr = from.address, .rkey = from.key};
  return post(request, to);
}

Result<std::span<const Completion>> QueuePair::poll() {
  ibv_wc found[kBatch];
  const int count = ibv_poll_cq(completions_.get(), kBatch, found);
  if (count < 0) return fail(Exit::Failed, "poll the completion queue of " + device_->port().device);
  done_.clear();
  for (const ibv_wc& one : std::span(found).first(static_cast<std::size_t>(count))) {
    // Of a completion that failed the device says no more than id and status.
    const bool good = one.status == IBV_WC_SUCCESS;
    done_.push_back({.id = one.wr_id,
                     .status = one.status,
                     .received = good && (one.opcode & IBV_WC_RECV) != 0,
                     .bytes = good ? one.byte_len : 0,
                     .vendor = one.vendor_err});
    if (good && (one.wc_flags & IBV_WC_WITH_IMM) != 0)
      done_.back().immediate = __builtin_bswap32(one.imm_data);
  }
  return std::span<const Completion>(done_);
}

Status QueuePair::arm() {
  return done(ibv_req_notify_cq(completions_.get(), 0), "wait for completions of " + device_->port().device);
}

void QueuePair::take_events() noexcept {
  ibv_cq* queue = nullptr;
  void* context = nullptr;
  unsigned taken = 0;
  while (ibv_get_cq_event(channel_.get(), &queue, &context) == 0) ++taken;
  if (taken != 0) ibv_ack_cq_events(completions_.get(), taken);
}

ibv_qp_state QueuePair::state() const {
  ibv_qp_attr now{};
  ibv_qp_init_attr made{};
  return ibv_query_qp(pair_.get(), &now, IBV_QP_STATE, &made) == 0 ? now.qp_state : IBV_QPS_UNKNOWN;
}

Status QueuePair::give_up() {
  ibv_qp_attr error{};
  error.qp_state = IBV_QPS_ERR;
  return done(ibv_modify_qp(pair_.get(), &error, IBV_QP_STATE),
              "end the queue pair on " + device_->port().device);
}

}  // namespace agentnic::path
