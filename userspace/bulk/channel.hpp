// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The connection of a bulk session: frames both ways, with MACs once both ends have proved that they know
/// the secret. Nothing waits longer than the time limit without a byte moving, nor past stop_requested(); but
/// for the next frame of a peer that has proved it, which may be busy with a file for an hour, as long as its
/// host answers (SO_KEEPALIVE).

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/result.hpp"
#include "bulk/secret.hpp"
#include "bulk/wire.hpp"
#include "path/sockets/tcp.hpp"

namespace agentnic::bulk {

struct Frame {
  Kind kind{};
  Bytes payload;
};

/// One thread. After an error it is of no use any more. The process ignores SIGPIPE from the first one on.
class Channel final {
 public:
  /// Until trust(), `timeout_ms` is for all of it.
  Channel(path::TcpStream stream, std::string peer, int timeout_ms);
  /// The peer has proved that it knows the secret: from now on the limit is for silence.
  void trust(int timeout_ms) noexcept;

  /// Both ends prove that they know the secret. Failed, with what the peer says, when it refuses.
  Status prove_as_client(const Secret& secret);
  Status prove_as_server(const Secret& secret);

  template <typename Message>
  Status send(Kind kind, const Message& message) {
    return send_frame(kind, encode(message));
  }
  Status send_frame(Kind kind, std::span<const std::byte> payload);
  /// Refused, and the end.
  void refuse(const std::string& reason);

  /// The next header, without its payload; it is given again until it is taken.
  Result<Header> peek();
  /// Whether something can be read without waiting: the peer has said something, or has gone.
  [[nodiscard]] bool readable() const noexcept;
  /// The next frame, which is none of Data.
  Result<Frame> receive();
  /// The next frame, which is to be of this kind.
  template <typename Message>
  Result<Message> expect(Kind kind) {
    const Bytes payload = ANIC_TRY(expect_frame(kind));
    return decode<Message>(payload);
  }
  Result<Bytes> expect_frame(Kind kind);

  /// Data: a header, after which whoever asked for it sends, or receives, as much content on the socket.
  Status begin_data(std::size_t length);
  /// All of it was sent.
  void end_data() noexcept { owes_content_ = false; }
  /// The length of the Data that peek() found; its content is next.
  std::size_t take_data() noexcept;

  Status send_all(std::span<const std::byte> bytes, bool more = false);
  Status receive_all(std::span<std::byte> bytes);
  /// What there is, at least a byte.
  Result<std::size_t> receive_some(std::span<std::byte> bytes);
  /// Waits until the socket takes, or has, something; an error when it does not in time.
  Status wait(bool readable, bool writable) { return wait(readable, writable, timeout_ms_); }

  [[nodiscard]] int fd() const noexcept { return stream_.fd(); }
  [[nodiscard]] const std::string& peer() const noexcept { return peer_; }
  [[nodiscard]] int timeout_ms() const noexcept { return timeout_ms_; }
  std::unexpected<Error> gone(const char* doing) const;

 private:
  Status wait(bool readable, bool writable, int limit_ms);
  Status prove(const MacKey& ours, const MacKey& theirs);

  path::TcpStream stream_;
  std::string peer_;
  int timeout_ms_;
  std::uint64_t trust_by_ns_;  ///< CLOCK_MONOTONIC; 0: trusted
  bool is_client_ = false;
  bool owes_content_ = false;  ///< what is sent now would be taken for it
  std::optional<Header> peeked_;
  std::array<std::byte, kHeaderBytes> header_{};  ///< as it came
  std::optional<MacKey> ours_;
  std::optional<MacKey> theirs_;
  std::uint64_t sent_ = 0;      ///< frames with a MAC
  std::uint64_t received_ = 0;  ///< likewise
};

}  // namespace agentnic::bulk
