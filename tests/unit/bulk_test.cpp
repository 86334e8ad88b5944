// SPDX-License-Identifier: Apache-2.0
// Bulk sessions on the loopback: what arrives is what was sent, whole or not at all, whatever peers say and
// whenever connections end.

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <filesystem>
#include <fstream>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "bulk/channel.hpp"
#include "bulk/session.hpp"
#include "bulk/tcp_plane.hpp"
#include "bulk/uring_plane.hpp"
#include "path/rdma/endpoint.hpp"

using namespace agentnic;
using namespace agentnic::bulk;
namespace fs = std::filesystem;

namespace {

/// A folder that goes with the test.
class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "agentnic-bulk-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() { fs::remove_all(path_); }
  [[nodiscard]] fs::path operator/(const std::string& name) const { return path_ / name; }
  [[nodiscard]] std::string name() const { return path_.string(); }
  [[nodiscard]] Root root() const { return Root::open(path_.string()).value(); }

 private:
  fs::path path_;
};

std::string random_content(std::size_t size, unsigned seed = 1) {
  std::mt19937_64 random(seed);
  std::string content(size, '\0');
  for (char& c : content) c = static_cast<char>(random());
  return content;
}

void write(const fs::path& path, const std::string& content) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << content;
}

std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::size_t parts_in(const std::string& folder) {
  return static_cast<std::size_t>(std::ranges::count_if(
      fs::recursive_directory_iterator(folder),
      [](const auto& entry) { return entry.path().filename().string().starts_with(kPartPrefix); }));
}

const char* const kSecret = "a secret of more than 16 bytes";

/// Serves a folder in a thread of its own.
class Serving {
 public:
  explicit Serving(const Folder& folder, const char* secret = kSecret, const ServerOptions& options = {},
                   const char* host = "127.0.0.1")
      : secret_(std::string(secret)), root_(folder.root()) {
    auto opened = Server::open(path::Address::parse(host, 0).value(), options, secret_, root_);
    REQUIRE(opened);
    server_.emplace(std::move(*opened));
    address_ = server_->address().value();
    thread_ = std::jthread([this](const std::stop_token& stop) {
      server_->run([this](const Served& served) { last_ = served; }, stop);
    });
  }
  [[nodiscard]] const path::Address& address() const { return address_; }
  /// Of the last session, when all are over.
  const Served& stop() {
    thread_.request_stop();
    thread_.join();
    return last_;
  }

 private:
  Secret secret_;
  Root root_;
  std::optional<Server> server_;
  path::Address address_;
  Served last_;
  std::jthread thread_;
};

/// What a client does, and what became of it.
struct Asked {
  Status status;
  Totals totals;
  std::vector<Event> events;
};
Asked ask(const path::Address& server, const Folder& folder, Request request, std::vector<std::string> names,
          const char* secret = kSecret, int timeout_ms = 5000, Transport transport = Transport::Tcp) {
  Asked asked;
  ClientOptions options{.session = {.timeout_ms = timeout_ms, .transport = transport},
                        .server = server,
                        .request = std::move(request)};
  (options.request.verb == Verb::Push ? options.names : options.request.names) = std::move(names);
  asked.status = run_client(options, Secret(std::string(secret)), folder.root(), asked.totals,
                            [&](const Event& event, const Totals&) {
                              if (event.what != Event::What::Progress) asked.events.push_back(event);
                            });
  return asked;
}
Asked push(const path::Address& server, const Folder& from, std::vector<std::string> names,
           Digest digest = Digest::Xxh128, Transport transport = Transport::Tcp) {
  return ask(server, from, {.verb = Verb::Push, .digest = digest, .sync = false}, std::move(names), kSecret,
             5000, transport);
}
Asked pull(const path::Address& server, const Folder& to, std::vector<std::string> names,
           Digest digest = Digest::Xxh128, Transport transport = Transport::Tcp) {
  return ask(server, to, {.verb = Verb::Pull, .digest = digest, .sync = false}, std::move(names), kSecret,
             5000, transport);
}

