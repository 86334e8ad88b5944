// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The messages of a bulk session, which runs over one TCP connection. Pure: bytes in, messages out, and
/// nothing that a peer says is believed before it was checked.
///
/// A frame is a header of 8 bytes, a payload, and, from Proof on, a MAC of 32 bytes. Header, big-endian: u32
/// length of the payload, u8 kind, u8 version, u16 zero. In payloads numbers are big-endian, and a text is
/// its length in 16 bits and its bytes. Content (Data) has no MAC: the digest in End is of all of it.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace agentnic::bulk {

using Bytes = std::vector<std::byte>;

inline constexpr std::uint8_t kVersion = 1;
inline constexpr std::size_t kHeaderBytes = 8;
inline constexpr std::size_t kMacBytes = 32;
inline constexpr std::size_t kNonceBytes = 32;
inline constexpr std::size_t kPayloadMost = 64 << 10;  ///< but of Data
inline constexpr std::size_t kDataMost = 1 << 20;
inline constexpr std::size_t kPathMost = 4095;                      ///< PATH_MAX without its end
inline constexpr std::string_view kPartPrefix = ".agentnic-part-";  ///< of files on their way
inline constexpr std::size_t kNamesMost = 1024;                     ///< in a request
inline constexpr std::uint64_t kRateLeast = 64'000;                 ///< bit/s: less would look like silence
inline constexpr std::size_t kReasonMost = 1024;                    ///< longer ones are cut

enum class Kind : std::uint8_t {
  Hello = 1,      ///< first, from both: a nonce
  Proof = 2,      ///< from both: knows the secret; nothing but its MAC
  Refused = 3,    ///< the server does not go on: a reason; before Proof it has no MAC
  Request = 4,    ///< of the client: what it wants
  Endpoint = 5,   ///< of both, for path C: see Endpoint
  Offer = 6,      ///< of who sends files: the next one
  Have = 7,       ///< of who receives: what of it is there
  Begin = 8,      ///< content follows, from here on
  Data = 9,       ///< content, by TCP
  End = 10,       ///< that was all of the file, and this is its digest
  Abort = 11,     ///< instead of End: it will not be whole
  Fallback = 12,  ///< of either: path C failed, on with TCP
  Done = 13,      ///< of who receives: the file is in its place, or why not
  Plan = 14,      ///< of who sends files, first: how much there is
  Bye = 15,       ///< of who sends: no more files
};

struct Header {
  Kind kind{};
  std::size_t length = 0;  ///< of the payload
};

/// Bad input: another version, an unknown kind, a length that the kind cannot have.
Result<Header> parse_header(std::span<const std::byte, kHeaderBytes> bytes);
std::array<std::byte, kHeaderBytes> header_bytes(const Header& header);

struct Hello {
  std::array<std::byte, kNonceBytes> nonce{};
};

enum class Verb : std::uint8_t { Push = 1, Pull = 2 };

/// How content is checked.
enum class Digest : std::uint8_t {
  None = 0,
  Xxh128 = 1,  ///< XXH3, 128 bits: finds damage, not intent
  Sha256 = 2,
};

/// How queue pairs are connected.
enum class Connect : std::uint8_t {
  Exchange = 0,  ///< by what both ends say here
  Cm = 1,        ///< by rdma_cm
};

struct Request {
  Verb verb = Verb::Push;
  Digest digest = Digest::Xxh128;
  bool rdma = false;  ///< the client can
  Connect connect = Connect::Exchange;
  bool sync = true;                     ///< files are on the disk before they are called done
  std::uint64_t rate_bps = 0;           ///< content that the client wants at most; 0: no limit
  std::string folder = {};              ///< of the server's root; empty: the root itself
  std::vector<std::string> names = {};  ///< of Pull: files and folders in it
};

struct Offer {
  bool folder = false;
  std::uint32_t mode = 0;  ///< permissions
  std::uint64_t size = 0;
  std::uint64_t mtime_ns = 0;
  std::string path = {};  ///< below the folder of the request
};

/// When the request asks for path C: the server's queue pair, then the client's, then the server's word that
/// it is connected. Each may say no instead, which is the last of them: on with TCP.
struct Endpoint {
  Bytes pair = {};                       ///< as path/rdma/endpoint.hpp has it; empty in the third
  std::uint16_t cm_port = 0;             ///< where the server waits for the client, with Connect::Cm
  std::array<std::byte, 16> token = {};  ///< that the client brings there
  std::string reason = {};               ///< no
};

enum class HaveState : std::uint8_t {
  Part = 0,     ///< `offset` bytes, which have `digest`
  Whole = 1,    ///< the same file: nothing to do
  Refused = 2,  ///< for a reason
};
struct Have {
  HaveState state = HaveState::Part;
  std::uint64_t offset = 0;
  Bytes digest = {};
  std::string reason = {};
};

struct Begin {
  std::uint64_t offset = 0;
};

struct End {
  Bytes digest = {};
};

/// Of Abort: what of the file was sent since Begin.
struct Abort {
  std::uint64_t sent = 0;
  std::string reason = {};
};

struct Done {
  bool good = false;
  std::string reason = {};
};

/// Of Refused and Fallback.
struct Reason {
  std::string reason = {};
};

struct Plan {
  std::uint64_t files = 0;
  std::uint64_t bytes = 0;
};

struct Bye {
  std::uint64_t failed = 0;    ///< files that could not be read
  std::uint64_t left_out = 0;  ///< neither files nor folders
  std::string reason = {};     ///< of the first that failed
};

Bytes encode(const Hello& hello);
Bytes encode(const Request& request);
Bytes encode(const Endpoint& endpoint);
Bytes encode(const Offer& offer);
Bytes encode(const Have& have);
Bytes encode(const Begin& begin);
Bytes encode(const End& end);
Bytes encode(const Abort& abort);
Bytes encode(const Done& done);
Bytes encode(const Reason& reason);
Bytes encode(const Plan& plan);
Bytes encode(const Bye& bye);

/// Of the whole payload: bad input when it is shorter or longer than what it says, or says what nobody can
/// mean. Paths of Offer and Request passed check_path().
template <typename Message>
Result<Message> decode(std::span<const std::byte> payload);

/// Bad input, unless it is relative, has no empty, "." or ".." component, none of more than 255 bytes, and no
/// control characters.
Status check_path(const std::string& path);

}  // namespace agentnic::bulk
