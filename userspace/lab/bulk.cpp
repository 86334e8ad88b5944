// SPDX-License-Identifier: Apache-2.0
#include "lab/bulk.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <nettle/sha2.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.hpp"
#include "base/file.hpp"
#include "base/hex.hpp"
#include "base/stop.hpp"
#include "base/unique_fd.hpp"
#include "lab/bulk_files.hpp"
#include "lab/pairs.hpp"
#include "lab/round_trip.hpp"
#include "policy/model.hpp"
#include "policy/parse.hpp"

namespace agentnic::lab {
namespace {

constexpr std::uint16_t kIperfPort = 5201;
constexpr std::uint16_t kBulkPort = 9100;
constexpr int kSeconds = 2;
constexpr const char* kIperfSeconds = "2";
constexpr std::size_t kPiece = 128 << 10;  // iperf3's, of TCP
constexpr std::uint64_t kPatienceNs = 100'000'000;

// Of the stream: nothing needs AF_XDP, and its quota does not bind.
constexpr const char* kBulkPolicy = R"({"version": 1, "name": "bulk", "link_rate": "100Gbit", "services": [
  {"name": "stream", "protocol": "tcp", "port": 5201, "class": "bulk", "path": "kernel"}]})";

class Sha256 {
 public:
  Sha256() { sha256_init(&context_); }
  void add(std::span<const std::byte> bytes) {
    sha256_update(&context_, bytes.size(), reinterpret_cast<const std::uint8_t*>(bytes.data()));
  }
  std::string text() {
    std::array<std::uint8_t, SHA256_DIGEST_SIZE> digest{};
    sha256_digest(&context_, digest.size(), digest.data());
    return hex(digest);
  }

 private:
  sha256_ctx context_{};
};

Result<HashedStream> send_one_hashed(const path::Address& server, std::uint64_t bytes) {
  path::TcpStream stream = ANIC_TRY(path::TcpStream::connect(server));
  std::mt19937_64 random(std::random_device{}());
  std::vector<std::uint64_t> piece(kPiece / sizeof(std::uint64_t));
  Sha256 hash;
  HashedStream done;
  while (done.bytes < bytes && !stop_requested()) {
    std::ranges::generate(piece, random);
    auto rest = std::as_bytes(std::span(piece)).first(std::min<std::uint64_t>(kPiece, bytes - done.bytes));
    hash.add(rest);
    done.bytes += rest.size();
    while (!rest.empty() && !stop_requested()) {
      const path::Moved sent = stream.send(rest, path::Wait::Block);
      if (sent.state == path::StreamState::Reset) return fail(Exit::Failed, "a stream was reset");
      rest = rest.subspan(sent.bytes);
    }
  }
  stream.end();
  std::byte none{};
  while (!stop_requested() &&
         stream.receive({&none, 1}, path::Wait::Block).state == path::StreamState::Open) {
  }
  if (stop_requested()) return fail(Exit::Failed, "stopped");
  done.sha256 = hash.text();
  return done;
}

/// Gbit/s of one stream of ours, as its receiver counts them.
Result<double> our_gbps(const Bench& bench) {
  const std::string port = std::to_string(kBulkPort);
  Child server = ANIC_TRY(Child::start(
      {bench.program, "serve", "--netns", bench.lab.server.netns, "--transport", "tcp", "--bulk", "--address",
       bench.lab.server.ipv4, "--port", port, "--cpu", std::to_string(bench.server_cpu), "--json"}));
  ANIC_TRY(server.read_line(kAnswerMs));
  ANIC_TRY(run_program({bench.program, "run", "--netns", bench.lab.client.netns, "--transport", "tcp",
                        "--bulk", "--server", bench.lab.server.ipv4, "--port", port, "--cpu",
                        std::to_string(bench.client_cpu), "--duration", std::to_string(kSeconds), "--json"}));
  const auto said = ANIC_TRY(server.wait(kAnswerMs));
  const Json json = Json::parse(said.output, nullptr, false);
  if (json.is_discarded() || !json.contains("gbps"))
    return fail(Exit::Failed, fmt::format("our server said no rate: {}{}", said.output, said.errors));
  return json.at("gbps").get<double>();
}

constexpr std::uint64_t kFileBytes = 1ULL << 30U;

