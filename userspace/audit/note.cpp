// SPDX-License-Identifier: Apache-2.0
#include "audit/note.hpp"

#include <fmt/format.h>
#include <sodium.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "base/hex.hpp"

namespace agentnic::audit {
namespace {

constexpr std::string_view kPrivate = "PRIVATE+KEY+";
constexpr std::string_view kSignature = "\u2014 ";  // an em dash
constexpr std::string_view kPrevious = "previous ";
constexpr std::uint8_t kEd25519 = 1;  // the algorithm, as signed notes number it
constexpr std::size_t kOriginMost = 200;
constexpr std::size_t kIdBytes = 4;

static_assert(crypto_sign_BYTES == 64 && crypto_sign_SECRETKEYBYTES == 64);
static_assert(crypto_sign_PUBLICKEYBYTES == sizeof(VerifierKey::key) && crypto_sign_SEEDBYTES == 32);

std::span<const std::uint8_t> bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

/// With which an algorithm's key stands in a line.
std::string marked(std::span<const std::uint8_t> key) {
  std::string bytes(1, static_cast<char>(kEd25519));
  bytes.append(reinterpret_cast<const char*>(key.data()), key.size());
  return bytes;
}

/// By which a signature names its key: the first bytes of a hash of origin and key.
std::string key_id(const VerifierKey& key) {
  const Hash hash = sha256(bytes_of(key.origin + "\n" + marked(key.key)));
  return {reinterpret_cast<const char*>(hash.data()), kIdBytes};
}

std::unexpected<Error> no_key(const std::string& why) {
  return fail(Exit::BadInput, "read the key: " + why, "agentnic-audit keygen makes one");
}

/// The three parts of a key's line, and its 32 bytes.
struct KeyLine {
  std::string origin;
  std::string id;
  std::string key;
};
Result<KeyLine> parse_key_line(std::string_view text) {
  if (text.ends_with('\n')) text.remove_suffix(1);
  const std::size_t first = text.find('+');
  const std::size_t second = first == text.npos ? first : text.find('+', first + 1);
  if (second == text.npos) return no_key("it is no line of origin, hash and key");
  KeyLine line{.origin = std::string(text.substr(0, first)),
               .id = std::string(text.substr(first + 1, second - first - 1)),
               .key = {}};
  ANIC_TRY(check_origin(line.origin));
  const auto key = from_base64(text.substr(second + 1));
  if (!key || key->size() != 33) return no_key("what follows the second '+' is no key in base64");
  if (key->front() != static_cast<char>(kEd25519)) return no_key("it is not for Ed25519");
  line.key = key->substr(1);
  return line;
}

std::string body_of(const std::string& origin, const Checkpoint& checkpoint) {
  std::string text = fmt::format("{}\n{}\n{}\n", origin, checkpoint.size, base64(checkpoint.root));
  if (checkpoint.previous) text += fmt::format("{}{}\n", kPrevious, base64(*checkpoint.previous));
  return text;
}

std::string note_of(const std::string& body, const VerifierKey& key,
                    std::span<const std::uint8_t> signature) {
  std::string signed_by = key_id(key);
  signed_by.append(reinterpret_cast<const char*>(signature.data()), signature.size());
  return fmt::format("{}\n{}{} {}\n", body, kSignature, key.origin, base64(bytes_of(signed_by)));
}

std::optional<Hash> hash_from(std::string_view text) {
  const auto bytes = from_base64(text);
  Hash hash{};
  if (!bytes || bytes->size() != hash.size()) return std::nullopt;
  std::memcpy(hash.data(), bytes->data(), hash.size());
  return hash;
}

/// Reads a text line by line, and knows where it is.
class Lines {
 public:
  explicit Lines(std::string_view text) : text_(text) {}

  /// The next without its end; nothing when the text ends before the line does.
  std::optional<std::string_view> next() {
    begin_ = end_;
    const std::size_t found = text_.find('\n', begin_);
    if (found == text_.npos) return std::nullopt;
    end_ = found + 1;
    return text_.substr(begin_, found - begin_);
  }
  [[nodiscard]] std::size_t begin() const { return begin_; }
  [[nodiscard]] std::size_t end() const { return end_; }

