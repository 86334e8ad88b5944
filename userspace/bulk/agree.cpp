// SPDX-License-Identifier: Apache-2.0
#include "bulk/agree.hpp"

#include <algorithm>
#include <utility>

#include "bulk/secret.hpp"
#include "path/rdma/endpoint.hpp"

namespace agentnic::bulk {
namespace {

Agreed refused(std::string why) { return {.why_not = std::move(why)}; }

/// A queue pair of this end: its endpoint, or why there is none.
Result<Endpoint> open_pair(const Channel& channel, const Offered& offered, Agreed& agreed) {
  if (!offered.may) return fail(Exit::Failed, "this end was told to use TCP");
  agreed.rdma = ANIC_TRY(RdmaPlane::open(channel, offered.rdma, offered.receives));
  return Endpoint{.pair = path::encode_endpoint(agreed.rdma->endpoint())};
}

/// What the server says first.
Result<Endpoint> open_server(const Channel& channel, const Offered& offered, Agreed& agreed) {
  Endpoint endpoint = ANIC_TRY(open_pair(channel, offered, agreed));
  if (offered.connect == Connect::Cm) {
    endpoint.cm_port = ANIC_TRY(agreed.rdma->listen(channel));
    const Hello random = ANIC_TRY(make_hello());
    std::ranges::copy_n(random.nonce.begin(), endpoint.token.size(), endpoint.token.begin());
  }
  return endpoint;
}

/// Connects the server's end to the client's.
Status connect_server(const Channel& channel, const Offered& offered, const Endpoint& ours,
                      const Endpoint& theirs, RdmaPlane& plane) {
  const auto peer = ANIC_TRY(path::decode_endpoint(theirs.pair));
  return offered.connect == Connect::Cm ? plane.accept(channel, peer, ours.token)
                                        : plane.connect(channel, peer);
}

Result<Endpoint> connect_client(const Channel& channel, const Offered& offered, const Endpoint& theirs,
                                Agreed& agreed) {
  Endpoint ours = ANIC_TRY(open_pair(channel, offered, agreed));
  if (offered.connect == Connect::Exchange)
    ANIC_TRY(agreed.rdma->connect(channel, ANIC_TRY(path::decode_endpoint(theirs.pair))));
  return ours;
}

}  // namespace

Result<Agreed> agree_as_server(Channel& channel, const Offered& offered) {
  Agreed agreed;
  const auto ours = open_server(channel, offered, agreed);
  if (!ours) {
    ANIC_TRY(channel.send(Kind::Endpoint, Endpoint{.reason = ours.error().text()}));
    return refused(ours.error().text());
  }
  ANIC_TRY(channel.send(Kind::Endpoint, *ours));
  const auto theirs = ANIC_TRY(channel.expect<Endpoint>(Kind::Endpoint));
  if (!theirs.reason.empty()) return refused("the client says: " + theirs.reason);
  const Status connected = connect_server(channel, offered, *ours, theirs, *agreed.rdma);
  const std::string why = connected ? "" : connected.error().text();
  ANIC_TRY(channel.send(Kind::Endpoint, Endpoint{.reason = why}));
  if (!connected) return refused(why);
  return agreed;
}

Result<Agreed> agree_as_client(Channel& channel, const Offered& offered) {
  Agreed agreed;
  const auto theirs = ANIC_TRY(channel.expect<Endpoint>(Kind::Endpoint));
  if (!theirs.reason.empty()) return refused("the server says: " + theirs.reason);
  const auto ours = connect_client(channel, offered, theirs, agreed);
  ANIC_TRY(channel.send(Kind::Endpoint, ours ? *ours : Endpoint{.reason = ours.error().text()}));
  if (!ours) return refused(ours.error().text());
  Status connected;
  if (offered.connect == Connect::Cm) {  // the server waits for it now
    const auto peer = path::decode_endpoint(theirs.pair);
    connected = peer ? agreed.rdma->connect_cm(channel, *peer, theirs.cm_port, theirs.token)
                     : Status(fail(peer.error()));
  }
  const auto ready = ANIC_TRY(channel.expect<Endpoint>(Kind::Endpoint));
  if (!connected) {
    // The server may think otherwise, and learns by the first content.
    return refused(connected.error().text());
  }
  if (!ready.reason.empty()) return refused("the server says: " + ready.reason);
  return agreed;
}

}  // namespace agentnic::bulk
