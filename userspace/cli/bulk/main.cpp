// SPDX-License-Identifier: Apache-2.0
//
// agentnic-bulk: moves files and folders between hosts.

#include <memory>

#include "cli/bulk/client.hpp"
#include "cli/bulk/serve.hpp"
#include "cli/common/program.hpp"

int main(int argc, char** argv) {
  agentnic::cli::Program program("agentnic-bulk",
                                 "Moves checkpoints, shards and whole folders between hosts.");
  agentnic::cli::add_push(program);
  agentnic::cli::add_pull(program);
  agentnic::cli::add_bulk_serve(program);
  return program.main(argc, argv);
}
