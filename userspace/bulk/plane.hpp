// SPDX-License-Identifier: Apache-2.0
#pragma once

/// How the content of files gets from one end to the other. What goes on beside it (offers, digests, ends)
/// goes by the channel.

#include <cstdint>
#include <string>

#include "base/result.hpp"
#include "bulk/channel.hpp"
#include "bulk/digest.hpp"
#include "bulk/meter.hpp"

namespace agentnic::bulk {

/// A range of a file; -1: of none, and what comes is thrown away.
struct Range {
  int fd = -1;
  std::uint64_t from = 0;
  std::uint64_t to = 0;
};

enum class Ending : std::uint8_t {
  Whole,        ///< all of it was sent, or has been received
  Interrupted,  ///< the peer has said something: it is next in the channel
  File,         ///< the file could not be read, or written: `why`
  Plane,        ///< this way is of no use any more: `why`
};

struct Outcome {
  Ending ending = Ending::Whole;
  std::uint64_t bytes = 0;  ///< sent, or in the file, from the beginning of the range
  std::string why = {};
};

class Plane {
 public:
  Plane() = default;
  Plane(const Plane&) = delete;
  Plane& operator=(const Plane&) = delete;
  virtual ~Plane() = default;

  /// Each feeds the hasher with what it moves, in order. An error: the channel is gone.
  virtual Result<Outcome> send(Channel& channel, const Range& range, Hasher& hasher, Meter& meter) = 0;
  virtual Result<Outcome> receive(Channel& channel, const Range& range, Hasher& hasher, Meter& meter) = 0;
  [[nodiscard]] virtual std::string name() const = 0;
};

}  // namespace agentnic::bulk
