// SPDX-License-Identifier: Apache-2.0
#include "cli/bulk/options.hpp"

#include <fmt/format.h>

#include <iostream>
#include <map>
#include <memory>
#include <utility>

#include "kern/budget.hpp"
#include "kern/instance.hpp"
#include "policy/units.hpp"

namespace agentnic::cli {
namespace {

const std::map<std::string, bulk::Transport> kTransports = {{"auto", bulk::Transport::Auto},
                                                            {"tcp", bulk::Transport::Tcp},
                                                            {"uring", bulk::Transport::Uring},
                                                            {"rdma", bulk::Transport::Rdma}};

double gbps(std::uint64_t bytes, double seconds) {
  return seconds > 0 ? static_cast<double>(bytes) * 8e-9 / seconds : 0;
}

// Of a budget, which is of bytes on the wire: the rest is for headers. RoCEv2 with an MTU of 1024 takes 8 %.
constexpr std::uint64_t kContentPercent = 90;

Result<std::shared_ptr<bulk::Pacer>> budget_pacer(const BulkOptions& options) {
  const kern::NetNs netns = ANIC_TRY(kern::NetNs::open_or_current(options.netns));
  const auto status = ANIC_TRY(kern::need_attached(netns, options.budget, "read the budget of"));
  const auto budget =
      std::make_shared<kern::BulkBudget>(ANIC_TRY(kern::BulkBudget::open(status.dir, options.tenant)));
  return std::make_shared<bulk::Pacer>([budget] { return budget->bps() / 100 * kContentPercent; });
}

}  // namespace

void add_bulk_options(CLI::App& command, BulkOptions& options) {
  command.add_option("--secret", options.secret, "file with the secret that both ends share, mode 0400")
      ->required();
  command.add_option("--rate", options.rate, "content that is sent at most, such as 2.5Gbit");
  CLI::Option* budget = command.add_option(
      "--budget", options.budget,
      "keep to what policy and guardian give a tenant's bulk on this interface, at any moment");
  budget->needs(command.add_option("--tenant", options.tenant, "whose budget")->needs(budget));
  command.add_option("--netns", options.netns, "look for the interface in this network namespace (ip netns)")
      ->needs(budget);
  command
      .add_option("--timeout", options.timeout_s, "seconds without a byte after which the other end is gone")
      ->capture_default_str()
      ->check(CLI::Range(1U, 3600U));
  command
      .add_option("--transport", options.transport,
                  "auto: RDMA where both ends have it, else TCP; uring: TCP over io_uring")
      ->capture_default_str()
      ->check(CLI::IsMember(kTransports));
  command.add_option("--device", options.device,
                     "this RDMA device alone; else the one that has the connection's address");
  command.add_option("--slots", options.slots, "pieces of memory for RDMA")
      ->capture_default_str()
      ->check(CLI::Range(2, 1024));
  command.add_option("--slot-kib", options.slot_kib, "the size of each in KiB")
      ->capture_default_str()
      ->check(CLI::Range(4, 65536));
  command.add_flag("--json", options.json, "print JSON lines; units are in the key names");
}

Result<std::uint64_t> rate_of(const BulkOptions& options) {
  if (options.rate.empty()) return 0;
  const std::uint64_t rate = ANIC_TRY(policy::parse_rate(options.rate));
  if (rate < bulk::kRateLeast)
    return fail(Exit::BadInput, fmt::format("--rate {} is less than 64kbit", options.rate));
  return rate;
}

Result<bulk::SessionOptions> session_options(const BulkOptions& options) {
  bulk::SessionOptions session{
      .timeout_ms = static_cast<int>(options.timeout_s) * 1000,
      .transport = kTransports.at(options.transport),
      .rdma = {.device = options.device, .slots = options.slots, .slot_bytes = options.slot_kib << 10U}};
  if (const std::uint64_t rate = ANIC_TRY(rate_of(options)); rate != 0)
    session.pacers.push_back(std::make_shared<bulk::Pacer>([rate] { return rate; }));
  if (!options.budget.empty()) session.pacers.push_back(ANIC_TRY(budget_pacer(options)));
  return session;
}

void print_event(const char* event, const Json& members) {
  Json line = {{"schema", "agentnic.bulk/1"}, {"event", event}};
  line.update(members);
  std::cout << line.dump(-1, ' ', false, Json::error_handler_t::replace) << std::endl;
}

Json to_json(const bulk::Totals& totals) {
  return {{"files", totals.files},
          {"skipped", totals.skipped},
          {"failed", totals.failed},
          {"left_out", totals.left_out},
          {"planned_files", totals.planned_files},
          {"planned_bytes", totals.planned_bytes},
          {"moved_bytes", totals.moved_bytes},
          {"there_bytes", totals.there_bytes},
          {"registration_us", static_cast<double>(totals.registration_ns) * 1e-3},
          {"seconds", totals.seconds()},
          {"gbps", gbps(totals.moved_bytes, totals.seconds())},
          {"obtained", or_null(totals.how)},
          {"fallback", or_null(totals.fallback)},
          {"rdma_port", or_null(totals.rdma_port)},
          {"why_not_rdma", or_null(totals.why_not_rdma)},
          {"first_failure", or_null(totals.first_failure)}};
}

std::string summary(const bulk::Totals& totals) {
  std::string text = fmt::format("{} file{}, {:.1f} MB in {:.2f} s ({:.2f} Gbit/s) by {}", totals.files,
                                 totals.files == 1 ? "" : "s", static_cast<double>(totals.moved_bytes) * 1e-6,
                                 totals.seconds(), gbps(totals.moved_bytes, totals.seconds()), totals.how);
  if (!totals.rdma_port.empty()) text += " over " + totals.rdma_port;
  if (totals.registration_ns != 0)
    text += fmt::format(", its memory registered in {:.2f} ms before",
                        static_cast<double>(totals.registration_ns) * 1e-6);
  if (!totals.why_not_rdma.empty()) text += fmt::format(" (no RDMA: {})", totals.why_not_rdma);
  if (!totals.fallback.empty()) text += fmt::format(", then by path A: {}", totals.fallback);
  if (totals.skipped != 0) text += fmt::format("; {} there already", totals.skipped);
  if (totals.left_out != 0) text += fmt::format("; {} left out: neither files nor folders", totals.left_out);
  if (totals.failed != 0) text += fmt::format("; {} failed", totals.failed);
  return text;
}

}  // namespace agentnic::cli
