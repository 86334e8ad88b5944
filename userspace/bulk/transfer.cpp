// SPDX-License-Identifier: Apache-2.0
#include "bulk/transfer.hpp"

#include "base/hex.hpp"

namespace agentnic::bulk {

void Transfer::leave_rdma(const std::string& why) {
  if (!rdma) return;
  rdma.reset();
  meter.tell({.what = Event::What::Fallback, .how = path_a->name(), .why = why});
}

Result<bool> Transfer::take_fallback() {
  if (ANIC_TRY(channel.peek()).kind != Kind::Fallback) return false;
  leave_rdma(ANIC_TRY(channel.expect<Reason>(Kind::Fallback)).reason);
  return true;
}

void Transfer::tell_failed(const Offer& offer, const std::string& why) const {
  meter.tell({.what = Event::What::Failed, .path = offer.path, .why = why, .bytes = offer.size});
}

void Transfer::tell_skipped(const Offer& offer) const {
  meter.totals.there_bytes += offer.size;
  meter.tell({.what = Event::What::Skipped, .path = offer.path, .bytes = offer.size});
}

void Transfer::tell_moved(const Offer& offer, const Bytes& sum, std::uint64_t from) const {
  meter.totals.there_bytes += from;
  meter.tell({.what = Event::What::File,
              .path = offer.path,
              .how = plane().name(),
              .digest = hex(sum),
              .bytes = offer.size,
              .resumed = from});
}

}  // namespace agentnic::bulk
