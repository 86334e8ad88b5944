// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/hex.hpp"
#include "bulk/transfer.hpp"

namespace agentnic::bulk {
namespace {

class Receiver {
 public:
  Receiver(Transfer& transfer, const Root& root) : transfer_(transfer), root_(root) {}

  Status receive(const Offer& offer);
  Status refuse(const Offer& offer, const std::string& why);
  void clean_up() const { leftovers_.remove(root_); }

 private:
  /// From Have to its end, or to a fallback: then false.
  Result<bool> receive_content(Part& part, const Offer& offer);
  /// Begin; nothing: the file is through with.
  Result<std::optional<Begin>> await_begin(const Offer& offer);
  Result<bool> finish(Part& part, const Offer& offer, const Hasher& hasher, std::uint64_t from);
  /// Says that it failed; what is on its way comes first.
  Result<bool> fail_file(const Offer& offer, const std::string& why);
  /// The sender's Abort, answered.
  Status take_abort(const Offer& offer, const Abort& abort);

  Transfer& transfer_;
  const Root& root_;
  Leftovers leftovers_;
};

Status Receiver::refuse(const Offer& offer, const std::string& why) {
  transfer_.tell_failed(offer, why);
  return transfer_.channel.send(Kind::Have, Have{.state = HaveState::Refused, .reason = why});
}

Status Receiver::receive(const Offer& offer) {
  if (offer.folder) {
    if (const Status made = make_folder(root_, offer); !made) return refuse(offer, made.error().text());
    return transfer_.channel.send(Kind::Have, Have{.state = HaveState::Whole});
  }
  if (Part::is_whole(root_, offer)) {
    transfer_.tell_skipped(offer);
    return transfer_.channel.send(Kind::Have, Have{.state = HaveState::Whole, .offset = offer.size});
  }
  auto part = Part::open(root_, offer);
  if (!part) return refuse(offer, part.error().text());
  if (const Status room = part->reserve(); !room) return refuse(offer, room.error().text());
  while (!ANIC_TRY(receive_content(*part, offer))) {
  }
  return {};
}

Result<bool> Receiver::receive_content(Part& part, const Offer& offer) {
  Channel& channel = transfer_.channel;
  auto hasher = hash_beginning(part.fd(), part.size(), transfer_.digest);
  if (!hasher) {
    ANIC_TRY(part.cut(0));
    hasher = Hasher(transfer_.digest);
  }
  ANIC_TRY(channel.send(Kind::Have,
                        Have{.state = HaveState::Part, .offset = part.size(), .digest = hasher->digest()}));
  const auto begin = ANIC_TRY(await_begin(offer));
  if (!begin) return true;
  if (begin->offset != part.size()) {
    if (begin->offset != 0) return fail(Exit::BadInput, channel.peer() + " begins where nobody is");
    if (const Status cut = part.cut(0); !cut) return fail_file(offer, cut.error().text());
    hasher = Hasher(transfer_.digest);
  }
  const std::uint64_t from = part.size();
  Outcome outcome = ANIC_TRY(transfer_.plane().receive(
      channel, {.fd = part.fd(), .from = from, .to = offer.size}, *hasher, transfer_.meter));
  if (outcome.ending == Ending::Interrupted && transfer_.rdma &&
      ANIC_TRY(channel.peek()).kind == Kind::Data) {
    transfer_.leave_rdma("the sender goes by TCP");
    const std::uint64_t before = outcome.bytes;
    outcome = ANIC_TRY(transfer_.plane().receive(
        channel, {.fd = part.fd(), .from = from + before, .to = offer.size}, *hasher, transfer_.meter));
    outcome.bytes += before;
  }
  part.grown(outcome.bytes);
  switch (outcome.ending) {
    case Ending::Whole:
      return finish(part, offer, *hasher, from);
    case Ending::File:
      return fail_file(offer, outcome.why);
    case Ending::Plane:
      ANIC_TRY(channel.send(Kind::Fallback, Reason{.reason = outcome.why}));
      transfer_.leave_rdma(outcome.why);
      return false;
    case Ending::Interrupted:
      break;
  }
  if (ANIC_TRY(transfer_.take_fallback())) return false;
  const Abort abort = ANIC_TRY(channel.expect<Abort>(Kind::Abort));
  ANIC_TRY(
      part.cut(from + std::min(abort.sent, outcome.bytes)));  // what came after that was to fill a message
  ANIC_TRY(take_abort(offer, abort));
  return true;
}

Status Receiver::take_abort(const Offer& offer, const Abort& abort) {
  transfer_.tell_failed(offer, abort.reason);
  return transfer_.channel.send(Kind::Done, Done{.good = false, .reason = abort.reason});
}

Result<std::optional<Begin>> Receiver::await_begin(const Offer& offer) {
  Channel& channel = transfer_.channel;
  while (true) {
    switch (ANIC_TRY(channel.peek()).kind) {
      case Kind::Fallback:  // both ends noticed
      case Kind::End:       // was on its way
        ANIC_TRY(channel.receive());
        continue;
      case Kind::Abort:
        ANIC_TRY(take_abort(offer, ANIC_TRY(channel.expect<Abort>(Kind::Abort))));
        return std::optional<Begin>();
      default:
        return std::optional<Begin>(ANIC_TRY(channel.expect<Begin>(Kind::Begin)));
    }
  }
}

Result<bool> Receiver::finish(Part& part, const Offer& offer, const Hasher& hasher, std::uint64_t from) {
  Channel& channel = transfer_.channel;
  if (ANIC_TRY(transfer_.take_fallback())) return false;
  if (ANIC_TRY(channel.peek()).kind == Kind::Abort) {
    const Abort abort = ANIC_TRY(channel.expect<Abort>(Kind::Abort));
    ANIC_TRY(part.cut(0));  // whatever came, it is not that version
    ANIC_TRY(take_abort(offer, abort));
    return true;
  }
  const End end = ANIC_TRY(channel.expect<End>(Kind::End));
  std::string why;
  if (end.digest != hasher.digest()) {
    why = fmt::format("the content that arrived is not what was sent: {} {}, expected {}",
                      digest_name(transfer_.digest), hex(hasher.digest()), hex(end.digest));
    ANIC_TRY(part.cut(0));
  } else if (const Status done = part.finish(transfer_.sync); !done) {
    why = done.error().text();
  }
  if (!why.empty()) {
    transfer_.tell_failed(offer, why);
  } else {
    leftovers_.finished(offer.path);
    transfer_.tell_moved(offer, end.digest, from);
  }
  ANIC_TRY(channel.send(Kind::Done, Done{.good = why.empty(), .reason = why}));
  return true;
}

Result<bool> Receiver::fail_file(const Offer& offer, const std::string& why) {
  Channel& channel = transfer_.channel;
  transfer_.tell_failed(offer, why);
  ANIC_TRY(channel.send(Kind::Done, Done{.good = false, .reason = why}));
  Hasher none(Digest::None);
  const Outcome rest = ANIC_TRY(
      transfer_.plane().receive(channel, {.fd = -1, .from = 0, .to = UINT64_MAX}, none, transfer_.meter));
  if (rest.ending == Ending::Plane) transfer_.leave_rdma(rest.why);
  // End, when all was sent before it was heard.
  while (true) {
    const Frame frame = ANIC_TRY(channel.receive());
    if (frame.kind == Kind::End || frame.kind == Kind::Abort) return true;
    if (frame.kind != Kind::Fallback)
      return fail(Exit::BadInput, channel.peer() + " does not end a file that failed");
    transfer_.leave_rdma("the peer left it");
  }
}

bool is_asked_for(const std::vector<std::string>& names, const std::string& path) {
  return names.empty() || std::ranges::any_of(names, [&](const std::string& name) {
           return path == name || path.starts_with(name + "/");
         });
}

}  // namespace

Status receive_files(Transfer& transfer, const Root& root, const std::vector<std::string>& names) {
  Channel& channel = transfer.channel;
  Totals& totals = transfer.meter.totals;
  totals.how = transfer.plane().name();
  const Plan plan = ANIC_TRY(channel.expect<Plan>(Kind::Plan));
  totals.planned_files = plan.files;
  totals.planned_bytes = plan.bytes;
  Receiver receiver(transfer, root);
  while (ANIC_TRY(channel.peek()).kind != Kind::Bye) {
    const Offer offer = ANIC_TRY(channel.expect<Offer>(Kind::Offer));
    ANIC_TRY(is_asked_for(names, offer.path) ? receiver.receive(offer)
                                             : receiver.refuse(offer, "nobody asked for it"));
  }
  const Bye bye = ANIC_TRY(channel.expect<Bye>(Kind::Bye));
  receiver.clean_up();
  totals.left_out = bye.left_out;
  totals.failed += bye.failed;
  if (totals.first_failure.empty()) totals.first_failure = bye.reason;
  return channel.send(Kind::Bye, Bye{});
}

}  // namespace agentnic::bulk
