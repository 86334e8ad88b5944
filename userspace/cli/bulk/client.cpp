// SPDX-License-Identifier: Apache-2.0
#include "cli/bulk/client.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "base/stop.hpp"
#include "bulk/session.hpp"
#include "cli/bulk/options.hpp"
#include "cli/common/address.hpp"

namespace agentnic::cli {
namespace {

const std::map<std::string, bulk::Digest> kDigests = {
    {"xxh128", bulk::Digest::Xxh128}, {"sha256", bulk::Digest::Sha256}, {"none", bulk::Digest::None}};

const std::map<std::string, bulk::Connect> kConnects = {{"exchange", bulk::Connect::Exchange},
                                                        {"cm", bulk::Connect::Cm}};

struct Options {
  BulkOptions bulk;
  std::string server;
  std::vector<std::string> names;
  std::string root;    ///< local
  std::string folder;  ///< the server's
  std::string digest = "xxh128";
  std::string connect = "exchange";
  bool no_sync = false;
  bool dry_run = false;
  bool verbose = false;
};

/// A path without what says nothing: "./a//b/" is "a/b".
std::string plain(const std::string& path) {
  std::string text = std::filesystem::path(path).lexically_normal().string();
  while (text.size() > 1 && text.ends_with('/')) text.pop_back();
  return text == "." ? "" : text;
}

/// Without --root it is the folder that all the names are in.
Status find_root(Options& options) {
  const bool given = !options.root.empty();
  for (std::string& name : options.names) {
    name = plain(name);
    if (!given) {
      const std::filesystem::path path(name);
      const std::string folder = path.has_parent_path() ? path.parent_path().string() : ".";
      if (options.root.empty()) options.root = folder;
      if (folder != options.root) {
        return fail(Exit::BadInput, fmt::format("{} is not in the folder {}", name, options.root),
                    "--root DIR, and names below it");
      }
      name = path.filename();
    }
    ANIC_TRY(bulk::check_path(name));
  }
  return {};
}

/// What people see while it goes on, if they are there.
class Teller {
 public:
  explicit Teller(const Options& options) : options_(options), terminal_(::isatty(STDERR_FILENO) == 1) {}

  void operator()(const bulk::Event& event, const bulk::Totals& totals) {
    using What = bulk::Event::What;
    if (event.what == What::Progress) return progress(totals);
    clear();
    if (options_.bulk.json) return json(event);
    if (event.what == What::Failed) {
      std::cerr << fmt::format("agentnic-bulk: {}: {}\n", event.path, event.why);
    } else if (event.what == What::Fallback) {
      std::cerr << fmt::format("agentnic-bulk: goes on by {}: {}\n", event.how, event.why);
    } else if (options_.verbose) {
      std::cout << fmt::format("{} {} bytes{}\n", event.path, event.bytes,
                               event.what == What::Skipped ? ", there already"
                               : event.resumed != 0        ? fmt::format(", {} there before", event.resumed)
                                                           : "");
    }
  }
  void clear() {
    if (shown_) std::cerr << "\r\033[K" << std::flush;
    shown_ = false;
  }

 private:
  void json(const bulk::Event& event) const {
    static constexpr const char* kNames[] = {"file", "skipped", "failed", "fallback"};
    Json line = Json::object();
    if (event.what != bulk::Event::What::Fallback) {
      line["path"] = event.path;
      line["bytes"] = event.bytes;
    }
    if (event.what == bulk::Event::What::File) {
      line["resumed_bytes"] = event.resumed;
      line["by"] = event.how;
      line["digest"] = event.digest.empty() ? Json(nullptr) : Json(options_.digest + ":" + event.digest);
    }
    if (!event.why.empty()) line["why"] = event.why;
    print_event(kNames[static_cast<std::size_t>(event.what)], line);
  }
  void progress(const bulk::Totals& totals) {
    const std::uint64_t done = totals.moved_bytes + totals.there_bytes;
    const double rate = totals.seconds() > 0 ? static_cast<double>(totals.moved_bytes) / totals.seconds() : 0;
    const double left_s =
        rate > 0 && totals.planned_bytes > done ? static_cast<double>(totals.planned_bytes - done) / rate : 0;
    if (options_.bulk.json) {
      print_event("progress", {{"moved_bytes", totals.moved_bytes},
                               {"planned_bytes", totals.planned_bytes},
                               {"gbps", rate * 8e-9},
                               {"left_s", left_s}});
    } else if (terminal_) {
      std::cerr << fmt::format("\r\033[K{:.0f} % of {:.1f} MB, {:.2f} Gbit/s, {:.0f} s left",
                               totals.planned_bytes != 0 ? 100.0 * static_cast<double>(done) /
                                                               static_cast<double>(totals.planned_bytes)
                                                         : 100.0,
                               static_cast<double>(totals.planned_bytes) * 1e-6, rate * 8e-9, left_s)
                << std::flush;
      shown_ = true;
    }
  }