/// Between a client and a server: after so many bytes, in both directions together, both connections are
/// reset; or one of these bytes is changed.
class Proxy {
 public:
  enum class Fault : std::uint8_t { Cut, Flip };
  Proxy(const path::Address& server, Fault fault, std::uint64_t at) : fault_(fault), at_(at) {
    auto listener = path::TcpListener::listen(server.with_port(0));  // on the same address
    REQUIRE(listener);
    listener_.emplace(std::move(*listener));
    address_ = path::Address::of_socket(listener_->fd()).value();
    thread_ = std::jthread([this, server](const std::stop_token& stop) { run(server, stop); });
  }
  [[nodiscard]] const path::Address& address() const { return address_; }
  [[nodiscard]] bool did() const { return did_; }

 private:
  static void reset(const path::TcpStream& stream) {
    const linger now{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(stream.fd(), SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  }
  void run(const path::Address& server, const std::stop_token& stop) {
    std::optional<path::TcpStream> client;
    while (listener_->accept(client) != path::Accepted::One) {
      if (stop.stop_requested()) return;
      listener_->wait(10'000'000);
    }
    auto to = path::TcpStream::connect(server);
    if (!to) return;
    std::vector<std::byte> buffer(16384);
    std::uint64_t passed = 0;
    path::TcpStream* ends[] = {&*client, &*to};
    while (!stop.stop_requested()) {
      bool moved = false;
      for (int from = 0; from < 2; ++from) {
        const path::Moved got = ends[from]->receive(buffer);
        if (got.state != path::StreamState::Open) return;
        auto bytes = std::span(buffer).first(got.bytes);
        moved = moved || !bytes.empty();
        if (!did_ && passed + bytes.size() > at_) {
          did_ = true;
          if (fault_ == Fault::Flip) {
            bytes[static_cast<std::size_t>(at_ - passed)] ^= std::byte{0x10};
          } else {
            bytes = bytes.first(static_cast<std::size_t>(at_ - passed));
          }
        }
        passed += bytes.size();
        while (!bytes.empty()) {
          const path::Moved sent = ends[1 - from]->send(bytes);
          if (sent.state != path::StreamState::Open) return;
          bytes = bytes.subspan(sent.bytes);
          if (stop.stop_requested()) return;
        }
        if (did_ && fault_ == Fault::Cut) {
          reset(*client);
          reset(*to);
          return;
        }
      }
      if (!moved) ends[0]->wait(true, false, 200'000);
    }
  }

  Fault fault_;
  std::uint64_t at_;
  std::atomic<bool> did_ = false;
  std::optional<path::TcpListener> listener_;
  path::Address address_;
  std::jthread thread_;
};

}  // namespace

TEST_CASE("bulk: paths that leave their folder, or that nobody could name, are refused") {
  for (const char* good : {"a", "a/b", "a.b/..c", "...", "weights-00001-of-00002.safetensors", "a b"}) {
    INFO(good);
    CHECK(check_path(good));
  }
  for (const std::string bad : {"", "/", "/a", "a/.agentnic-part-0", "a/", "a//b", ".", "..", "a/..",
                                "a/../b", "./a", "a/.", "a\nb", "a\x1b", "a\x7f"}) {
    INFO(bad);
    const Status checked = check_path(bad);
    REQUIRE_FALSE(checked);
    CHECK(checked.error().exit == Exit::BadInput);
  }
  CHECK(check_path(std::string(255, 'x')));
  CHECK_FALSE(check_path(std::string(256, 'x')));
  CHECK_FALSE(check_path(std::string("a\0b", 3)));
}

TEST_CASE("bulk: a message that is cut, or goes on, is none") {
  const Bytes whole = encode(Request{.verb = Verb::Pull, .folder = "a", .names = {"b", "c/d"}});
  REQUIRE(decode<Request>(whole));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    INFO(size);
    CHECK_FALSE(decode<Request>(std::span(whole).first(size)));
  }
  Bytes longer = whole;
  longer.push_back(std::byte{});
  CHECK_FALSE(decode<Request>(longer));
  CHECK_FALSE(decode<Request>(encode(Request{.verb = Verb::Pull, .names = {"../b"}})));
  CHECK_FALSE(decode<Request>(encode(Request{.verb = Verb::Pull, .names = {}})));
  CHECK_FALSE(decode<Offer>(encode(Offer{.mode = 04755, .size = 1, .path = "a"})));
  CHECK_FALSE(decode<Offer>(encode(Offer{.folder = true, .size = 1, .path = "a"})));
  CHECK_FALSE(decode<Offer>(encode(Offer{.size = UINT64_MAX, .path = "a"})));
}

TEST_CASE("bulk: an RDMA endpoint that no queue pair can have is refused") {
  path::RdmaEndpoint good{.queue_pair = 17,
                          .sequence = 5,
                          .mtu = IBV_MTU_1024,
                          .reads = 1,
                          .slots = 16,
                          .slot_bytes = 4096,
                          .address = 0x1000,
                          .key = 1};
  const auto refused = [](const path::RdmaEndpoint& endpoint) {
    return !path::decode_endpoint(path::encode_endpoint(endpoint));
  };
  CHECK_FALSE(refused(good));
  auto changed = good;
  changed.queue_pair = 1U << 24U;
  CHECK(refused(changed));
  changed = good;
  changed.address = UINT64_MAX - 4096;
  CHECK(refused(changed));
  changed = good;
  changed.slots = 0;
  CHECK(refused(changed));
  auto bytes = path::encode_endpoint(good);
  REQUIRE(bytes.size() == path::kEndpointBytes);
  bytes[0] = std::byte{9};
  const auto version = path::decode_endpoint(bytes);
  REQUIRE_FALSE(version);
  CHECK(version.error().what.find("version 9") != std::string::npos);
}

TEST_CASE("bulk: files and folders arrive as they were sent, both ways, with each digest") {
  const auto [digest, client, server] =
      GENERATE(table<Digest, Transport, Transport>({{Digest::None, Transport::Tcp, Transport::Tcp},
                                                    {Digest::Xxh128, Transport::Uring, Transport::Tcp},
                                                    {Digest::Sha256, Transport::Tcp, Transport::Uring},
                                                    {Digest::None, Transport::Uring, Transport::Uring}}));
  const Folder here;
  const Folder there;
  for (const std::size_t size : {0UL, 1UL, 65536UL, (1UL << 20U) + 1, 8UL << 20U})
    write(here / ("set/of/" + std::to_string(size)), random_content(size, static_cast<unsigned>(size)));
  fs::create_directories(here / "set/empty");
  fs::permissions(here / "set/of/1", fs::perms::owner_read);
  fs::create_symlink("/etc/passwd", here / "set/link");
  write(here / "set/old", "of before 1970");
  const timespec before[] = {{.tv_sec = -5, .tv_nsec = 0}, {.tv_sec = -5, .tv_nsec = 0}};
  REQUIRE(::utimensat(AT_FDCWD, (here / "set/old").c_str(), before, 0) == 0);
  Serving serving(there, kSecret, {.session = {.transport = server}});
  const Asked pushed = push(serving.address(), here, {"set"}, digest, client);
  REQUIRE(pushed.status);
  CHECK(pushed.totals.files == 6);
  CHECK(pushed.totals.how == (client == Transport::Uring ? "uring" : "tcp"));
  CHECK(pushed.totals.left_out == 1);
  CHECK(pushed.totals.failed == 0);
  const Folder back;
  const Asked pulled = pull(serving.address(), back, {"set"}, digest, client);
  REQUIRE(pulled.status);
  CHECK(pulled.totals.files == 6);
  for (const Folder* folder : {&there, &back}) {
    for (const std::size_t size : {0UL, 1UL, 65536UL, (1UL << 20U) + 1, 8UL << 20U}) {
      const std::string name = "set/of/" + std::to_string(size);
      CHECK(read(*folder / name) == read(here / name));
      CHECK(fs::last_write_time(*folder / name) == fs::last_write_time(here / name));
    }
    CHECK(fs::status(*folder / "set/of/1").permissions() == fs::perms::owner_read);
    CHECK(fs::is_directory(*folder / "set/empty"));
    CHECK_FALSE(fs::exists(fs::symlink_status(*folder / "set/link")));
    CHECK(parts_in(folder->name()) == 0);
  }
  // And once more: nothing is to be done.
  const Asked again = push(serving.address(), here, {"set"}, digest, client);
  REQUIRE(again.status);
  CHECK(again.totals.moved_bytes == 0);
  CHECK(again.totals.skipped == 6);
}

TEST_CASE("bulk: whoever does not know the secret gets nothing, and neither does who asks it") {
  const Folder here;
  const Folder there;
  write(here / "file", "content");
  Serving serving(there);
  const Asked asked = ask(serving.address(), here, {.verb = Verb::Push}, {"file"}, "another secret, as long");
  REQUIRE_FALSE(asked.status);
  CHECK(asked.status.error().what.find("the secret is wrong") != std::string::npos);
  CHECK(serving.stop().verb.empty());
  CHECK(fs::is_empty(there.name()));
  // A server that does not know it: somebody who answers with the client's own proof.
  auto listener = path::TcpListener::listen(path::Address::parse("127.0.0.1", 0).value());
  REQUIRE(listener);
  const path::Address address = path::Address::of_socket(listener->fd()).value();
  std::jthread mirror([&] {
    std::optional<path::TcpStream> client;
    while (listener->accept(client) != path::Accepted::One) listener->wait(10'000'000);
    std::array<std::byte, 4096> buffer{};
    while (true) {
      const path::Moved got = client->receive(buffer, path::Wait::Block);
      if (got.state != path::StreamState::Open) return;
      client->send(std::span(buffer).first(got.bytes), path::Wait::Block);
    }
  });
  const Asked mirrored = ask(address, here, {.verb = Verb::Push}, {"file"});
  REQUIRE_FALSE(mirrored.status);
  CHECK(mirrored.status.error().what.find("does not know the secret") != std::string::npos);
}

TEST_CASE(
    "bulk: a connection that ends at any point leaves a whole file or none, and the next session goes on") {
  const auto verb = GENERATE(Verb::Push, Verb::Pull);
  const auto transport = GENERATE(Transport::Tcp, Transport::Uring);
  const Folder source;
  const std::string content = random_content(3 << 20);
  write(source / "set/big", content);
  write(source / "set/small", "small");
  std::uint64_t resumed = 0;
  // The handshake and the request byte by byte or nearly so, then the content.
  std::vector<std::uint64_t> points;
  for (std::uint64_t at = 0; at < 520 && transport == Transport::Tcp; at += 29) points.push_back(at);
  for (std::uint64_t at = 1000; at < (3U << 20U) + 1500; at += 262'139) points.push_back(at);
  for (const std::uint64_t at : points) {
    INFO("cut after " << at << " bytes");
    const Folder sink;
    Serving serving(verb == Verb::Push ? sink : source, kSecret, {.session = {.transport = transport}});
    bool did = false;
    {
      const Proxy proxy(serving.address(), Proxy::Fault::Cut, at);
      const Asked cut = verb == Verb::Push ? push(proxy.address(), source, {"set"}, Digest::Xxh128, transport)
                                           : pull(proxy.address(), sink, {"set"}, Digest::Xxh128, transport);
      did = proxy.did();
      if (did && cut.status) FAIL("it says that all is well");
    }
    if (fs::exists(sink / "set/big")) CHECK(read(sink / "set/big") == content);
    if (fs::exists(sink / "set/small")) CHECK(read(sink / "set/small") == "small");
    // The session that was cut may not have noticed yet, and has its part.
    Asked again;
    for (int i = 0; i < 100; ++i) {
      again = verb == Verb::Push ? push(serving.address(), source, {"set"})
                                 : pull(serving.address(), sink, {"set"});
      if (again.status && again.totals.failed == 0) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    REQUIRE(again.status);
    CHECK(again.totals.failed == 0);
    CHECK(read(sink / "set/big") == content);
    CHECK(read(sink / "set/small") == "small");
    CHECK(parts_in(sink.name()) == 0);
    for (const Event& event : again.events) resumed += event.resumed;
  }
  CHECK(resumed > 0);
}

// Run by tests/net/rdma.sh where there is a device, whose address is in AGENTNIC_RDMA_ADDRESS.
TEST_CASE("rdma: a peer that goes at any step of a session by RDMA is noticed, and the next one goes well",
          "[.rdma]") {
  const char* host = std::getenv("AGENTNIC_RDMA_ADDRESS");
  if (host == nullptr) SKIP("AGENTNIC_RDMA_ADDRESS names no device's address");
  const auto verb = GENERATE(Verb::Push, Verb::Pull);
  const auto connect = GENERATE(Connect::Exchange, Connect::Cm);
  const RdmaOptions rdma = {.device = {}, .slots = 4, .slot_bytes = 16 << 10};
  const Folder source;
  const std::string content = random_content(200'000);
  write(source / "file", content);
  const auto session = [&](const path::Address& server, const Folder& sink) {
    Asked asked;
    ClientOptions options{
        .session = {.timeout_ms = 5000, .transport = Transport::Auto, .rdma = rdma},
        .server = server,
        .request = {.verb = verb, .digest = Digest::Xxh128, .rdma = true, .connect = connect, .sync = false}};
    (verb == Verb::Push ? options.names : options.request.names) = {"file"};
    const Root root = (verb == Verb::Push ? source : sink).root();
    asked.status = run_client(options, Secret(std::string(kSecret)), root, asked.totals, {});
    return asked;
  };
  bool did = true;
  std::uint64_t at = 0;
  for (; did; at += 41) {
    INFO("cut after " << at << " bytes");
    const Folder sink;
    Serving serving(verb == Verb::Push ? sink : source, kSecret,
                    {.session = {.timeout_ms = 5000, .rdma = rdma}}, host);
    {
      const Proxy proxy(serving.address(), Proxy::Fault::Cut, at);
      const Asked cut = session(proxy.address(), sink);
      did = proxy.did();
      // Of a pull the last word is the client's, who has the file then.
      if (did && cut.status && (verb == Verb::Push || !fs::exists(sink / "file")))
        FAIL("it says that all is well");
    }
    if (fs::exists(sink / "file")) CHECK(read(sink / "file") == content);
    Asked again;
    for (int i = 0; i < 100; ++i) {  // the session that was cut may not have noticed yet
      again = session(serving.address(), sink);
      if (again.status && again.totals.failed == 0) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    REQUIRE(again.status);
    CHECK(again.totals.failed == 0);
    CHECK(again.totals.how == "rdma");
    CHECK(again.totals.fallback.empty());
    CHECK(read(sink / "file") == content);
  }
  CHECK(at > 500);
}

TEST_CASE("bulk: whatever bit is changed on the way, no file arrives that was not sent") {
  const auto digest = GENERATE(Digest::Xxh128, Digest::Sha256);
  const Folder source;
  const std::string content = random_content(200'000);
  write(source / "file", content);
  for (std::uint64_t at = 0; at < 201'500; at += at < 700 ? 17 : 20'011) {
    INFO("bit of byte " << at);
    const Folder sink;
    Serving serving(sink);
    const Proxy proxy(serving.address(), Proxy::Fault::Flip, at);
    const Asked asked = ask(proxy.address(), source, {.verb = Verb::Push, .digest = digest, .sync = false},
                            {"file"}, kSecret, 400);
    if (proxy.did()) CHECK((!asked.status || asked.totals.failed == 1));
    if (fs::exists(sink / "file")) CHECK(read(sink / "file") == content);
  }
}

TEST_CASE("bulk: what is there of a file is used when it is the same, and only then") {
  const Folder source;
  const Folder sink;
  const std::string content = random_content(2 << 20);
  write(source / "file", content);
  std::string part;
  {
    Serving serving(sink);
    const Proxy proxy(serving.address(), Proxy::Fault::Cut, 1'300'000);
    CHECK_FALSE(push(proxy.address(), source, {"file"}).status);
    serving.stop();
  }
  for (const auto& entry : fs::directory_iterator(sink.name())) part = entry.path();
  REQUIRE_FALSE(part.empty());
  REQUIRE(fs::file_size(part) > 0);
  std::uint64_t expected = fs::file_size(part);
  SECTION("the same") {}
  SECTION("damaged") {
    std::fstream file(part, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(100);
    file.put(static_cast<char>(~content[100]));
    expected = 0;
  }
  SECTION("of another version") {
    write(source / "file", content + "more");
    expected = 0;
  }
  Serving serving(sink);
  const Asked asked = push(serving.address(), source, {"file"});
  REQUIRE(asked.status);
  REQUIRE(asked.events.size() == 1);
  CHECK(asked.events.front().resumed == expected);
  CHECK(read(sink / "file") == read(source / "file"));
  CHECK(parts_in(sink.name()) == 0);
}

TEST_CASE("bulk: nothing is read or written beyond the folder, whatever stands in it") {
  const Folder outside;
  write(outside / "secret", "do not read");
  const Folder served;
  write(served / "inside", "read");
  fs::create_directory_symlink(outside.name(), served / "way-out");
  fs::create_symlink(outside / "secret", served / "file-out");
  const Folder here;
  write(here / "way-out/new", "do not write");
  write(here / "file-out", "instead");
  Serving serving(served);
  for (const std::string name : {"way-out/secret", "way-out/nothing"}) {
    INFO(name);
    const Asked asked = pull(serving.address(), here, {name});
    REQUIRE_FALSE(asked.status);
    CHECK(asked.status.error().what.find("symbolic link") != std::string::npos);
  }
  const Asked link = pull(serving.address(), here, {"way-out", "file-out", "inside"});
  REQUIRE(link.status);
  CHECK(link.totals.files == 1);
  CHECK(link.totals.left_out == 2);
  const Asked pushed = push(serving.address(), here, {"way-out", "file-out"});
  REQUIRE(pushed.status);
  CHECK(pushed.totals.failed == 2);  // the folder that is a link, and the file in it
  CHECK_FALSE(fs::exists(outside / "new"));
  CHECK(read(outside / "secret") == "do not read");
  CHECK(read(served / "file-out") == "instead");  // the link was replaced, not followed
  CHECK_FALSE(fs::is_symlink(served / "file-out"));
  CHECK_FALSE(ask(serving.address(), here, {.verb = Verb::Push, .folder = "way-out"}, {"inside"}).status);
}

TEST_CASE("bulk: a server that sends what nobody asked for is not obeyed") {
  const Folder here;
  auto listener = path::TcpListener::listen(path::Address::parse("127.0.0.1", 0).value());
  REQUIRE(listener);
  const path::Address address = path::Address::of_socket(listener->fd()).value();
  std::vector<HaveState> answers;
  std::string trouble;
  std::jthread server([&] {
    std::optional<path::TcpStream> client;
    while (listener->accept(client) != path::Accepted::One) listener->wait(10'000'000);
    Channel channel(std::move(*client), "client", 5000);
    const Status done = [&]() -> Status {
      ANIC_TRY(channel.prove_as_server(Secret(std::string(kSecret))));
      channel.trust(5000);
      ANIC_TRY(channel.expect<Request>(Kind::Request));
      ANIC_TRY(channel.send(Kind::Plan, Plan{}));
      for (const char* path : {".bashrc", "set-not", "set/.ssh", "set"}) {
        ANIC_TRY(channel.send(Kind::Offer, Offer{.folder = true, .mode = 0700, .path = path}));
        answers.push_back(ANIC_TRY(channel.expect<Have>(Kind::Have)).state);
      }
      ANIC_TRY(channel.send(Kind::Bye, Bye{}));
      ANIC_TRY(channel.expect<Bye>(Kind::Bye));
      return {};
    }();
    if (!done) trouble = done.error().text();
  });
  const Asked asked = pull(address, here, {"set"});
  server.join();
  CHECK(trouble.empty());
  REQUIRE(asked.status);
  CHECK(answers == std::vector{HaveState::Refused, HaveState::Refused, HaveState::Whole, HaveState::Whole});
  CHECK(asked.totals.failed == 2);
  CHECK_FALSE(fs::exists(here / ".bashrc"));
  CHECK_FALSE(fs::exists(here / "set-not"));
}

TEST_CASE("bulk: a file that changes while it is read does not arrive") {
  const Folder source;
  const Folder sink;
  write(source / "file", random_content(4 << 20));
  Serving serving(sink);
  const auto way = GENERATE(0, 1);
  const auto transport = GENERATE(Transport::Tcp, Transport::Uring);
  std::atomic<bool> changed = false;
  const auto change_once = [&]() -> std::uint64_t {
    if (changed.exchange(true)) return 0;
    if (way == 0) fs::resize_file(source / "file", 3 << 20);
    if (way == 1) write(source / "file", random_content(4 << 20, 2));
    return 0;
  };
  const ClientOptions options{.session = {.timeout_ms = 5000,
                                          .pacers = {std::make_shared<Pacer>(change_once)},
                                          .transport = transport},
                              .server = serving.address(),
                              .request = {.verb = Verb::Push},
                              .names = {"file"}};
  Totals totals;
  REQUIRE(run_client(options, Secret(std::string(kSecret)), source.root(), totals, {}));
  CHECK(changed);
  CHECK(totals.failed == 1);
  CHECK_FALSE(fs::exists(sink / "file"));
}

TEST_CASE(
    "bulk: a server of few sessions says so, one that takes no files too, and strangers are shown out") {
  const Folder here;
  const Folder there;
  write(here / "file", "content");
  Serving serving(there, kSecret, {.sessions_most = 1, .read_only = true});
  auto stranger = path::TcpStream::connect(serving.address());
  REQUIRE(stranger);
  {
    Channel known(path::TcpStream::connect(serving.address()).value(), "", 5000);
    REQUIRE(known.prove_as_client(Secret(std::string(kSecret))));
    std::this_thread::sleep_for(std::chrono::milliseconds(150));
    const Asked asked = push(serving.address(), here, {"file"});
    REQUIRE_FALSE(asked.status);
    CHECK(asked.status.error().what.find("1 sessions are open") != std::string::npos);
  }
  const std::string garbage = "GET / HTTP/1.1\r\n\r\n";
  stranger->send(std::as_bytes(std::span(garbage)), path::Wait::Block);
  std::array<std::byte, 512> answer{};
  while (stranger->receive(answer, path::Wait::Block).state == path::StreamState::Open) {
  }
  Asked refused;
  for (int i = 0; i < 100; ++i) {
    refused = push(serving.address(), here, {"file"});
    if (refused.status.error().what.find("sessions are open") == std::string::npos) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  CHECK(refused.status.error().what.find("it takes no files") != std::string::npos);
}

TEST_CASE("bulk: a crowd of strangers takes no session of those who know the secret") {
  const Folder here;
  const Folder there;
  write(here / "file", "content");
  const Serving serving(there, kSecret, {.sessions_most = 1});
  std::vector<path::TcpStream> crowd;
  const auto shown_out = [&] {
    std::array<std::byte, 512> reason{};
    return std::ranges::count_if(crowd, [&](path::TcpStream& stranger) {
      while (stranger.receive(reason).bytes > 0) {
      }
      return stranger.receive(reason).state != path::StreamState::Open;
    });
  };
  const auto until_shown_out = [&](std::ptrdiff_t count) {
    for (int i = 0; i < 3000 && shown_out() < count; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return shown_out() >= count;
  };
  for (int i = 0; i < 20; ++i) crowd.push_back(path::TcpStream::connect(serving.address()).value());
  CHECK(push(serving.address(), here, {"file"}).status);
  CHECK(read(there / "file") == "content");
  for (int i = 0; i < 200; ++i) crowd.push_back(path::TcpStream::connect(serving.address()).value());
  CHECK(until_shown_out(220 - 64));  // these are not even asked
  CHECK(until_shown_out(220));
  write(here / "file", "new content");
  CHECK(push(serving.address(), here, {"file"}).status);
  CHECK(read(there / "file") == "new content");
}

TEST_CASE("bulk: a stranger that says a little now and then, or much, is shown out") {
  const Folder there;
  const Serving serving(there);
  const auto header = header_bytes(
      GENERATE(Header{.kind = Kind::Hello, .length = 120}, Header{.kind = Kind::Refused, .length = 65536}));
  auto stranger = path::TcpStream::connect(serving.address()).value();
  auto state = path::StreamState::Open;
  std::array<std::byte, 512> reason{};
  for (std::size_t i = 0; i < 300 && state == path::StreamState::Open; ++i) {
    const std::array<std::byte, 1> next = {i < header.size() ? header[i] : std::byte{}};
    static_cast<void>(stranger.send(next));
    std::this_thread::sleep_for(std::chrono::milliseconds(90));
    state = stranger.receive(reason).state;
  }
  CHECK(state != path::StreamState::Open);
}

TEST_CASE("bulk: what cannot be written is told, and the next word of the peer is found behind it") {
  const bool over_uring = GENERATE(false, true);
  const auto digest = GENERATE(Digest::None, Digest::Xxh128);
  auto listener = path::TcpListener::listen(path::Address::parse("127.0.0.1", 0).value());
  REQUIRE(listener);
  const std::jthread peer([address = path::Address::of_socket(listener->fd()).value()] {
    Channel channel(path::TcpStream::connect(address).value(), "", 5000);
    if (!channel.prove_as_client(Secret(std::string(kSecret)))) return;
    const Bytes content(kDataMost);
    static_cast<void>(channel.begin_data(content.size()));
    static_cast<void>(channel.send_all(content));
    channel.end_data();
    static_cast<void>(channel.send(Kind::Fallback, Reason{.reason = "a word"}));
    static_cast<void>(channel.peek());  // until the other end is through
  });
  std::optional<path::TcpStream> stream;
  while (listener->accept(stream) != path::Accepted::One) listener->wait(1'000'000'000);
  Channel channel(std::move(*stream), "", 5000);
  REQUIRE(channel.prove_as_server(Secret(std::string(kSecret))));
  channel.trust(5000);
  const UniqueFd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  REQUIRE(full);
  std::unique_ptr<Plane> plane = std::make_unique<TcpPlane>();
  if (over_uring) plane = UringPlane::open().value();
  Hasher hasher(digest);
  Meter meter({}, {});
  const auto outcome =
      plane->receive(channel, {.fd = full.get(), .from = 0, .to = 4 * kDataMost}, hasher, meter);
  REQUIRE(outcome);
  CHECK(outcome->ending == Ending::File);
  CHECK(outcome->bytes == 0);
  CHECK(outcome->why.starts_with("write: "));
  const auto word = channel.expect<Reason>(Kind::Fallback);
  REQUIRE(word);
  CHECK(word->reason == "a word");
}

TEST_CASE("bulk: a rate is kept to") {
  const Folder source;
  const Folder sink;
  write(source / "file", random_content(1 << 20));
  Serving serving(sink);
  const Asked asked = ask(serving.address(), source, {.verb = Verb::Push}, {"file"});
  REQUIRE(asked.status);
  fs::remove(sink / "file");
  const auto pacer = std::make_shared<Pacer>([] { return 40'000'000ULL; });
  const ClientOptions options{.session = {.pacers = {pacer}, .transport = Transport::Tcp},
                              .server = serving.address(),
                              .request = {.verb = Verb::Push},
                              .names = {"file"}};
  Totals totals;
  REQUIRE(run_client(options, Secret(std::string(kSecret)), source.root(), totals, {}));
  CHECK(totals.seconds() > 0.19);  // 8 Mibit at 40 Mbit/s, less what may go at once
}
