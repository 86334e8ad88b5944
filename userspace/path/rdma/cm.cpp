// SPDX-License-Identifier: Apache-2.0
#include "path/rdma/cm.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <span>
#include <utility>

#include "base/clock.hpp"
#include "base/stop.hpp"

namespace agentnic::path {
namespace {

struct Acknowledge {
  void operator()(rdma_cm_event* event) const noexcept { rdma_ack_cm_event(event); }
};
using Event = std::unique_ptr<rdma_cm_event, Acknowledge>;

/// The address without its const, which the library does not write to.
sockaddr* plain(const Address& address) { return const_cast<sockaddr*>(address.get()); }

Result<std::unique_ptr<rdma_event_channel, void (*)(rdma_event_channel*)>> make_channel() {
  std::unique_ptr<rdma_event_channel, void (*)(rdma_event_channel*)> channel(rdma_create_event_channel(),
                                                                             rdma_destroy_event_channel);
  if (!channel) return fail_errno(errno, "use rdma_cm", "modprobe rdma_ucm");
  ::fcntl(channel->fd, F_SETFL, ::fcntl(channel->fd, F_GETFL) | O_NONBLOCK);
  return channel;
}

std::uint64_t after_ms(int timeout_ms) {
  return monotonic_ns() + static_cast<std::uint64_t>(timeout_ms) * 1'000'000ULL;
}

/// What an event that was not waited for says. Of a rejection the status is a reason of InfiniBand's, no
/// errno.
std::string event_text(const rdma_cm_event& event) {
  if (event.event == RDMA_CM_EVENT_REJECTED) return fmt::format("rejected, reason {}", event.status);
  return fmt::format("{} ({})", rdma_event_str(event.event),
                     std::generic_category().message(std::abs(event.status)));
}

/// The next event, which is to be this one. Others who ask for a connection meanwhile are turned away.
Result<Event> await(rdma_event_channel* channel, rdma_cm_event_type wanted, std::uint64_t end_ns,
                    const std::string& what) {
  while (!stop_requested()) {
    if (monotonic_ns() > end_ns) return fail(Exit::Failed, what + ": no answer in time");
    rdma_cm_event* found = nullptr;
    if (rdma_get_cm_event(channel, &found) == 0) {
      Event event(found);
      if (event->event == wanted) return event;
      if (event->event != RDMA_CM_EVENT_CONNECT_REQUEST)
        return fail(Exit::Failed, what + ": " + event_text(*event));
      rdma_cm_id* stranger = event->id;
      event.reset();  // an id does not go before its events
      rdma_reject(stranger, nullptr, 0);
      rdma_destroy_id(stranger);
      continue;
    }
    if (errno != EAGAIN && errno != EINTR) return fail_errno(errno, what);
    pollfd waiting{channel->fd, POLLIN, 0};
    ::poll(&waiting, 1, kStopCheckMs);
  }
  return fail(Exit::Failed, "stopped");
}

/// The kernel may have chosen another device than the queue pair's.
Status check_device(const rdma_cm_id* id, const QueuePair& pair, const std::string& what) {
  const RdmaPort& port = pair.device().port();
  if (id->verbs != nullptr && port.device == ibv_get_device_name(id->verbs->device) &&
      id->port_num == port.port)
    return {};
  return fail(Exit::Failed,
              fmt::format("{}: rdma_cm does not take {} port {}", what, port.device, port.port));
}

/// RTR, then RTS, as both ends' kernels agreed; what is ours to say is as the queue pair was made.
Status bring_up(rdma_cm_id* id, QueuePair& pair, const rdma_conn_param& agreed) {
  for (const ibv_qp_state state : {IBV_QPS_RTR, IBV_QPS_RTS}) {
    ibv_qp_attr attributes{};
    attributes.qp_state = state;
    int mask = 0;
    if (rdma_init_qp_attr(id, &attributes, &mask) != 0)
      return fail_errno(errno, "ask rdma_cm for attributes");
    attributes.max_dest_rd_atomic = agreed.responder_resources;
    attributes.max_rd_atomic = agreed.initiator_depth;
    attributes.min_rnr_timer = pair.options().rnr_timer;
    attributes.timeout = pair.options().timeout;
    ANIC_TRY(pair.modify(attributes, mask));
  }
  return {};
}

rdma_conn_param parameters(const QueuePair& pair) {
  rdma_conn_param wanted{};
  const RdmaEndpoint endpoint = pair.endpoint();
  wanted.responder_resources = wanted.initiator_depth = endpoint.reads;
  wanted.retry_count = pair.options().retries;
  wanted.rnr_retry_count = pair.options().rnr_retries;
  wanted.qp_num = endpoint.queue_pair;
  return wanted;
}

}  // namespace

Result<CmConnection> CmConnection::connect(const Address& local, const Address& peer, QueuePair& pair,
                                           std::uint32_t peer_pair, const CmToken& token, int timeout_ms) {
  const std::string what = "connect by rdma_cm to " + peer.text();
  const Address from = local.with_port(0);
  Channel channel(ANIC_TRY(make_channel()).release());
  rdma_cm_id* made = nullptr;
  if (rdma_create_id(channel.get(), &made, nullptr, RDMA_PS_TCP) != 0) return fail_errno(errno, what);
  Id id(made);
  if (rdma_resolve_addr(id.get(), plain(from), plain(peer), timeout_ms) != 0) return fail_errno(errno, what);
  ANIC_TRY(await(channel.get(), RDMA_CM_EVENT_ADDR_RESOLVED, after_ms(timeout_ms), what));
  ANIC_TRY(check_device(id.get(), pair, what));
  if (rdma_resolve_route(id.get(), timeout_ms) != 0) return fail_errno(errno, what);
  ANIC_TRY(await(channel.get(), RDMA_CM_EVENT_ROUTE_RESOLVED, after_ms(timeout_ms), what));
  rdma_conn_param wanted = parameters(pair);
  wanted.private_data = token.data();
  wanted.private_data_len = token.size();
  if (rdma_connect(id.get(), &wanted) != 0) return fail_errno(errno, what);
  {
    const Event answer =
        ANIC_TRY(await(channel.get(), RDMA_CM_EVENT_CONNECT_RESPONSE, after_ms(timeout_ms), what));
    const rdma_conn_param& given = answer->param.conn;
    if (given.qp_num != peer_pair) return fail(Exit::Failed, what + ": another queue pair answers");
    wanted.responder_resources = std::min(wanted.responder_resources, given.responder_resources);
    wanted.initiator_depth = std::min(wanted.initiator_depth, given.initiator_depth);
  }
  ANIC_TRY(bring_up(id.get(), pair, wanted));
  if (rdma_establish(id.get()) != 0) return fail_errno(errno, what);
  return CmConnection(std::move(channel), std::move(id));
}

Result<CmListener> CmListener::open(const Address& local) {
  const std::string what = "listen by rdma_cm at " + local.text();
  const Address any_port = local.with_port(0);
  CmConnection::Channel channel(ANIC_TRY(make_channel()).release());
  rdma_cm_id* made = nullptr;
  if (rdma_create_id(channel.get(), &made, nullptr, RDMA_PS_TCP) != 0) return fail_errno(errno, what);
  CmConnection::Id id(made);
  if (rdma_bind_addr(id.get(), plain(any_port)) != 0 || rdma_listen(id.get(), 1) != 0)
    return fail_errno(errno, what);
  return CmListener(std::move(channel), std::move(id));
}

std::uint16_t CmListener::port() const noexcept { return __builtin_bswap16(rdma_get_src_port(id_.get())); }

Result<CmConnection> CmListener::accept(QueuePair& pair, std::uint32_t peer_pair, const CmToken& token,
                                        int timeout_ms) {
  const std::string what = "accept by rdma_cm";
  const std::uint64_t end_ns = after_ms(timeout_ms);
  while (true) {
    Event request = ANIC_TRY(await(channel_.get(), RDMA_CM_EVENT_CONNECT_REQUEST, end_ns, what));
    CmConnection::Id id(request->id);
    const rdma_conn_param& asked = request->param.conn;
    rdma_conn_param wanted = parameters(pair);
    wanted.responder_resources = std::min(wanted.responder_resources, asked.responder_resources);
    wanted.initiator_depth = std::min(wanted.initiator_depth, asked.initiator_depth);
    // What the peer sent may be followed by zeros.
    const bool is_meant = asked.qp_num == peer_pair && asked.private_data_len >= token.size() &&
                          std::memcmp(asked.private_data, token.data(), token.size()) == 0;
    request.reset();  // an id does not go before its events
    if (!is_meant) {
      rdma_reject(id.get(), nullptr, 0);
      continue;
    }
    ANIC_TRY(check_device(id.get(), pair, what));
    ANIC_TRY(bring_up(id.get(), pair, wanted));
    if (rdma_accept(id.get(), &wanted) != 0) return fail_errno(errno, what);
    ANIC_TRY(await(channel_.get(), RDMA_CM_EVENT_ESTABLISHED, end_ns, what));
    id_.reset();  // nobody else
    return CmConnection(std::move(channel_), std::move(id));
  }
}

}  // namespace agentnic::path
