// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Whether a session has path C: both ends open a queue pair, tell each other of it, and connect them.

#include <memory>
#include <string>

#include "base/result.hpp"
#include "bulk/channel.hpp"
#include "bulk/rdma_plane.hpp"
#include "bulk/wire.hpp"

namespace agentnic::bulk {

struct Agreed {
  std::unique_ptr<RdmaPlane> rdma = nullptr;
  std::string why_not = {};  ///< when there is none
};

/// What an end brings.
struct Offered {
  bool may = true;  ///< false: this end was told to use TCP
  RdmaOptions rdma = {};
  Connect connect = Connect::Exchange;
  bool receives = false;  ///< content
};

/// After a request for it. An error: the channel is gone.
Result<Agreed> agree_as_server(Channel& channel, const Offered& offered);
Result<Agreed> agree_as_client(Channel& channel, const Offered& offered);

}  // namespace agentnic::bulk