/// The row of agentnic-bulk with this digest.
Result<Json> bulk_row(const Bench& bench, const std::string& id, const std::string& digest, double target) {
  ANIC_TRY(lab_aggregate(bench.lab));
  const BulkFiles files = ANIC_TRY(BulkFiles::make(kFileBytes, 1));
  const std::string program = std::filesystem::path(bench.program).replace_filename("agentnic-bulk");
  const std::string address = fmt::format("{}:{}", bench.lab.server.ipv4, kBulkPort);
  const auto command = [&](const Host& host, int cpu, std::initializer_list<std::string> words) {
    Argv argv = {"ip", "netns", "exec", host.netns, "taskset", "-c", std::to_string(cpu), program};
    argv.insert(argv.end(), words.begin(), words.end());
    argv.insert(argv.end(), {"--secret", files.secret(), "--transport", "tcp", "--json"});
    return argv;
  };
  Child server = ANIC_TRY(Child::start(
      command(bench.lab.server, bench.server_cpu, {"serve", "--root", files.to(), "--listen", address})));
  ANIC_TRY(server.read_line(kAnswerMs));
  const auto ours = [&](Pairs&) -> Result<double> {
    ANIC_TRY(files.empty_to());
    const std::string said = ANIC_TRY(run_program(command(
        bench.lab.client, bench.client_cpu, {"push", address, files.folder() + "/0", "--digest", digest})));
    const Json end = last_line(said);
    if (end.is_discarded() || end.value("moved_bytes", std::uint64_t{0}) != kFileBytes)
      return fail(Exit::Failed, "agentnic-bulk did not move the file: " + said);
    return end.at("gbps").get<double>();
  };
  const Pairs pairs = ANIC_TRY(alternate(id, ours, [&](Pairs&) { return iperf3_gbps(bench); }));
  const std::vector<double> ratios = ours_over_peers(pairs);
  return bench_row(
      {.id = id,
       .unit = "x",
       .peer = "iperf3 (Gbit/s)",
       .note = fmt::format("agentnic-bulk push of 1 GiB over veth, from and to files in memory, digest {}, "
                           "from the first offer to the end of the session: {:.2f} Gbit/s",
                           digest, spread(pairs.ours).median)},
      ratios, ratios, spread(pairs.peers).median, target, Bound::AtLeast, pairs.problem);
}

}  // namespace

Result<BulkResult> receive_bulk(path::TcpListener& listener) {
  std::optional<path::TcpStream> stream;
  while (listener.accept(stream) != path::Accepted::One) {
    if (stop_requested()) return fail(Exit::Failed, "stopped before anybody came");
    listener.wait(kPatienceNs);
  }
  std::vector<std::byte> buffer(kPiece);
  BulkResult result;
  std::uint64_t begin_ns = 0;
  while (!stop_requested()) {
    const path::Moved got = stream->receive(buffer, path::Wait::Block);
    if (begin_ns == 0 && got.bytes != 0) begin_ns = monotonic_ns();
    result.bytes += got.bytes;
    if (got.state == path::StreamState::Reset) return fail(Exit::Failed, "the stream was reset");
    if (got.state == path::StreamState::Ended) break;
  }
  if (stop_requested()) return fail(Exit::Failed, "stopped before the stream ended");
  if (begin_ns != 0) result.seconds = static_cast<double>(monotonic_ns() - begin_ns) * 1e-9;
  return result;
}

Result<BulkResult> send_bulk(const path::Address& server, double seconds) {
  path::TcpStream stream = ANIC_TRY(path::TcpStream::connect(server));
  const std::vector<std::byte> buffer(kPiece);
  BulkResult result;
  const std::uint64_t begin_ns = monotonic_ns();
  const std::uint64_t end_ns = begin_ns + static_cast<std::uint64_t>(seconds * 1e9);
  while (monotonic_ns() < end_ns && !stop_requested()) {
    const path::Moved sent = stream.send(buffer, path::Wait::Block);
    result.bytes += sent.bytes;
    if (sent.state == path::StreamState::Reset) return fail(Exit::Failed, "the stream was reset");
  }
  stream.end();
  std::byte none{};
  while (!stop_requested() &&
         stream.receive({&none, 1}, path::Wait::Block).state == path::StreamState::Open) {
  }
  result.seconds = static_cast<double>(monotonic_ns() - begin_ns) * 1e-9;
  return result;
}

Result<HashedBulk> receive_hashed(path::UringReceiver& receiver, std::size_t streams) {
  std::vector<Sha256> hashes(streams);
  std::uint64_t begin_ns = 0;
  const auto received =
      ANIC_TRY(receiver.run(streams, [&](std::size_t stream, std::span<const std::byte> bytes) {
        if (begin_ns == 0) begin_ns = monotonic_ns();
        hashes[stream].add(bytes);
      }));
  HashedBulk result;
  result.total.seconds = begin_ns == 0 ? 0 : static_cast<double>(monotonic_ns() - begin_ns) * 1e-9;
  for (std::size_t i = 0; i < received.size(); ++i) {
    if (received[i].error != 0) return fail_errno(received[i].error, fmt::format("receive stream {}", i));
    result.streams.push_back({.bytes = received[i].bytes, .sha256 = hashes[i].text()});
    result.total.bytes += received[i].bytes;
  }
  return result;
}

