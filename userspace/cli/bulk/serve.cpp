// SPDX-License-Identifier: Apache-2.0
#include "cli/bulk/serve.hpp"

#include <fmt/format.h>

#include <iostream>
#include <memory>
#include <optional>

#include "base/stop.hpp"
#include "base/user.hpp"
#include "bulk/session.hpp"
#include "cli/bulk/options.hpp"
#include "cli/common/address.hpp"

namespace agentnic::cli {
namespace {

struct Options {
  BulkOptions bulk;
  std::string root;
  std::string listen;
  std::string user;
  unsigned sessions = 16;
  bool read_only = false;
};

void print_served(const Options& options, const bulk::Served& served) {
  if (options.bulk.json) {
    Json line = {{"peer", served.peer}, {"verb", served.verb.empty() ? Json(nullptr) : Json(served.verb)}};
    line.update(to_json(served.totals));
    line["error"] = served.error.empty() ? Json(nullptr) : Json(served.error);
    print_event("session", line);
  } else if (!served.error.empty()) {
    std::cerr << fmt::format("agentnic-bulk: session of {}: {}\n", served.peer, served.error);
  } else {
    std::cout << fmt::format("{} {}: {}\n", served.peer, served.verb, summary(served.totals)) << std::flush;
  }
}

Result<int> serve(const Options& options) {
  catch_stop_signals();
  const path::Address local = ANIC_TRY(parse_address(options.listen));
  const bulk::Secret secret = ANIC_TRY(bulk::Secret::read(options.bulk.secret));
  std::optional<User> user;
  if (!options.user.empty()) user = ANIC_TRY(find_user(options.user, "--user"));
  const bulk::Root root = ANIC_TRY(bulk::Root::open(options.root));
  bulk::Server server = ANIC_TRY(bulk::Server::open(local,
                                                    {.session = ANIC_TRY(session_options(options.bulk)),
                                                     .sessions_most = options.sessions,
                                                     .read_only = options.read_only},
                                                    secret, root));
  ANIC_TRY(user ? become_user(*user) : keep_capabilities({}));
  ANIC_TRY(server.ready());
  const std::string address = ANIC_TRY(server.address()).text();
  if (options.bulk.json) {
    print_event("ready", {{"address", address}, {"root", options.root}});
  } else {
    std::cout << fmt::format("serves {} at {}\n", options.root, address) << std::flush;
  }
  server.run([&](const bulk::Served& served) { print_served(options, served); });
  return 0;
}

}  // namespace

void add_bulk_serve(Program& program) {
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      program.command("serve", "serve a folder to push to and pull from", [=] { return serve(*options); });
  command->add_option("--root", options->root, "the folder, which it never leaves")->required();
  command->add_option("--listen", options->listen, "address and port")->required();
  add_bulk_options(*command, options->bulk);
  command->add_option("--sessions", options->sessions, "sessions at a time, of peers that know the secret")
      ->capture_default_str()
      ->check(CLI::Range(1U, 1024U));
  command->add_flag("--read-only", options->read_only, "nobody can push");
  command->add_option("--user", options->user, "become this user; capabilities are given up in any case");
}

}  // namespace agentnic::cli
