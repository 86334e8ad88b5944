// SPDX-License-Identifier: Apache-2.0
#include "bulk/wire.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <concepts>
#include <cstring>
#include <string_view>

namespace agentnic::bulk {
namespace {

constexpr std::string_view kMagic = "agentnic-bulk";
constexpr std::size_t kDigestMost = 32;
constexpr std::size_t kPairMost = 128;
constexpr std::size_t kComponentMost = 255;

class Writer {
 public:
  template <std::unsigned_integral T>
  Writer& number(T value) {
    for (std::size_t i = sizeof(T); i-- > 0;) bytes_.push_back(static_cast<std::byte>(value >> (8 * i)));
    return *this;
  }
  Writer& raw(std::span<const std::byte> data) {
    bytes_.insert(bytes_.end(), data.begin(), data.end());
    return *this;
  }
  Writer& text(std::string_view text) {
    number(static_cast<std::uint16_t>(text.size()));
    return raw(std::as_bytes(std::span(text)));
  }
  Writer& reason(std::string_view reason) { return text(reason.substr(0, kReasonMost)); }
  Writer& bytes(const Bytes& bytes) { return number(static_cast<std::uint8_t>(bytes.size())).raw(bytes); }
  Bytes take() { return std::move(bytes_); }

 private:
  Bytes bytes_;
};

/// After the first thing that is not there, all else is not there either; good() says so at the end.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : rest_(bytes) {}

