// SPDX-License-Identifier: Apache-2.0
//
// agentnic-router: spreads UDP requests over backends, as an unprivileged owner of AF_XDP sockets.

#include <fmt/format.h>

#include <iostream>

#include "base/stop.hpp"
#include "cli/common/address.hpp"
#include "cli/common/xsk_options.hpp"
#include "cli/router/router.hpp"

namespace {

using namespace agentnic;
using agentnic::Json;

struct Options {
  cli::XskOptions xsk;
  std::uint16_t port = 0;
  std::vector<std::string> backends;
};

Result<path::Endpoint> parse_backend(const std::string& text) {
  const auto backend = path::Endpoint::from(ANIC_TRY(cli::parse_address(text)));
  if (backend.port == 0) return fail(Exit::BadInput, fmt::format("{} has no port", text));
  return backend;
}

Result<int> route(const Options& options) {
  catch_stop_signals();
  std::vector<path::Endpoint> backends;
  for (const std::string& one : options.backends) backends.push_back(ANIC_TRY(parse_backend(one)));
  auto client = ANIC_TRY(cli::connect(options.xsk));
  auto router = ANIC_TRY(cli::Router::open(client, options.port, backends));
  cli::announce("agentnic.router/1", options.xsk, client);
  router.run(cli::kWaits.at(options.xsk.wait));
  const cli::RouterCounters& counters = router.counters();
  if (options.xsk.json) {
    Json json = {
        {"schema", "agentnic.router/1"},       {"service", options.xsk.request.service},
        {"requests", counters.requests},       {"answers", counters.answers},
        {"timeouts", counters.timeouts},       {"refused_requests", counters.refused},
        {"unknown_answers", counters.unknown}, {"unread", counters.unread},
        {"unsent", counters.unsent},           {"sent_by_kernel", router.sender().counters().by_kernel},
        {"of_backends", counters.of_backends}};
    json.update(cli::to_json(client));
    std::cout << json.dump() << '\n';
  } else {
    std::cout << fmt::format("routed {} requests, {} answers, {} without one\n", counters.requests,
                             counters.answers, counters.timeouts);
  }
  if (!client.gone()) return 0;
  return fail(Exit::Failed, fmt::format("interface {} is gone", client.grant().ifname));
}

}  // namespace

int main(int argc, char** argv) {
  cli::Program program(
      "agentnic-router",
      "Spreads UDP requests over backends, over AF_XDP sockets that agentnic-load serve hands out.");
  Options options;
  cli::add_xsk_options(program.app(), options.xsk);
  program.app().add_option("--port", options.port, "of the service")->required()->check(CLI::Range(1, 65535));
  program.app()
      .add_option("--backend", options.backends, "ADDRESS:PORT of who answers; again for each")
      ->required();
  program.only([&] { return route(options); });
  return program.main(argc, argv);
}
