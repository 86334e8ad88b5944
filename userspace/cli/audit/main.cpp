// SPDX-License-Identifier: Apache-2.0
//
// agentnic-audit: what the guardian was asked, what it decided, and what it did by itself: kept, shown,
// verified, and handed out to those whom it concerns.

#include <string>
#include <vector>

#include "cli/audit/export.hpp"
#include "cli/audit/keygen.hpp"
#include "cli/audit/record.hpp"
#include "cli/audit/tail.hpp"
#include "cli/audit/verify.hpp"
#include "cli/common/program.hpp"
#include "kern/libbpf_log.hpp"

namespace {

using namespace agentnic;

constexpr const char* kJson = "print JSON; units are in the key names";

void add_keygen(cli::Program& program, cli::KeygenOptions& options) {
  CLI::App* command =
      program.command("keygen", "make the keys of a log", [&] { return cli::keygen(options); });
  command->add_option("DIR", options.out, "folder for log.key, log.pub and chain.key")->required();
  command
      ->add_option("--origin", options.origin, "what the log is called, such as audit.example.net/host7/eth1")
      ->required();
  command->add_flag("--json", options.json, kJson);
}

void add_record(cli::Program& program, cli::RecordOptions& options) {
  CLI::App* command = program.command("record", "keep the records of an interface in a log",
                                      [&] { return cli::record(options); });
  command->add_option("IFACE", options.ifname, "interface")->required();
  command->add_option("--netns", options.netns, "look for it in this network namespace (ip netns)");
  command->add_option("--log", options.log, "folder of the log")->required();
  command->add_option("--key", options.key, "file with the signing key (log.key)")->required();
  command->add_option("--user", options.user, "whom the log belongs to; the recorder becomes it")
      ->capture_default_str();
  command->add_option("--group", options.group, "who may read the log; without it, the user's group");
  command->add_option("--sync-ms", options.sync_ms, "how often records are brought to the disk, at the least")
      ->capture_default_str()
      ->check(CLI::Range(1, 60'000));
  command
      ->add_option("--checkpoint-seconds", options.checkpoint_seconds,
                   "sign after so long, if there is something new")
      ->capture_default_str()
      ->check(CLI::Range(1, 86'400));
  command->add_option("--checkpoint-records", options.checkpoint_records, "... and after so many records")
      ->capture_default_str()
      ->check(CLI::Range(1, 100'000'000));
  command->add_option("--checkpoint-file", options.checkpoint_file,
                      "keep the newest checkpoint in this file, too");
  command
      ->add_option("--checkpoint-command", options.checkpoint_command,
                   "give each checkpoint to this program, on its standard input")
      ->expected(1, -1);
  command->add_flag("--wait", options.wait, "until something is attached, if nothing is");
  command->add_flag("--json", options.json, "print JSON lines; units are in the key names");
}

void add_tail(cli::Program& program, cli::TailOptions& options) {
  CLI::App* command = program.command("tail", "print the records of the kernel's ring, or of a log",
                                      [&] { return cli::tail(options); });
  command->add_option("IFACE", options.ifname, "interface whose ring to read");
  command->add_option("--log", options.log, "folder of the log to read instead");
  command->add_option("--netns", options.netns,
                      "look for the interface in this network namespace (ip netns)");
  command->add_option("--tenant", options.filter.tenant, "records of this tenant alone");
  command->add_option("--kind", options.filter.kind, "records of this kind alone");
  command->add_option("--invariant", options.filter.invariant, "what this invariant decided, or rewrote");
  command->add_option("--since", options.filter.since, "not before: 2026-11-26T10:00:00Z, or 10m ago");
  command->add_option("--until", options.filter.until, "not after; the same");
  command->add_flag("--follow", options.follow, "and those that come, until Ctrl-C");
  command->add_flag("--take", options.take, "take what was printed out of the ring, which makes room");
  command->add_flag("--json", options.json, "print JSON lines; units are in the key names");
}

void add_verify(cli::Program& program, cli::VerifyLogOptions& options) {
  CLI::App* command = program.command("verify", "find out whether a log, or an export, is what was signed",
                                      [&] { return cli::verify(options); });
  command->add_option("DIR", options.log, "folder of the log");
  command->add_option("--export", options.exported, "an export of a tenant's instead");
  command->add_option("--public-key", options.public_key, "file with the key that checks (log.pub)")
      ->required();
  command->add_option("--chain-key", options.chain_key,
                      "recompute the MACs, too: file with the first chain key");
  command->add_option("--against", options.others,
                      "a file with checkpoints of the log that were kept elsewhere");
  command->add_flag("--json", options.json, kJson);
}

void add_export(cli::Program& program, cli::ExportOptions& options) {
  CLI::App* command = program.command("export", "hand a tenant its own records, with proofs",
                                      [&] { return cli::export_records(options); });
  command->add_option("--log", options.log, "folder of the log")->required();
  command->add_option("--tenant", options.tenant, "whose records")->required();
  command->add_option("--to", options.out, "folder of the tenant, whose group may read it")->required();
  command->add_option("--reason", options.reason, "for the record of the export")->capture_default_str();
  command->add_flag("--json", options.json, kJson);
}

}  // namespace

int main(int argc, char** argv) {
  cli::Program program("agentnic-audit",
                       "Keeps, shows and verifies what the guardian was asked, and what it decided.");
  program.app().add_flag_callback("-v", [] { kern::capture_libbpf_log(true); }, "print what libbpf says");
  kern::capture_libbpf_log(false);
  cli::KeygenOptions keygen;
  cli::RecordOptions record;
  cli::TailOptions tail;
  cli::VerifyLogOptions verify;
  cli::ExportOptions exported;
  add_keygen(program, keygen);
  add_record(program, record);
  add_tail(program, tail);
  add_verify(program, verify);
  add_export(program, exported);
  return program.main(argc, argv);
}
