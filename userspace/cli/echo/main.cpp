// SPDX-License-Identifier: Apache-2.0
//
// agentnic-echo: sends UDP datagrams back, as an unprivileged owner of AF_XDP sockets.

#include <fmt/format.h>

#include <iostream>

#include "base/stop.hpp"
#include "cli/common/xsk_options.hpp"
#include "path/xsk/echo.hpp"

namespace {

using namespace agentnic;
using agentnic::Json;

Result<int> echo(const cli::XskOptions& options) {
  catch_stop_signals();
  auto client = ANIC_TRY(cli::connect(options));
  cli::announce("agentnic.echo/1", options, client);
  const path::XskEchoCounters counters = path::echo_xsk(client, cli::kWaits.at(options.wait));
  if (options.json) {
    Json json = {{"schema", "agentnic.echo/1"},
                 {"service", options.request.service},
                 {"echoed", counters.echo.packets},
                 {"failed", counters.echo.failed},
                 {"not_udp", counters.not_udp},
                 {"bad_checksums", counters.bad_checksums},
                 {"completed_checksums", counters.completed_checksums}};
    json.update(cli::to_json(client));
    std::cout << json.dump() << '\n';
  } else {
    std::cout << fmt::format("echoed {}, failed {}\n", counters.echo.packets, counters.echo.failed);
  }
  if (!client.gone()) return 0;
  return fail(Exit::Failed, fmt::format("interface {} is gone", client.grant().ifname));
}

}  // namespace

int main(int argc, char** argv) {
  cli::Program program("agentnic-echo",
                       "Sends UDP datagrams back, over AF_XDP sockets that agentnic-load serve hands out.");
  cli::XskOptions options;
  cli::add_xsk_options(program.app(), options);
  program.only([&] { return echo(options); });
  return program.main(argc, argv);
}