Result<HashedBulk> send_hashed(const path::Address& server, std::uint64_t bytes, unsigned connections) {
  std::vector<Result<HashedStream>> streams(connections);
  const std::uint64_t begin_ns = monotonic_ns();
  {
    std::vector<std::jthread> threads;
    for (unsigned i = 0; i < connections; ++i) {
      const std::uint64_t share = bytes / connections + (i < bytes % connections ? 1 : 0);
      threads.emplace_back([&, i, share] { streams[i] = send_one_hashed(server, share); });
    }
  }
  HashedBulk result;
  result.total.seconds = static_cast<double>(monotonic_ns() - begin_ns) * 1e-9;
  for (auto& stream : streams) {
    result.streams.push_back(ANIC_TRY(std::move(stream)));
    result.total.bytes += result.streams.back().bytes;
  }
  return result;
}

Result<double> iperf3_gbps(const Bench& bench) {
  const auto command = [&](const Host& host, int cpu, std::initializer_list<const char*> words) {
    Argv argv = {"ip", "netns", "exec", host.netns, "taskset", "-c", std::to_string(cpu), "iperf3"};
    argv.insert(argv.end(), words.begin(), words.end());
    return argv;
  };
  const Child server = ANIC_TRY(Child::start(command(bench.lab.server, bench.server_cpu, {"-s", "-1"})));
  ANIC_TRY(wait_for_port(bench.lab.server.netns, kIperfPort, "-Hltn"));
  Argv client = command(bench.lab.client, bench.client_cpu, {"-J", "-t", kIperfSeconds, "-c"});
  client.push_back(bench.lab.server.ipv4);
  const Json said = Json::parse(ANIC_TRY(run_program(client)), nullptr, false);
  const Json::json_pointer rate("/end/sum_received/bits_per_second");
  if (said.is_discarded() || !said.contains(rate)) return fail(Exit::Failed, "iperf3 printed no rate");
  return said.at(rate).get<double>() * 1e-9;
}

Result<Json> tc_bulk_ratio(const Bench& bench) {
  ANIC_TRY(lab_aggregate(bench.lab));
  const policy::Policy policy = ANIC_TRY(policy::parse(kBulkPolicy, "bench policy"));
  Attached attached = ANIC_TRY(Attached::open(bench, policy));
  const auto rate = [&](bool on) -> Result<double> {
    ANIC_TRY(attached.set(on));
    return iperf3_gbps(bench);
  };
  const Pairs pairs = ANIC_TRY(
      alternate("tc_bulk_ratio", [&](Pairs&) { return rate(true); }, [&](Pairs&) { return rate(false); }));
  ANIC_TRY(attached.set(false));
  const std::vector<double> ratios = ours_over_peers(pairs);
  return bench_row({.id = "tc_bulk_ratio",
                    .unit = "x",
                    .peer = "nothing attached (Gbit/s)",
                    .note = fmt::format("one iperf3 TCP stream over veth in mode {} ({:.2f} Gbit/s) over the "
                                        "same with nothing attached; lower bound 0.9",
                                        kern::mode_name(attached.report().mode), spread(pairs.ours).median)},
                   ratios, ratios, spread(pairs.peers).median, 0.95, Bound::AtLeast, pairs.problem);
}

Result<Json> tcp_vs_iperf3(const Bench& bench) {
  ANIC_TRY(lab_aggregate(bench.lab));
  const Pairs pairs = ANIC_TRY(alternate(
      "tcp_vs_iperf3", [&](Pairs&) { return our_gbps(bench); }, [&](Pairs&) { return iperf3_gbps(bench); }));
  const std::vector<double> ratios = ours_over_peers(pairs);
  return bench_row(
      {.id = "tcp_vs_iperf3",
       .unit = "x",
       .peer = "iperf3 (Gbit/s)",
       .note = fmt::format("one TCP stream over veth for {} s, 128 KiB at a time, by the receiver's "
                           "clock: {:.2f} Gbit/s",
                           kSeconds, spread(pairs.ours).median)},
      ratios, ratios, spread(pairs.peers).median, 0.95, Bound::AtLeast, pairs.problem);
}

Result<Json> bulk_tcp_vs_iperf3(const Bench& bench) {
  return bulk_row(bench, "bulk_tcp_vs_iperf3", "none", 0.9);
}

Result<Json> bulk_tcp_digest_vs_iperf3(const Bench& bench) {
  return bulk_row(bench, "bulk_tcp_digest_vs_iperf3", "xxh128", 0.8);
}

}  // namespace agentnic::lab
