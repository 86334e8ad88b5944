// SPDX-License-Identifier: Apache-2.0
#include "cli/load/metrics.hpp"

#include <fmt/format.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "cli/common/address.hpp"

namespace agentnic::cli {
namespace {

constexpr unsigned kConnectionsMax = 16;
constexpr unsigned kConnectionSeconds = 10;
constexpr int kBacklog = 16;

/// A counter or gauge that each owner has.
struct OwnerMetric {
  const char* name;
  const char* type;
  const char* help;
  std::uint64_t (*value)(const anic_owner& owner);
};

constexpr OwnerMetric kOwnerMetrics[] = {
    {"agentnic_owner_redirected_packets_total", "counter",
     "Packets that XDP redirected to this owner, by its page, which it can write.",
     [](const anic_owner& owner) -> std::uint64_t { return owner.sent; }},
    {"agentnic_owner_stalled_packets_total", "counter",
     "Packets that took path A because this owner did not keep up, by its page.",
     [](const anic_owner& owner) -> std::uint64_t { return owner.refused; }},
    {"agentnic_owner_consumed_packets_total", "counter",
     "Packets that this owner says it has taken, lost ones included.",
     [](const anic_owner& owner) -> std::uint64_t { return owner.consumed; }},
    {"agentnic_owner_lost_packets_total", "counter",
     "Packets that this owner says were lost after the verdict.",
     [](const anic_owner& owner) -> std::uint64_t { return owner.lost; }},
    {"agentnic_owner_transmitted_packets_total", "counter",
     "Packets that this owner says it has sent; they pass no quota.",
     [](const anic_owner& owner) -> std::uint64_t { return owner.transmitted; }},
    {"agentnic_owner_room_packets", "gauge", "Packets that this owner says it has buffers for.",
     [](const anic_owner& owner) -> std::uint64_t { return owner.room; }},
};

void add_head(std::string& text, const char* name, const char* type, const char* help) {
  text += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
}

/// Names of interfaces may have anything but spaces and slashes in them.
std::string label(const std::string& value) {
  std::string text;
  for (const char one : value) {
    if (one == '"' || one == '\\') text += '\\';
    text += one;
  }
  return text;
}

void add_turns(std::string& text, const std::string& ifname, std::uint32_t queue, const anic_owner& owner) {
  constexpr const char* kName = "agentnic_owner_turnaround_seconds";
  std::uint64_t count = 0;
  for (std::size_t b = 0; b + 1 < ANIC_OWNER_TURNS; ++b) {
    count += owner.turns[b];
    text += fmt::format("{}_bucket{{interface=\"{}\",queue=\"{}\",le=\"{:.9g}\"}} {}\n", kName, ifname, queue,
                        static_cast<double>(1ULL << (b + 1 + ANIC_OWNER_TURN_LOG2)) * 1e-9, count);
  }
  count += owner.turns[ANIC_OWNER_TURNS - 1];
  text +=
      fmt::format("{}_bucket{{interface=\"{}\",queue=\"{}\",le=\"+Inf\"}} {}\n", kName, ifname, queue, count);
  text += fmt::format("{}_sum{{interface=\"{}\",queue=\"{}\"}} {:.9g}\n", kName, ifname, queue,
                      static_cast<double>(owner.turned_ns) * 1e-9);
  text += fmt::format("{}_count{{interface=\"{}\",queue=\"{}\"}} {}\n", kName, ifname, queue, count);
}

MHD_Result answer(void* text, MHD_Connection* connection, const char* url, const char* method, const char*,
                  const char*, std::size_t*, void**) {
  const bool known = std::string_view(url) == "/metrics";
  const bool get = std::string_view(method) == "GET";
  std::string body = !get     ? "GET alone\n"
                     : !known ? "/metrics\n"
                              : (*static_cast<std::function<std::string()>*>(text))();
  MHD_Response* response = MHD_create_response_from_buffer(body.size(), body.data(), MHD_RESPMEM_MUST_COPY);
  if (response == nullptr) return MHD_NO;
  MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "text/plain; version=0.0.4");
  const unsigned status = !get ? MHD_HTTP_METHOD_NOT_ALLOWED : known ? MHD_HTTP_OK : MHD_HTTP_NOT_FOUND;
  const MHD_Result queued = MHD_queue_response(connection, status, response);
  MHD_destroy_response(response);
  return queued;
}

}  // namespace

