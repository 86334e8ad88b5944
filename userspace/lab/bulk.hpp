// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Streams of TCP, as fast as they go: ours and iperf3's.

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.hpp"
#include "base/result.hpp"
#include "lab/measure.hpp"
#include "path/sockets/tcp.hpp"
#include "path/uring/receiver.hpp"

namespace agentnic::lab {

struct BulkResult {
  std::uint64_t bytes = 0;
  double seconds = 0;  ///< the receiver's: from the first byte to the end of the stream
  [[nodiscard]] double gbps() const { return seconds > 0 ? static_cast<double>(bytes) * 8e-9 / seconds : 0; }
};

/// Takes one stream to its end, 128 KiB at a time, as iperf3 does.
Result<BulkResult> receive_bulk(path::TcpListener& listener);
/// Sends for so long; what was sent, by this end's clock.
Result<BulkResult> send_bulk(const path::Address& server, double seconds);

/// A stream, and what it carried: SHA-256 in hexadecimal.
struct HashedStream {
  std::uint64_t bytes = 0;
  std::string sha256;
};
struct HashedBulk {
  BulkResult total;
  std::vector<HashedStream> streams;
};

/// Takes so many streams to their ends. One that is reset is an error.
Result<HashedBulk> receive_hashed(path::UringReceiver& receiver, std::size_t streams);
/// Sends random content over each of several connections at once, `bytes` in all.
Result<HashedBulk> send_hashed(const path::Address& server, std::uint64_t bytes, unsigned connections);

/// Gbit/s of one iperf3 stream to the server, as its receiver counts them.
Result<double> iperf3_gbps(const Bench& bench);

Result<Json> tc_bulk_ratio(const Bench& bench);
Result<Json> tcp_vs_iperf3(const Bench& bench);
/// agentnic-bulk by TCP, with and without a digest.
Result<Json> bulk_tcp_vs_iperf3(const Bench& bench);
Result<Json> bulk_tcp_digest_vs_iperf3(const Bench& bench);

}  // namespace agentnic::lab
