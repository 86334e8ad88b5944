// SPDX-License-Identifier: Apache-2.0
#pragma once

/// One measured run: a server and a client as processes of their own, started with the command lines that
/// anyone can repeat by hand.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/json.hpp"
#include "base/process.hpp"
#include "base/result.hpp"
#include "kern/instance.hpp"
#include "lab/load.hpp"
#include "lab/topology.hpp"

namespace agentnic::lab {

/// Ports of policies/first-light.json: one service on each path.
inline constexpr std::uint16_t kKernelPort = 9000;
inline constexpr std::uint16_t kXskPort = 9001;

struct RunSpec {
  std::string transport = "udp";       ///< of the server
  std::string client = "udp";          ///< of the client; xsk takes agentnic on the client's interface too
  path::Wait wait = path::Wait::Spin;  ///< of both
  std::optional<path::Wait> client_wait = std::nullopt;  ///< of the client, if it is another
  std::size_t size = 64;
  double duration_s = 0.6;
  double warmup_s = 0.1;
  unsigned outstanding = 1;        ///< requests that wait at any moment
  unsigned batch = 1;              ///< of a udp server: datagrams of one call
  double rate_per_s = 0;           ///< open loop; 0: closed
  std::uint32_t busy_poll_us = 0;  ///< of both
  unsigned connections = 1;        ///< of a tcp client
};

inline constexpr int kAnswerMs = 10'000;  ///< for a program of ours to be ready, or to end

/// A lab that is up, and where in it the two ends run.
struct Bench {
  Lab lab;
  std::string program;  ///< agentnic-bench
  int client_cpu = 0;
  int server_cpu = 0;
};

/// A bench on this machine's first two CPUs, or both ends on one when there is only one.
Bench make_bench(const Lab& lab);

/// {"server": agentnic.serve/1, "run": agentnic.run/1}, each with its argv.
Result<Json> measure(const Bench& bench, const RunSpec& spec);

/// Of the client's interface, when AF_XDP is at that end too.
Result<policy::Policy> xsk_client_policy();

/// A policy on an interface, the server's unless stated, put there and taken off as runs need it. Borrows the
/// policy.
class Attached final {
 public:
  /// Nothing is attached yet.
  static Result<Attached> open(const Bench& bench, const policy::Policy& policy);
  static Result<Attached> open(const Host& host, const policy::Policy& policy);
  Status set(bool on);
  /// Of the last attach.
  [[nodiscard]] const kern::AttachReport& report() const { return report_; }

 private:
  Attached(kern::NetNs netns, std::string ifname, const policy::Policy& policy);

  kern::NetNs netns_;
  std::string ifname_;
  const policy::Policy& policy_;
  kern::AttachReport report_;
  bool on_ = false;
};

/// Median, least and greatest of the values of several repeats; values must not be empty.
struct Spread {
  double median = 0;
  double low = 0;
  double high = 0;
};
Spread spread(std::vector<double> values);
Json to_json(const Spread& spread);

/// One line on a terminal, overwritten by the next; silent elsewhere.
class Progress final {
 public:
  explicit Progress(std::size_t steps);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void step(const std::string& what);

 private:
  std::size_t steps_;
  std::size_t done_ = 0;
  bool on_terminal_;
};

}  // namespace agentnic::lab