std::string metrics_text(const std::string& ifname, const std::map<std::uint32_t, anic_owner>& owners,
                         const ServeCounters& counters) {
  const std::string interface = label(ifname);
  std::string text;
  for (const OwnerMetric& metric : kOwnerMetrics) {
    add_head(text, metric.name, metric.type, metric.help);
    for (const auto& [queue, owner] : owners)
      text += fmt::format("{}{{interface=\"{}\",queue=\"{}\"}} {}\n", metric.name, interface, queue,
                          metric.value(owner));
  }
  add_head(text, "agentnic_owner_turnaround_seconds", "histogram",
           "From XDP to the owner's answer, sampled; what the owner says.");
  for (const auto& [queue, owner] : owners) add_turns(text, interface, queue, owner);
  add_head(text, "agentnic_serve_grants_total", "counter", "Requests for AF_XDP sockets that were granted.");
  text += fmt::format("agentnic_serve_grants_total{{interface=\"{}\"}} {}\n", interface, counters.grants);
  add_head(text, "agentnic_serve_refusals_total", "counter",
           "Requests for AF_XDP sockets that were refused.");
  text += fmt::format("agentnic_serve_refusals_total{{interface=\"{}\"}} {}\n", interface, counters.refusals);
  return text;
}

void MetricsServer::Stop::operator()(MHD_Daemon* daemon) const noexcept { MHD_stop_daemon(daemon); }

Result<MetricsServer> MetricsServer::open(const std::string& address, std::function<std::string()> text) {
  const path::Address local = ANIC_TRY(parse_address(address));
  const std::string what = fmt::format("listen for metrics at {}", address);
  UniqueFd listener(::socket(local.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener) return fail_errno(errno, what);
  const int on = 1;
  ::setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (::bind(listener.get(), local.get(), local.length) != 0 || ::listen(listener.get(), kBacklog) != 0)
    return fail_errno(errno, what);
  MetricsServer made;
  made.text_ = std::make_unique<std::function<std::string()>>(std::move(text));
  made.daemon_.reset(MHD_start_daemon(MHD_USE_EPOLL, 0, nullptr, nullptr, answer, made.text_.get(),
                                      MHD_OPTION_LISTEN_SOCKET, listener.get(), MHD_OPTION_CONNECTION_LIMIT,
                                      kConnectionsMax, MHD_OPTION_CONNECTION_TIMEOUT, kConnectionSeconds,
                                      MHD_OPTION_END));
  if (made.daemon_ == nullptr) return fail(Exit::Failed, what + ": libmicrohttpd did not start");
  listener.release();  // the daemon closes it
  const MHD_DaemonInfo* info = MHD_get_daemon_info(made.daemon_.get(), MHD_DAEMON_INFO_EPOLL_FD);
  if (info == nullptr) return fail(Exit::Failed, what + ": libmicrohttpd has no epoll");
  made.fd_ = info->epoll_fd;
  return made;
}

void MetricsServer::run() noexcept { MHD_run(daemon_.get()); }

int MetricsServer::timeout_ms(int most_ms) const noexcept {
  MHD_UNSIGNED_LONG_LONG wanted_ms = 0;
  if (MHD_get_timeout(daemon_.get(), &wanted_ms) != MHD_YES) return most_ms;
  return static_cast<int>(std::min<MHD_UNSIGNED_LONG_LONG>(wanted_ms, static_cast<unsigned>(most_ms)));
}

}  // namespace agentnic::cli
