// SPDX-License-Identifier: Apache-2.0
#include "cli/audit/verify.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>
#include <fstream>
#include <iostream>
#include <utility>

#include "audit/export.hpp"
#include "audit/log.hpp"
#include "audit/verify.hpp"
#include "base/file.hpp"
#include "cli/common/program.hpp"

namespace agentnic::cli {
namespace {

constexpr std::size_t kKeyMost = 4096;
constexpr int kBroken = 1;
constexpr int kCannotTell = 5;

int status_of(audit::Verdict verdict) {
  return verdict == audit::Verdict::Valid ? 0 : verdict == audit::Verdict::Broken ? kBroken : kCannotTell;
}

const char* word_of(audit::Verdict verdict) {
  return verdict == audit::Verdict::Valid    ? "valid"
         : verdict == audit::Verdict::Broken ? "broken"
                                             : "cannot tell";
}

Json fault_json(const std::optional<audit::Fault>& fault) {
  if (!fault) return nullptr;
  return {{"attack", audit::attack_name(fault->attack)},
          {"file", fault->file},
          {"byte", fault->byte},
          {"index", or_null(fault->index)},
          {"seq", or_null(fault->seq)},
          {"what", fault->what}};
}

std::string fault_text(const audit::Fault& fault) {
  return fmt::format("{}: {}{}, {} at byte {}: {}\n", audit::attack_name(fault.attack),
                     fault.index ? fmt::format("record {}", *fault.index) : std::string("a checkpoint"),
                     fault.seq ? fmt::format(" (#{} of its chain)", *fault.seq) : "", fault.file, fault.byte,
                     fault.what);
}

void print(const audit::Verification& found, const VerifyLogOptions& options, const audit::VerifierKey& key) {
  if (options.json) {
    print_json({{"schema", "agentnic.verify/1"},
                {"log", options.log},
                {"origin", key.origin},
                {"mode", options.chain_key.empty() ? "public" : "keyed"},
                {"verdict", word_of(found.verdict)},
                {"live", found.live},
                {"records", found.records},
                {"sealed_records", found.sealed},
                {"keyed_records", found.keyed},
                {"checkpoints", found.checkpoints},
                {"root", found.root},
                {"chains", found.chains},
                {"chains_without_end", found.chains_without_end},
                {"fault", fault_json(found.fault)}});
    return;
  }
  std::cout << fmt::format("{}: {} records of {}, {} of them under {} checkpoints, in {} chains{}\n",
                           word_of(found.verdict), found.records, key.origin, found.sealed, found.checkpoints,
                           found.chains,
                           options.chain_key.empty() ? "" : fmt::format("; {} MACs", found.keyed));
  if (found.fault) std::cout << "  " << fault_text(*found.fault);
  if (found.chains_without_end != 0)
    std::cout << fmt::format(
        "  {} chains have no last record: what came after, if anything, nobody can know\n",
        found.chains_without_end);
  if (found.live && found.records > found.sealed)
    std::cout << fmt::format("  a recorder is at work; {} records wait for the next checkpoint\n",
                             found.records - found.sealed);
}

Result<int> verify_export(const VerifyLogOptions& options, const audit::VerifierKey& key) {
  std::ifstream file(options.exported);
  if (!file) return fail(Exit::BadInput, "read " + options.exported + ": it cannot be opened");
  audit::ExportChecker checker(key);
  Status good;
  for (std::string line; good && std::getline(file, line);) good = checker.add(line);
  auto check = good ? checker.finish() : Result<audit::ExportCheck>(fail(std::move(good.error())));
  if (!check) {
    if (options.json) {
      print_json({{"schema", "agentnic.verify_export/1"},
                  {"file", options.exported},
                  {"verdict", "broken"},
                  {"what", check.error().what}});
    }
    Error error = check.error();
    error.what = fmt::format("verify {}: {}", options.exported, error.what);
    return fail(std::move(error));
  }
  const bool complete = check->complete();
  if (options.json) {
    Json parts = Json::array();
    for (const audit::Tenancy& part : check->tenancies)
      parts.push_back({{"first_index", part.first}, {"records", part.records}, {"complete", part.complete}});
    print_json(
        {{"schema", "agentnic.verify_export/1"},
         {"file", options.exported},
         {"origin", key.origin},
         {"verdict", complete ? "valid" : "cannot tell"},
         {"tenant", check->tenant},
         {"records", check->records},
         {"log_records", check->size},
         {"exported_at_unix_ns", check->exported_at_ns == 0 ? Json(nullptr) : Json(check->exported_at_ns)},
         {"parts", parts}});
  } else {
    std::cout << fmt::format("{}: {} records of tenant {}, all in the log of {} records of {}\n",
                             complete ? "valid" : "cannot tell", check->records, check->tenant, check->size,
                             key.origin);
    if (check->exported_at_ns != 0)
      std::cout << fmt::format("  complete up to its export at {:%Y-%m-%dT%H:%M:%SZ}\n",
                               fmt::gmtime(static_cast<std::time_t>(check->exported_at_ns / 1'000'000'000)));
    for (const audit::Tenancy& part : check->tenancies) {
      if (!part.complete)
        std::cout << fmt::format(
            "  nothing proves that the {} records from record {} of the log on are all\n", part.records,
            part.first);
    }
  }
  return complete ? 0 : kCannotTell;
}

}  // namespace

Result<int> verify(const VerifyLogOptions& options) {
  if (options.log.empty() == options.exported.empty())
    return fail(Exit::BadInput, "verify: what? A log, or an export",
                "agentnic-audit verify DIR, or --export FILE");
  const audit::VerifierKey key =
      ANIC_TRY(audit::parse_verifier_key(ANIC_TRY(read_file(options.public_key, kKeyMost))));
  if (!options.exported.empty()) return verify_export(options, key);
  audit::VerifyOptions wanted;
  if (!options.chain_key.empty())
    wanted.chain_key =
        ANIC_TRY(audit::parse_chain_key(ANIC_TRY(read_secret_file(options.chain_key, kKeyMost))));
  for (const std::string& other : options.others)
    wanted.others.emplace_back(other, ANIC_TRY(read_file(other, audit::kNotesMost)));
  const audit::Verification found = ANIC_TRY(audit::verify_log(options.log, key, wanted));
  print(found, options, key);
  return status_of(found.verdict);
}

}  // namespace agentnic::cli
