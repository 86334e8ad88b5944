// SPDX-License-Identifier: Apache-2.0
#include "cli/audit/keygen.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <iostream>

#include "audit/chain_key.hpp"
#include "audit/note.hpp"
#include "base/file.hpp"
#include "cli/common/program.hpp"

namespace agentnic::cli {
namespace {

constexpr mode_t kSecret = 0400;
constexpr mode_t kPublic = 0444;

struct KeyFile {
  const char* name;
  std::string content;
  mode_t mode;
  const char* what;
};

}  // namespace

Result<int> keygen(const KeygenOptions& options) {
  const audit::SigningKey key = ANIC_TRY(audit::SigningKey::make(options.origin));
  const audit::ChainKey chain = ANIC_TRY(audit::make_chain_key());
  if (::mkdir(options.out.c_str(), 0700) != 0 && errno != EEXIST)
    return fail_errno(errno, "make the folder " + options.out);
  const std::array files = {
      KeyFile{"log.key", key.text(), kSecret,
              "signs checkpoints: for agentnic-audit record, and nobody else"},
      KeyFile{"log.pub", audit::verifier_key_text(key.verifier()), kPublic,
              "checks them: for whoever verifies; give it out by a way that you trust"},
      KeyFile{
          "chain.key", audit::chain_key_text(chain), kSecret,
          "makes MACs: for agentnic-load attach; a copy, kept elsewhere, checks them and could forge them"}};
  for (std::size_t made = 0; made < files.size(); ++made) {
    const KeyFile& file = files.at(made);
    Status done = keep_new_file(fmt::format("{}/{}", options.out, file.name), file.content, file.mode);
    if (done) continue;
    for (std::size_t i = 0; i < made; ++i)  // all of them, or none
      ::unlink(fmt::format("{}/{}", options.out, files.at(i).name).c_str());
    return fail(std::move(done.error()));
  }
  if (options.json) {
    print_json({{"schema", "agentnic.keygen/1"},
                {"origin", options.origin},
                {"signing_key", options.out + "/log.key"},
                {"public_key", options.out + "/log.pub"},
                {"chain_key", options.out + "/chain.key"}});
    return 0;
  }
  for (const KeyFile& file : files)
    std::cout << fmt::format("{}/{}: {}\n", options.out, file.name, file.what);
  std::cout << files[1].content;
  return 0;
}

}  // namespace agentnic::cli
