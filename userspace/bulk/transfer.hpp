// SPDX-License-Identifier: Apache-2.0
#pragma once

/// One direction of a session: files offered, moved, checked, put in their places. Either end may be the
/// client.
///
/// For each file: Offer; Have, with what the other end has of it and its digest; Begin, from there or, if the
/// digests differ, from the start; content; End with the digest of all; Done. A plane that fails is left for
/// TCP: Fallback, then Have again.

#include <memory>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "bulk/channel.hpp"
#include "bulk/digest.hpp"
#include "bulk/meter.hpp"
#include "bulk/plane.hpp"
#include "bulk/root.hpp"

namespace agentnic::bulk {

/// What both directions work with.
struct Transfer {
  Channel& channel;
  Meter& meter;
  Digest digest = Digest::Xxh128;
  bool sync = true;               ///< of who receives
  std::unique_ptr<Plane> rdma;    ///< path C, until it fails
  std::unique_ptr<Plane> path_a;  ///< always there

  [[nodiscard]] Plane& plane() const { return rdma ? *rdma : *path_a; }
  /// Goes on by path A.
  void leave_rdma(const std::string& why);
  /// The same when the peer's next word is that it does; whether it was.
  Result<bool> take_fallback();

  /// What became of a file. `from`: where content began.
  void tell_failed(const Offer& offer, const std::string& why) const;
  void tell_skipped(const Offer& offer) const;
  void tell_moved(const Offer& offer, const Bytes& sum, std::uint64_t from) const;
};

/// Sends these; what cannot be read is counted and told. An error: the session is over.
Status send_files(Transfer& transfer, const Root& root, const std::vector<Offer>& files,
                  std::uint64_t left_out);

/// Receives what is offered, below the root; with names, what is one of these or in one of them, and nothing
/// else.
Status receive_files(Transfer& transfer, const Root& root, const std::vector<std::string>& names = {});

}  // namespace agentnic::bulk