  const Options& options_;
  bool terminal_;
  bool shown_ = false;
};

Result<int> dry_run(const Options& options, const bulk::Root& root) {
  std::vector<std::string> left_out;
  const auto files = ANIC_TRY(root.list(options.names, left_out));
  std::uint64_t bytes = 0;
  std::uint64_t count = 0;
  for (const bulk::Offer& file : files) {
    bytes += file.size;
    count += file.folder ? 0 : 1;
    if (options.bulk.json) {
      print_event("would_send", {{"path", file.path}, {"bytes", file.size}, {"folder", file.folder}});
    } else {
      std::cout << file.path << (file.folder ? "/" : "") << '\n';
    }
  }
  if (!options.bulk.json)
    std::cout << fmt::format("would send {} files, {:.1f} MB; {} left out\n", count,
                             static_cast<double>(bytes) * 1e-6, left_out.size());
  return 0;
}

Result<int> run(Options options, bulk::Verb verb) {
  catch_stop_signals();
  const path::Address server = ANIC_TRY(parse_address(options.server));
  const bulk::Secret secret = ANIC_TRY(bulk::Secret::read(options.bulk.secret));
  if (verb == bulk::Verb::Push) {
    ANIC_TRY(find_root(options));
  } else {
    for (std::string& name : options.names) ANIC_TRY(bulk::check_path(name = plain(name)));
  }
  const bulk::Root root = ANIC_TRY(bulk::Root::open(options.root.empty() ? "." : options.root));
  if (options.dry_run) return dry_run(options, root);
  bulk::ClientOptions client{
      .session = ANIC_TRY(session_options(options.bulk)), .server = server, .request = {}};
  client.request = {.verb = verb,
                    .digest = kDigests.at(options.digest),
                    .rdma = options.bulk.transport == "auto" || options.bulk.transport == "rdma",
                    .connect = kConnects.at(options.connect),
                    .sync = !options.no_sync,
                    .rate_bps = ANIC_TRY(rate_of(options.bulk)),
                    .folder = plain(options.folder)};
  if (!client.request.folder.empty()) ANIC_TRY(bulk::check_path(client.request.folder));
  (verb == bulk::Verb::Push ? client.names : client.request.names) = options.names;
  Teller teller(options);
  bulk::Totals totals;
  const Status done = bulk::run_client(client, secret, root, totals, std::ref(teller));
  teller.clear();
  if (options.bulk.json) {
    Json end = to_json(totals);
    end["error"] = done ? Json(nullptr) : Json(done.error().what);
    print_event("end", end);
  } else if (done) {
    std::cout << summary(totals) << '\n';
  }
  if (!done) return fail(done.error());
  if (totals.failed == 0) return 0;
  return fail(Exit::Failed,
              fmt::format("{} of {} files failed, first: {}", totals.failed,
                          std::max(totals.planned_files, totals.failed), totals.first_failure),
              "run it again: what is there is not moved again");
}

void add_client(CLI::App* command, const std::shared_ptr<Options>& options) {
  command->add_option("SERVER", options->server, "address and port of agentnic-bulk serve")->required();
  add_bulk_options(*command, options->bulk);
  command->add_option("--digest", options->digest, "how content is checked")
      ->capture_default_str()
      ->check(CLI::IsMember(kDigests));
  command->add_option("--connect", options->connect, "queue pairs: by what both ends exchange, or by rdma_cm")
      ->capture_default_str()
      ->check(CLI::IsMember(kConnects));
  command->add_flag("--no-sync", options->no_sync, "files are called done before they are on the disk");
  command->add_flag("--verbose", options->verbose, "print each file");
}

}  // namespace

void add_push(Program& program) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = program.command("push", "send files and folders to a server",
                                      [=] { return run(*options, bulk::Verb::Push); });
  add_client(command, options);
  command->add_option("NAME", options->names, "files and folders")->required();
  command->add_option("--root", options->root, "the folder that the names are in; else it follows from them");
  command->add_option("--to", options->folder, "folder below the server's root");
  command->add_flag("--dry-run", options->dry_run, "print what would be sent, and send nothing");
}

void add_pull(Program& program) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = program.command("pull", "get files and folders from a server",
                                      [=] { return run(*options, bulk::Verb::Pull); });
  add_client(command, options);
  command->add_option("NAME", options->names, "files and folders")->required();
  command->add_option("--from", options->folder, "folder below the server's root that the names are in");
  command->add_option("--to", options->root, "folder to put them in")->default_str(".");
}

}  // namespace agentnic::cli
