// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Reads and exports of a log are recorded: readers ask the recorder, which has the kernel write the record.
/// One datagram there, one back, over DIR/socket (SOCK_SEQPACKET).

#include <cstdint>
#include <string>

#include "abi/audit.h"
#include "base/result.hpp"

namespace agentnic::cli {

struct ReadRequest {
  std::uint32_t version = 1;
  std::uint32_t kind = 0;    ///< ANIC_RECORD_READ or _EXPORT
  std::uint32_t tenant = 0;  ///< id, or 0
  std::uint32_t pad = 0;
  char reason[ANIC_TEXT_LEN] = {};
};

struct ReadAnswer {
  std::uint64_t sealed = 0;  ///< records under a checkpoint by then; of an export, its record is among them
  char why_not[192] = {};    ///< why it was not recorded, ended by a NUL; empty: it was
};

/// Path of the socket as bind() and connect() take it, however long the folder's is. `dir_fd`: the folder.
std::string socket_path(int dir_fd);

/// Asks for the record. Fails where it cannot be written: then nothing may be read. True: it is recorded.
/// False: no recorder is at work, and nothing can record it.
Result<bool> record_reading(const std::string& dir, anic_record_kind kind, std::uint32_t tenant,
                            const std::string& reason);

}  // namespace agentnic::cli
