// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Checkpoints of a log: signed notes with the number of its records and the root of their tree (C2SP
/// tlog-checkpoint and signed-note; keys as golang.org/x/mod/sumdb/note writes them). docs/audit.md has them
/// to the byte. Pure, but for the making of keys.

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>

#include "audit/merkle.hpp"
#include "base/result.hpp"

namespace agentnic::audit {

/// Who checks: the origin of a log, and an Ed25519 key.
struct VerifierKey {
  std::string origin;
  std::array<std::uint8_t, 32> key{};
};

/// Who signs. Its secret is wiped when it goes.
class SigningKey final {
 public:
  /// A new one, at random.
  static Result<SigningKey> make(const std::string& origin);
  /// From a line `PRIVATE+KEY+origin+hash+base64`.
  static Result<SigningKey> parse(std::string_view text);
  SigningKey(SigningKey&& other) noexcept;
  SigningKey& operator=(SigningKey&&) = delete;
  SigningKey(const SigningKey&) = delete;
  SigningKey& operator=(const SigningKey&) = delete;
  ~SigningKey();

  [[nodiscard]] const VerifierKey& verifier() const { return verifier_; }
  /// The line, with its end.
  [[nodiscard]] std::string text() const;
  [[nodiscard]] std::array<std::uint8_t, 64> sign(std::string_view message) const;

 private:
  SigningKey() = default;
  VerifierKey verifier_;
  std::array<std::uint8_t, 64> secret_{};  ///< the seed, then the public key, as libsodium has it
};

/// Bad input when a text cannot be an origin: 1 to 200 printable ASCII characters, no space, no '+'.
Status check_origin(std::string_view origin);

/// From a line `origin+hash+base64`.
Result<VerifierKey> parse_verifier_key(std::string_view text);
/// The line, with its end.
std::string verifier_key_text(const VerifierKey& key);

/// What is signed.
struct Checkpoint {
  std::uint64_t size = 0;        ///< records
  Hash root{};                   ///< of their tree
  std::optional<Hash> previous;  ///< SHA-256 of the note before; nothing: it is the first
};

/// The whole note, signature included.
std::string sign_checkpoint(const Checkpoint& checkpoint, const SigningKey& key);

/// Of a whole note.
Hash note_hash(std::string_view note);

/// Why something is no checkpoint of this log.
struct NoteFault {
  enum class Kind {
    Incomplete,  ///< it ends too early
    Malformed,
    OtherKey,      ///< signed by another key, or of another log
    BadSignature,  ///< what is signed, or the signature, was changed
  };
  Kind kind = Kind::Malformed;
  std::size_t byte = 0;  ///< from the beginning of the text
  std::string what;
};

/// A checkpoint, and how long its note is.
struct OpenedNote {
  Checkpoint checkpoint;
  std::size_t length = 0;
};

/// The note with which a text begins. Whatever is not just as sign_checkpoint() writes it is a fault.
std::expected<OpenedNote, NoteFault> open_note(std::string_view text, const VerifierKey& key);

/// Base64 with padding, in its one canonical form.
std::string base64(std::span<const std::uint8_t> bytes);
std::optional<std::string> from_base64(std::string_view text);

}  // namespace agentnic::audit