  template <std::unsigned_integral T>
  T number() {
    T value = 0;
    for (const std::byte byte : raw(sizeof(T))) value = static_cast<T>(value << 8U) | static_cast<T>(byte);
    return value;
  }
  std::span<const std::byte> raw(std::size_t size) {
    if (size > rest_.size()) {
      good_ = false;
      rest_ = {};
      return {};
    }
    const auto taken = rest_.first(size);
    rest_ = rest_.subspan(size);
    return taken;
  }
  std::string text(std::size_t most) {
    const std::size_t size = number<std::uint16_t>();
    if (size > most) good_ = false;
    const auto bytes = raw(size);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  Bytes bytes(std::size_t most) {
    const std::size_t size = number<std::uint8_t>();
    if (size > most) good_ = false;
    const auto bytes = raw(size);
    return {bytes.begin(), bytes.end()};
  }
  /// A number that has a name; the last one is `last`.
  template <typename Enum>
  Enum named(Enum first, Enum last) {
    const auto value = number<std::uint8_t>();
    if (value < static_cast<std::uint8_t>(first) || value > static_cast<std::uint8_t>(last)) {
      good_ = false;
      return first;
    }
    return static_cast<Enum>(value);
  }
  bool yes() {
    const auto value = number<std::uint8_t>();
    if (value > 1) good_ = false;
    return value == 1;
  }
  [[nodiscard]] Status whole(const char* what) const {
    if (good_ && rest_.empty()) return {};
    return fail(Exit::BadInput, fmt::format("the peer's message {} is malformed", what));
  }

 private:
  std::span<const std::byte> rest_;
  bool good_ = true;
};

/// What other texts are shown as: of a peer, they may be anything.
std::string printable(std::string text) {
  std::ranges::replace_if(
      text, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
  return text;
}

}  // namespace

Status check_path(const std::string& path) {
  const auto bad = [&](const char* why) {
    return fail(Exit::BadInput, fmt::format("the path '{}' {}", printable(path.substr(0, 200)), why));
  };
  if (path.empty()) return bad("is empty");
  if (path.size() > kPathMost) return bad("is longer than 4095 bytes");
  if (std::ranges::any_of(path, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }))
    return bad("has control characters");
  std::string_view rest = path;
  while (true) {
    const std::size_t slash = rest.find('/');
    const std::string_view component = rest.substr(0, slash);
    if (component.empty())
      return bad(slash == 0 && rest.data() == path.data() ? "is absolute" : "has an empty component");
    if (component == "." || component == "..") return bad("has a component . or ..");
    if (component.starts_with(kPartPrefix)) return bad("is the name of a part");
    if (component.size() > kComponentMost) return bad("has a component of more than 255 bytes");
    if (slash == std::string_view::npos) return {};
    rest.remove_prefix(slash + 1);
  }
}

Result<Header> parse_header(std::span<const std::byte, kHeaderBytes> bytes) {
  Reader reader(bytes);
  Header header;
  header.length = reader.number<std::uint32_t>();
  const auto kind = reader.number<std::uint8_t>();
  const auto version = reader.number<std::uint8_t>();
  const auto zero = reader.number<std::uint16_t>();
  if (kind < static_cast<std::uint8_t>(Kind::Hello) || kind > static_cast<std::uint8_t>(Kind::Bye) ||
      zero != 0)
    return fail(Exit::BadInput, "the peer does not speak agentnic-bulk");
  header.kind = static_cast<Kind>(kind);
  if (version != kVersion) {
    return fail(Exit::BadInput, fmt::format("the peer speaks version {} of agentnic-bulk, this is version {}",
                                            version, kVersion));
  }
  if (header.length > (header.kind == Kind::Data ? kDataMost : kPayloadMost))
    return fail(Exit::BadInput, fmt::format("the peer's message has {} bytes, too many", header.length));
  return header;
}

std::array<std::byte, kHeaderBytes> header_bytes(const Header& header) {
  const Bytes bytes = Writer()
                          .number(static_cast<std::uint32_t>(header.length))
                          .number(static_cast<std::uint8_t>(header.kind))
                          .number(kVersion)
                          .number(std::uint16_t{0})
                          .take();
  std::array<std::byte, kHeaderBytes> out{};
  std::ranges::copy(bytes, out.begin());
  return out;
}

Bytes encode(const Hello& hello) { return Writer().text(kMagic).raw(hello.nonce).take(); }

template <>
Result<Hello> decode<Hello>(std::span<const std::byte> payload) {
  Reader reader(payload);
  Hello hello;
  const bool ours = reader.text(kMagic.size()) == kMagic;
  std::ranges::copy(reader.raw(kNonceBytes), hello.nonce.begin());
  if (!ours) return fail(Exit::BadInput, "the peer does not speak agentnic-bulk");
  ANIC_TRY(reader.whole("Hello"));
  return hello;
}

Bytes encode(const Request& request) {
  Writer writer;
  writer.number(static_cast<std::uint8_t>(request.verb))
      .number(static_cast<std::uint8_t>(request.digest))
      .number(static_cast<std::uint8_t>(request.rdma))
      .number(static_cast<std::uint8_t>(request.connect))
      .number(static_cast<std::uint8_t>(request.sync))
      .number(request.rate_bps)
      .text(request.folder)
      .number(static_cast<std::uint16_t>(request.names.size()));
  for (const std::string& name : request.names) writer.text(name);
  return writer.take();
}

template <>
Result<Request> decode<Request>(std::span<const std::byte> payload) {
  Reader reader(payload);
  Request request;
  request.verb = reader.named(Verb::Push, Verb::Pull);
  request.digest = reader.named(Digest::None, Digest::Sha256);
  request.rdma = reader.yes();
  request.connect = reader.named(Connect::Exchange, Connect::Cm);
  request.sync = reader.yes();
  request.rate_bps = reader.number<std::uint64_t>();
  if (request.rate_bps != 0 && request.rate_bps < kRateLeast)
    return fail(Exit::BadInput, "the peer's message Request is malformed");
  request.folder = reader.text(kPathMost);
  const std::size_t names = reader.number<std::uint16_t>();
  if (names > kNamesMost || (names == 0) != (request.verb == Verb::Push))
    return fail(Exit::BadInput, "the peer's message Request is malformed");
  for (std::size_t i = 0; i < names; ++i) request.names.push_back(reader.text(kPathMost));
  ANIC_TRY(reader.whole("Request"));
  if (!request.folder.empty()) ANIC_TRY(check_path(request.folder));
  for (const std::string& name : request.names) ANIC_TRY(check_path(name));
  return request;
}

Bytes encode(const Endpoint& endpoint) {
  return Writer()
      .bytes(endpoint.pair)
      .number(endpoint.cm_port)
      .raw(endpoint.token)
      .reason(endpoint.reason)
      .take();
}

template <>
Result<Endpoint> decode<Endpoint>(std::span<const std::byte> payload) {
  Reader reader(payload);
  Endpoint endpoint;
  endpoint.pair = reader.bytes(kPairMost);
  endpoint.cm_port = reader.number<std::uint16_t>();
  std::ranges::copy(reader.raw(endpoint.token.size()), endpoint.token.begin());
  endpoint.reason = printable(reader.text(kReasonMost));
  ANIC_TRY(reader.whole("Endpoint"));
  return endpoint;
}

Bytes encode(const Offer& offer) {
  return Writer()
      .number(static_cast<std::uint8_t>(offer.folder))
      .number(offer.mode)
      .number(offer.size)
      .number(offer.mtime_ns)
      .text(offer.path)
      .take();
}

template <>
Result<Offer> decode<Offer>(std::span<const std::byte> payload) {
  Reader reader(payload);
  Offer offer;
  offer.folder = reader.yes();
  offer.mode = reader.number<std::uint32_t>();
  offer.size = reader.number<std::uint64_t>();
  offer.mtime_ns = reader.number<std::uint64_t>();
  offer.path = reader.text(kPathMost);
  ANIC_TRY(reader.whole("Offer"));
  if (offer.mode > 0777U || offer.size > INT64_MAX || offer.mtime_ns > INT64_MAX ||
      (offer.folder && offer.size != 0))
    return fail(Exit::BadInput, "the peer's message Offer is malformed");
  ANIC_TRY(check_path(offer.path));
  return offer;
}

Bytes encode(const Have& have) {
  return Writer()
      .number(static_cast<std::uint8_t>(have.state))
      .number(have.offset)
      .bytes(have.digest)
      .reason(have.reason)
      .take();
}

template <>
Result<Have> decode<Have>(std::span<const std::byte> payload) {
  Reader reader(payload);
  Have have;
  have.state = reader.named(HaveState::Part, HaveState::Refused);
  have.offset = reader.number<std::uint64_t>();
  have.digest = reader.bytes(kDigestMost);
  have.reason = printable(reader.text(kReasonMost));
  ANIC_TRY(reader.whole("Have"));
  return have;
}

Bytes encode(const Begin& begin) { return Writer().number(begin.offset).take(); }

template <>
Result<Begin> decode<Begin>(std::span<const std::byte> payload) {
  Reader reader(payload);
  const Begin begin{.offset = reader.number<std::uint64_t>()};
  ANIC_TRY(reader.whole("Begin"));
  return begin;
}

Bytes encode(const End& end) { return Writer().bytes(end.digest).take(); }

template <>
Result<End> decode<End>(std::span<const std::byte> payload) {
  Reader reader(payload);
  End end{.digest = reader.bytes(kDigestMost)};
  ANIC_TRY(reader.whole("End"));
  return end;
}

Bytes encode(const Abort& abort) { return Writer().number(abort.sent).reason(abort.reason).take(); }

template <>
Result<Abort> decode<Abort>(std::span<const std::byte> payload) {
  Reader reader(payload);
  Abort abort;
  abort.sent = reader.number<std::uint64_t>();
  abort.reason = printable(reader.text(kReasonMost));
  ANIC_TRY(reader.whole("Abort"));
  return abort;
}

Bytes encode(const Done& done) {
  return Writer().number(static_cast<std::uint8_t>(done.good)).reason(done.reason).take();
}

template <>
Result<Done> decode<Done>(std::span<const std::byte> payload) {
  Reader reader(payload);
  Done done;
  done.good = reader.yes();
  done.reason = printable(reader.text(kReasonMost));
  ANIC_TRY(reader.whole("Done"));
  return done;
}

Bytes encode(const Reason& reason) { return Writer().reason(reason.reason).take(); }

template <>
Result<Reason> decode<Reason>(std::span<const std::byte> payload) {
  Reader reader(payload);
  Reason reason{.reason = printable(reader.text(kReasonMost))};
  ANIC_TRY(reader.whole("Reason"));
  return reason;
}

Bytes encode(const Plan& plan) { return Writer().number(plan.files).number(plan.bytes).take(); }

template <>
Result<Plan> decode<Plan>(std::span<const std::byte> payload) {
  Reader reader(payload);
  Plan plan;
  plan.files = reader.number<std::uint64_t>();
  plan.bytes = reader.number<std::uint64_t>();
  ANIC_TRY(reader.whole("Plan"));
  return plan;
}

Bytes encode(const Bye& bye) {
  return Writer().number(bye.failed).number(bye.left_out).reason(bye.reason).take();
}

template <>
Result<Bye> decode<Bye>(std::span<const std::byte> payload) {
  Reader reader(payload);
  Bye bye;
  bye.failed = reader.number<std::uint64_t>();
  bye.left_out = reader.number<std::uint64_t>();
  bye.reason = printable(reader.text(kReasonMost));
  ANIC_TRY(reader.whole("Bye"));
  return bye;
}

}  // namespace agentnic::bulk
