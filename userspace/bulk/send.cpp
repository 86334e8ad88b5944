// SPDX-License-Identifier: Apache-2.0
#include <optional>
#include <utility>

#include "bulk/transfer.hpp"

namespace agentnic::bulk {
namespace {

class Sender {
 public:
  Sender(Transfer& transfer, const Root& root) : transfer_(transfer), root_(root) {}

  Status send(const Offer& listed);
  [[nodiscard]] std::uint64_t unread() const { return unread_; }
  [[nodiscard]] const std::string& why() const { return why_; }

 private:
  /// From Have to its end, or to a fallback: then false.
  Result<bool> send_content(const Source& source, const Offer& offer);
  /// The receiver could not write it.
  Result<bool> interrupted(const Offer& offer, std::uint64_t sent);
  Result<bool> give_up(const Offer& offer, std::uint64_t sent, const std::string& why);
  Result<bool> end(const Source& source, const Offer& offer, const Hasher& hasher, std::uint64_t from);
  /// The receiver's answer to End or Abort; nothing: it falls back.
  Result<std::optional<Done>> await_done();

  Transfer& transfer_;
  const Root& root_;
  std::uint64_t unread_ = 0;
  std::string why_;
};

Status Sender::send(const Offer& listed) {
  auto source = root_.open_file(listed.path);
  if (!source) {
    ++unread_;
    if (why_.empty()) why_ = source.error().text();
    transfer_.tell_failed(listed, source.error().text());
    return {};
  }
  Offer offer = source->offer;
  offer.path = listed.path;
  ANIC_TRY(transfer_.channel.send(Kind::Offer, offer));
  while (!ANIC_TRY(send_content(*source, offer))) {
  }
  return {};
}

Result<bool> Sender::send_content(const Source& source, const Offer& offer) {
  Channel& channel = transfer_.channel;
  while (ANIC_TRY(transfer_.take_fallback())) {
  }
  if (channel.peek()->kind == Kind::Done) return interrupted(offer, 0);  // it failed there meanwhile
  const Have have = ANIC_TRY(channel.expect<Have>(Kind::Have));
  if (have.state == HaveState::Refused) {
    transfer_.tell_failed(offer, have.reason);
    return true;
  }
  if (have.state == HaveState::Whole) {
    if (!offer.folder) transfer_.tell_skipped(offer);
    return true;
  }
  if (have.offset > offer.size || offer.folder)
    return fail(Exit::BadInput, channel.peer() + " says that it has more of a file than there is");
  std::uint64_t from = have.offset;
  auto hasher = hash_beginning(source.fd.get(), from, transfer_.digest);
  // Without a digest nobody knows what is there.
  if (!hasher || !hasher->counts() || hasher->digest() != have.digest) {
    from = 0;
    hasher = Hasher(transfer_.digest);
  }
  ANIC_TRY(channel.send(Kind::Begin, Begin{.offset = from}));
  const Outcome outcome = ANIC_TRY(transfer_.plane().send(
      channel, {.fd = source.fd.get(), .from = from, .to = offer.size}, *hasher, transfer_.meter));
  switch (outcome.ending) {
    case Ending::Whole:
      return end(source, offer, *hasher, from);
    case Ending::File:
      return give_up(offer, outcome.bytes, outcome.why);
    case Ending::Plane:
      ANIC_TRY(channel.send(Kind::Fallback, Reason{.reason = outcome.why}));
      transfer_.leave_rdma(outcome.why);
      return false;
    case Ending::Interrupted:
      break;
  }
  if (ANIC_TRY(channel.peek()).kind == Kind::Fallback) return false;
  return interrupted(offer, outcome.bytes);
}

Result<bool> Sender::interrupted(const Offer& offer, std::uint64_t sent) {
  const Done done = ANIC_TRY(transfer_.channel.expect<Done>(Kind::Done));
  ANIC_TRY(transfer_.channel.send(Kind::Abort, Abort{.sent = sent, .reason = done.reason}));
  transfer_.tell_failed(offer, done.reason);
  return true;
}

Result<bool> Sender::end(const Source& source, const Offer& offer, const Hasher& hasher, std::uint64_t from) {
  const auto now = look_at(source.fd.get());
  if (!now || now->size != offer.size || now->mtime_ns != offer.mtime_ns)
    return give_up(offer, offer.size - from, "it changed while it was read");
  const Bytes digest = hasher.digest();
  ANIC_TRY(transfer_.channel.send(Kind::End, End{.digest = digest}));
  const auto done = ANIC_TRY(await_done());
  if (!done) return false;
  if (done->good) {
    transfer_.tell_moved(offer, digest, from);
  } else {
    transfer_.tell_failed(offer, done->reason);
  }
  return true;
}

Result<bool> Sender::give_up(const Offer& offer, std::uint64_t sent, const std::string& why) {
  ANIC_TRY(transfer_.channel.send(Kind::Abort, Abort{.sent = sent, .reason = why}));
  transfer_.tell_failed(offer, why);
  while (!ANIC_TRY(await_done())) {  // it fell back in vain
    ANIC_TRY(transfer_.channel.expect<Have>(Kind::Have));
  }
  return true;
}

Result<std::optional<Done>> Sender::await_done() {
  if (ANIC_TRY(transfer_.take_fallback())) return std::optional<Done>();
  return std::optional<Done>(ANIC_TRY(transfer_.channel.expect<Done>(Kind::Done)));
}

}  // namespace

Status send_files(Transfer& transfer, const Root& root, const std::vector<Offer>& files,
                  std::uint64_t left_out) {
  Totals& totals = transfer.meter.totals;
  totals.how = transfer.plane().name();
  totals.left_out = left_out;
  for (const Offer& file : files) {
    totals.planned_files += file.folder ? 0 : 1;
    totals.planned_bytes += file.size;
  }
  ANIC_TRY(
      transfer.channel.send(Kind::Plan, Plan{.files = totals.planned_files, .bytes = totals.planned_bytes}));
  Sender sender(transfer, root);
  for (const Offer& file : files) ANIC_TRY(sender.send(file));
  ANIC_TRY(transfer.channel.send(
      Kind::Bye, Bye{.failed = sender.unread(), .left_out = left_out, .reason = sender.why()}));
  // The other end's: all that it was told is done.
  ANIC_TRY(transfer.channel.expect<Bye>(Kind::Bye));
  return {};
}

}  // namespace agentnic::bulk