 private:
  std::string_view text_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

}  // namespace

std::string base64(std::span<const std::uint8_t> bytes) {
  std::string text(sodium_base64_ENCODED_LEN(bytes.size(), sodium_base64_VARIANT_ORIGINAL), '\0');
  sodium_bin2base64(text.data(), text.size(), bytes.data(), bytes.size(), sodium_base64_VARIANT_ORIGINAL);
  text.pop_back();  // its NUL
  return text;
}

std::optional<std::string> from_base64(std::string_view text) {
  std::string bytes(text.size(), '\0');
  std::size_t size = 0;
  const char* end = nullptr;
  if (sodium_base642bin(reinterpret_cast<unsigned char*>(bytes.data()), bytes.size(), text.data(),
                        text.size(), nullptr, &size, &end, sodium_base64_VARIANT_ORIGINAL) != 0 ||
      end != text.data() + text.size())
    return std::nullopt;
  bytes.resize(size);
  return bytes;
}

Status check_origin(std::string_view origin) {
  const bool printable = std::ranges::all_of(origin, [](char c) { return c > ' ' && c <= '~' && c != '+'; });
  if (!origin.empty() && origin.size() <= kOriginMost && printable) return {};
  return fail(Exit::BadInput,
              fmt::format("an origin is 1 to {} printable characters without spaces and '+'", kOriginMost),
              "such as audit.example.net/host7/eth1");
}

Result<SigningKey> SigningKey::make(const std::string& origin) {
  ANIC_TRY(check_origin(origin));
  if (sodium_init() < 0) return fail(Exit::Failed, "start libsodium");
  SigningKey key;
  key.verifier_.origin = origin;
  crypto_sign_keypair(key.verifier_.key.data(), key.secret_.data());
  return key;
}

Result<SigningKey> SigningKey::parse(std::string_view text) {
  if (!text.starts_with(kPrivate)) return no_key("it does not begin with " + std::string(kPrivate));
  KeyLine line = ANIC_TRY(parse_key_line(text.substr(kPrivate.size())));
  SigningKey key;
  key.verifier_.origin = line.origin;
  crypto_sign_seed_keypair(key.verifier_.key.data(), key.secret_.data(),
                           reinterpret_cast<const unsigned char*>(line.key.data()));
  sodium_memzero(line.key.data(), line.key.size());
  if (line.id != hex(key_id(key.verifier_))) return no_key("its hash is not that of origin and key");
  return key;
}

SigningKey::SigningKey(SigningKey&& other) noexcept
    : verifier_(std::move(other.verifier_)), secret_(other.secret_) {
  sodium_memzero(other.secret_.data(), other.secret_.size());
}

SigningKey::~SigningKey() { sodium_memzero(secret_.data(), secret_.size()); }

std::string SigningKey::text() const {
  const std::string seed = marked(std::span(secret_).first<crypto_sign_SEEDBYTES>());
  return fmt::format("{}{}+{}+{}\n", kPrivate, verifier_.origin, hex(key_id(verifier_)),
                     base64(bytes_of(seed)));
}

std::array<std::uint8_t, 64> SigningKey::sign(std::string_view message) const {
  std::array<std::uint8_t, 64> signature{};
  crypto_sign_detached(signature.data(), nullptr, bytes_of(message).data(), message.size(), secret_.data());
  return signature;
}

Result<VerifierKey> parse_verifier_key(std::string_view text) {
  if (text.starts_with(kPrivate))
    return fail(Exit::BadInput, "read the key: it is the secret one", "whoever checks needs the public one");
  const KeyLine line = ANIC_TRY(parse_key_line(text));
  VerifierKey key{.origin = line.origin};
  std::memcpy(key.key.data(), line.key.data(), key.key.size());
  if (line.id != hex(key_id(key))) return no_key("its hash is not that of origin and key");
  return key;
}

std::string verifier_key_text(const VerifierKey& key) {
  return fmt::format("{}+{}+{}\n", key.origin, hex(key_id(key)), base64(bytes_of(marked(key.key))));
}

std::string sign_checkpoint(const Checkpoint& checkpoint, const SigningKey& key) {
  const std::string body = body_of(key.verifier().origin, checkpoint);
  return note_of(body, key.verifier(), key.sign(body));
}

Hash note_hash(std::string_view note) { return sha256(bytes_of(note)); }

std::expected<OpenedNote, NoteFault> open_note(std::string_view text, const VerifierKey& key) {
  using Kind = NoteFault::Kind;
  Lines lines(text);
  const auto fault = [&](Kind kind, std::string what) {
    return std::unexpected(NoteFault{.kind = kind, .byte = lines.begin(), .what = std::move(what)});
  };
  const auto incomplete = [&] { return fault(Kind::Incomplete, "it ends in the middle of a note"); };

  const auto origin = lines.next();
  if (!origin) return incomplete();
  if (*origin != key.origin) return fault(Kind::OtherKey, "its first line is not the origin " + key.origin);
  OpenedNote opened;
  const auto size = lines.next();
  if (!size) return incomplete();
  const auto [end, code] = std::from_chars(size->data(), size->data() + size->size(), opened.checkpoint.size);
  if (code != std::errc() || end != size->data() + size->size() ||
      *size != fmt::format("{}", opened.checkpoint.size))
    return fault(Kind::Malformed, "its second line is not a number of records");
  const auto root = lines.next();
  if (!root) return incomplete();
  const auto hash = hash_from(*root);
  if (!hash) return fault(Kind::Malformed, "its third line is not a hash");
  opened.checkpoint.root = *hash;
  auto line = lines.next();
  if (line && line->starts_with(kPrevious)) {
    opened.checkpoint.previous = hash_from(line->substr(kPrevious.size()));
    if (!opened.checkpoint.previous)
      return fault(Kind::Malformed, "what it says to be previous is not a hash");
    line = lines.next();
  }
  if (!line) return incomplete();
  if (!line->empty()) return fault(Kind::Malformed, "an empty line is not where it should be");
  const std::string_view body = text.substr(0, lines.begin());
  line = lines.next();
  if (!line) return incomplete();
  const std::string by = fmt::format("{}{} ", kSignature, key.origin);
  if (!line->starts_with(by)) return fault(Kind::Malformed, "its last line is no signature of " + key.origin);
  const auto bytes = from_base64(line->substr(by.size()));
  if (!bytes || bytes->size() != kIdBytes + crypto_sign_BYTES)
    return fault(Kind::Malformed, "its signature is not one in base64");
  if (!bytes->starts_with(key_id(key))) return fault(Kind::OtherKey, "it is signed by another key");
  const std::span<const std::uint8_t> signature = bytes_of(*bytes).subspan(kIdBytes);
  if (crypto_sign_verify_detached(signature.data(), bytes_of(body).data(), body.size(), key.key.data()) != 0)
    return fault(Kind::BadSignature, "its signature is not of this text");
  opened.length = lines.end();
  if (note_of(body_of(key.origin, opened.checkpoint), key, signature) != text.substr(0, opened.length))
    return fault(Kind::Malformed, "it is not in its one form");
  return opened;
}

}  // namespace agentnic::audit
