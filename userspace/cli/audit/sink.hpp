// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Where checkpoints go beside the log: to whoever is to hold the log to them later.

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace agentnic::cli {

/// Never waits.
class CheckpointSink {
 public:
  CheckpointSink() = default;
  CheckpointSink(const CheckpointSink&) = delete;
  CheckpointSink& operator=(const CheckpointSink&) = delete;
  virtual ~CheckpointSink() = default;

  /// Takes the newest note, which stands for all before it.
  virtual Status offer(const std::string& note) = 0;
  /// Goes on with what takes long; what became of it.
  virtual Status poll() { return {}; }
  /// Waits for the end of that, for at most so long.
  virtual Status finish(int /*timeout_ms*/) { return {}; }
};

/// A file that always holds the newest checkpoint, and never half of one.
class FileSink final : public CheckpointSink {
 public:
  explicit FileSink(std::string path) : path_(std::move(path)) {}
  Status offer(const std::string& note) override;

 private:
  std::string path_;
};

/// A program that gets each checkpoint on its standard input. While it runs, the newest waits for it. One
/// that takes longer than kSinkMs is killed.
class CommandSink final : public CheckpointSink {
 public:
  explicit CommandSink(std::vector<std::string> argv) : argv_(std::move(argv)) {}
  ~CommandSink() override;
  CommandSink(const CommandSink&) = delete;
  CommandSink& operator=(const CommandSink&) = delete;
  Status offer(const std::string& note) override;
  Status poll() override;
  Status finish(int timeout_ms) override;

 private:
  Status start(const std::string& note);

  std::vector<std::string> argv_;
  std::string waiting_;
  pid_t pid_ = -1;
  std::uint64_t started_ns_ = 0;
};
inline constexpr int kSinkMs = 30'000;

}  // namespace agentnic::cli
