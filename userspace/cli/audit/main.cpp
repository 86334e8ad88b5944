// SPDX-License-Identifier: Apache-2.0
//
// agentnic-audit: what the guardian was asked, what it decided, and what it did by itself.

#include <fmt/format.h>

#include <chrono>
#include <iostream>
#include <optional>
#include <thread>

#include "audit/sentence.hpp"
#include "base/stop.hpp"
#include "cli/common/names.hpp"
#include "cli/common/program.hpp"
#include "kern/audit_ring.hpp"
#include "kern/instance.hpp"
#include "kern/libbpf_log.hpp"
#include "kern/maps.hpp"

namespace {

using namespace agentnic;
using agentnic::Json;

constexpr auto kPoll = std::chrono::milliseconds(50);

struct Options {
  std::string ifname;
  std::string netns;
  bool follow = false;
  bool take = false;
  bool json = false;
};

/// All of them, or an error: what could not be written must not be taken.
Status print(const std::vector<anic_record>& records, const audit::Names& names, const Options& options) {
  for (const anic_record& record : records) {
    if (options.json) {
      const Json line = {{"schema", "agentnic.record/1"},
                         {"interface", options.ifname},
                         {"netns", options.netns},
                         {"record", audit::record_json(record, names)}};
      std::cout << line.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n';
    } else {
      std::cout << audit::sentence(record, names) << '\n';
    }
  }
  if (!std::cout.flush()) return fail(Exit::Failed, "write records to standard output: it takes no more");
  return {};
}

Result<int> tail(const Options& options) {
  ANIC_TRY(kern::need_privileges("tail"));
  const kern::NetNs netns = ANIC_TRY(kern::NetNs::open_or_current(options.netns));
  const auto status = ANIC_TRY(kern::need_attached(netns, options.ifname, "read the audit of"));
  const kern::Maps maps = ANIC_TRY(kern::Maps::pinned(status.dir));
  const kern::AuditRing ring = ANIC_TRY(kern::AuditRing::open(maps, options.take));
  if (options.follow) catch_stop_signals();
  for (std::optional<std::uint64_t> position;;) {
    const kern::RecordsRead read = ANIC_TRY(ring.peek(position));
    position = read.position;
    // Names of now: a policy may have come in force.
    if (!read.records.empty()) ANIC_TRY(print(read.records, ANIC_TRY(cli::read_audit_names(maps)), options));
    if (options.take) ring.take(read.position);
    if (!options.follow || stop_requested()) return 0;
    std::this_thread::sleep_for(kPoll);
  }
}

}  // namespace

int main(int argc, char** argv) {
  cli::Program program("agentnic-audit", "Reads what the guardian was asked, and what it decided.");
  Options options;
  program.app().add_flag_callback("-v", [] { kern::capture_libbpf_log(true); }, "print what libbpf says");
  kern::capture_libbpf_log(false);
  CLI::App* command = program.command("tail", "print the records that are in the kernel's ring",
                                      [&] { return tail(options); });
  command->add_option("IFACE", options.ifname, "interface")->required();
  command->add_option("--netns", options.netns, "look for it in this network namespace (ip netns)");
  command->add_flag("--follow", options.follow, "and those that come, until Ctrl-C");
  command->add_flag("--take", options.take, "take what was printed out of the ring, which makes room");
  command->add_flag("--json", options.json, "print JSON lines; units are in the key names");
  return program.main(argc, argv);
}
