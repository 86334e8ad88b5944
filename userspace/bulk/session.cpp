// SPDX-License-Identifier: Apache-2.0
#include "bulk/session.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <list>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "base/stop.hpp"
#include "bulk/agree.hpp"
#include "bulk/channel.hpp"
#include "bulk/tcp_plane.hpp"
#include "bulk/transfer.hpp"
#include "bulk/uring_plane.hpp"

namespace agentnic::bulk {
namespace {

constexpr std::size_t kStrangersMost = 64;  // at a time, who have not proved yet that they know the secret
constexpr int kProofMs = 5000;              // strangers are not waited for longer
constexpr int kProofInCrowdMs = 500;        // ... and not so long when there are many
constexpr std::chrono::milliseconds kPatience(kStopCheckMs);
constexpr std::uint64_t kPatienceNs = kStopCheckMs * 1'000'000ULL;

std::string peer_of(int fd) {
  const auto peer = path::Address::of_peer(fd);
  return peer ? peer->text() : "somebody";
}

Offered offered_by(const SessionOptions& options, Connect connect, bool receives) {
  return {.may = options.transport == Transport::Auto || options.transport == Transport::Rdma,
          .rdma = options.rdma,
          .connect = connect,
          .receives = receives};
}

/// For this thread.
Result<std::unique_ptr<Plane>> open_path_a(Transport transport) {
  if (transport == Transport::Uring) return UringPlane::open();
  return std::make_unique<TcpPlane>();
}

void note_rdma(const Agreed& path, Totals& totals) {
  totals.why_not_rdma = path.why_not;
  if (!path.rdma) return;
  totals.rdma_port = path.rdma->text();
  totals.registration_ns = path.rdma->registration_ns();
}

Status send_listed(Transfer& transfer, const Root& root, const std::vector<std::string>& names) {
  std::vector<std::string> left_out;
  const auto files = ANIC_TRY(root.list(names, left_out));
  return send_files(transfer, root, files, left_out.size());
}

}  // namespace

Status run_client(const ClientOptions& options, const Secret& secret, const Root& root, Totals& totals,
                  const Meter::Tell& tell) {
  const bool push = options.request.verb == Verb::Push;
  std::vector<std::string> left_out;
  std::vector<Offer> files;
  if (push) files = ANIC_TRY(root.list(options.names, left_out));  // before anybody is asked for anything
  auto path_a = ANIC_TRY(open_path_a(options.session.transport));
  Channel channel(ANIC_TRY(path::TcpStream::connect(options.server)), options.server.text(),
                  options.session.timeout_ms);
  ANIC_TRY(channel.prove_as_client(secret));
  channel.trust(options.session.timeout_ms);
  ANIC_TRY(channel.send(Kind::Request, options.request));
  Agreed path;
  if (options.request.rdma)
    path = ANIC_TRY(agree_as_client(channel, offered_by(options.session, options.request.connect, !push)));
  if (options.session.transport == Transport::Rdma && !path.rdma)
    return fail(Exit::Unsupported, "use RDMA: " + path.why_not);
  Meter meter(options.session.pacers, tell);
  note_rdma(path, meter.totals);
  Transfer transfer{.channel = channel,
                    .meter = meter,
                    .digest = options.request.digest,
                    .sync = options.request.sync,
                    .rdma = std::move(path.rdma),
                    .path_a = std::move(path_a)};
  const Status done = push ? send_files(transfer, root, files, left_out.size())
                           : receive_files(transfer, root, options.request.names);
  meter.tell({});
  totals = meter.totals;
  return done;
}

Result<Server> Server::open(const path::Address& local, const ServerOptions& options, const Secret& secret,
                            const Root& root) {
  return Server(ANIC_TRY(path::TcpListener::listen(local)), options, secret, root);
}

Status Server::ready() const {
  ANIC_TRY(open_path_a(options_.session.transport));
  return {};
}

void Server::run(const Report& report, const std::stop_token& stop) {
  struct Session {
    std::atomic<bool> over = false;
    std::jthread thread;  // joined, at the latest, when run() returns
  };
  std::mutex reporting;
  Peers peers;
  std::list<Session> sessions;
  std::optional<path::TcpStream> stream;
  while (!stop_requested() && !stop.stop_requested()) {
    const path::Accepted accepted = listener_.accept(stream);
    if (accepted == path::Accepted::Full) std::this_thread::sleep_for(kPatience);  // it stays readable
    if (accepted != path::Accepted::One) {
      listener_.wait(kPatienceNs);
      continue;
    }
    sessions.remove_if([](const Session& session) { return session.over.load(); });
    // No more threads than this, though nobody reads the reports either.
    if (peers.strangers >= kStrangersMost || sessions.size() >= options_.sessions_most + kStrangersMost) {
      stream.reset();  // without a word, for which it would have to wait
      continue;
    }
    const int proof_ms = peers.strangers < kStrangersMost / 2 ? kProofMs : kProofInCrowdMs;
    ++peers.strangers;
    Session& session = sessions.emplace_back();
    try {
      session.thread = std::jthread([&, proof_ms, mine = std::move(*stream)]() mutable {
        const Served served = serve(std::move(mine), proof_ms, peers);
        {
          const std::scoped_lock lock(reporting);
          report(served);
        }
        session.over = true;
      });
    } catch (const std::system_error&) {  // no thread is to be had: the connection ends
      sessions.pop_back();
      --peers.strangers;
    }
  }
}

Served Server::serve(path::TcpStream stream, int proof_ms, Peers& peers) const {
  Served served;
  served.peer = peer_of(stream.fd());
  Channel channel(std::move(stream), served.peer, proof_ms);
  if (const Status proved = channel.prove_as_server(*secret_); !proved) {
    served.error = proved.error().text();
    channel.refuse("the secret is wrong");
    --peers.strangers;
    return served;
  }
  if (++peers.known > options_.sessions_most) {
    --peers.known;
    served.error = fmt::format("{} sessions are open, which is all it serves", options_.sessions_most);
    channel.refuse(served.error);
    --peers.strangers;
    return served;
  }
  --peers.strangers;
  channel.trust(options_.session.timeout_ms);
  if (const Status done = serve_request(channel, served); !done) {
    served.error = done.error().text();
    channel.refuse(served.error);
  }
  --peers.known;
  return served;
}

Status Server::serve_request(Channel& channel, Served& served) const {
  const auto request = ANIC_TRY(channel.expect<Request>(Kind::Request));
  const bool push = request.verb == Verb::Push;
  served.verb = push ? "push" : "pull";
  if (push && options_.read_only) return fail(Exit::Failed, "it takes no files");
  auto path_a = ANIC_TRY(open_path_a(options_.session.transport));
  Agreed path;
  if (request.rdma)
    path = ANIC_TRY(agree_as_server(channel, offered_by(options_.session, request.connect, push)));
  if (options_.session.transport == Transport::Rdma && !path.rdma)
    return fail(Exit::Failed,
                "it serves RDMA alone: " + (request.rdma ? path.why_not : "the client asks for TCP"));
  Pacers pacers = options_.session.pacers;
  if (request.rate_bps != 0)
    pacers.push_back(std::make_shared<Pacer>([rate = request.rate_bps] { return rate; }));
  Meter meter(std::move(pacers), {});
  note_rdma(path, meter.totals);
  Transfer transfer{.channel = channel,
                    .meter = meter,
                    .digest = request.digest,
                    .sync = request.sync,
                    .rdma = std::move(path.rdma),
                    .path_a = std::move(path_a)};
  const Status done = [&]() -> Status {
    const Root root = ANIC_TRY(root_->below(request.folder, push));
    return push ? receive_files(transfer, root) : send_listed(transfer, root, request.names);
  }();
  meter.tell({});
  served.totals = meter.totals;
  return done;
}

}  // namespace agentnic::bulk
