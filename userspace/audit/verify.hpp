// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Is a log what the kernel wrote and the recorder signed? Reads the log alone, also while it grows.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "audit/chain_key.hpp"
#include "audit/note.hpp"
#include "base/result.hpp"

namespace agentnic::audit {

/// What it looks like. docs/audit.md says how each is told from the others.
enum class Attack {
  None,
  Changed,     ///< bits
  Gap,         ///< records are missing in the middle
  Truncation,  ///< ... at the end
  Replay,      ///< records stand there again
  Swap,        ///< two records in each other's place
  Resealing,   ///< consistent in itself, but not what was signed, or with a key of a later segment
  WrongKey,    ///< signed, or begun, with another key
  RemovedCheckpoint,
  OtherHistory,  ///< a checkpoint from elsewhere says something else
  UnsealedTail,  ///< the last records are under no signature
  UnknownKey,    ///< no key for a chain
};
std::string_view attack_name(Attack attack);

/// The first thing that is wrong, and where.
struct Fault {
  Attack attack = Attack::None;
  std::string file;                    ///< in the log; or the checkpoint from elsewhere
  std::uint64_t byte = 0;              ///< at which the record, hash or line begins
  std::optional<std::uint64_t> index;  ///< of the record in the log, from 0
  std::optional<std::uint64_t> seq;    ///< that it has, if it has one
  std::string what;                    ///< one sentence without its end
};

enum class Verdict { Valid, Broken, CannotTell };

struct Verification {
  Verdict verdict = Verdict::Valid;
  std::optional<Fault> fault;  ///< unless Valid
  bool live = false;           ///< a recorder is at work
  std::uint64_t records = 0;   ///< that were looked at
  std::uint64_t sealed = 0;    ///< under the last checkpoint
  std::uint64_t checkpoints = 0;
  std::uint64_t chains = 0;
  std::uint64_t chains_without_end = 0;  ///< but for the last of a live log
  std::uint64_t keyed = 0;               ///< records whose MAC was recomputed
  std::string root;                      ///< of the last checkpoint, base64
};

struct VerifyOptions {
  std::optional<ChainKey> chain_key;  ///< keyed: MACs, too
  /// Notes from elsewhere, each with a name for messages, that must be of this log.
  std::vector<std::pair<std::string, std::string>> others;
};

/// Errors are for what cannot be read. `dir` is a log.
Result<Verification> verify_log(const std::string& dir, const VerifierKey& key, const VerifyOptions& options);

}  // namespace agentnic::audit
