// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Both ends of a bulk session: who asks for something, and who serves a folder.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "bulk/meter.hpp"
#include "bulk/rdma_plane.hpp"
#include "bulk/root.hpp"
#include "bulk/secret.hpp"
#include "bulk/wire.hpp"
#include "path/sockets/address.hpp"
#include "path/sockets/tcp.hpp"

namespace agentnic::bulk {

/// Which path content takes.
enum class Transport : std::uint8_t {
  Auto,   ///< path C where both ends have it, else path A by Tcp
  Tcp,    ///< path A by sockets
  Uring,  ///< path A by io_uring, or nothing: Unsupported
  Rdma,   ///< or nothing: Unsupported
};

/// What both ends are told.
struct SessionOptions {
  int timeout_ms = 30'000;  ///< without a byte moving
  Pacers pacers = {};       ///< of what this end sends
  Transport transport = Transport::Auto;
  RdmaOptions rdma = {};
};

struct ClientOptions {
  SessionOptions session = {};
  path::Address server = {};
  Request request = {};                 ///< of Push without the names
  std::vector<std::string> names = {};  ///< of Push: below the root
};

/// One session from its beginning to its end: all files that could be moved are. An error: the session
/// broke; `totals` has what was done before.
Status run_client(const ClientOptions& options, const Secret& secret, const Root& root, Totals& totals,
                  const Meter::Tell& tell);

/// What a session of a server was.
struct Served {
  std::string peer;
  std::string verb;  ///< empty: it did not come so far
  Totals totals;
  std::string error;
};

struct ServerOptions {
  SessionOptions session = {};
  unsigned sessions_most = 16;  ///< of peers that know the secret, at a time
  bool read_only = false;       ///< refuses Push
};

class Server final {
 public:
  using Report = std::function<void(const Served&)>;
  /// Borrows secret and root.
  static Result<Server> open(const path::Address& local, const ServerOptions& options, const Secret& secret,
                             const Root& root);
  /// Whether there is what each session will need; to be asked with the privileges that they will have.
  [[nodiscard]] Status ready() const;
  [[nodiscard]] Result<path::Address> address() const { return path::Address::of_socket(listener_.fd()); }
  /// Serves until stop_requested(), or it is told to stop, each session in a thread of its own; `report` is
  /// called by one at a time.
  void run(const Report& report, const std::stop_token& stop = {});

 private:
  Server(path::TcpListener listener, ServerOptions options, const Secret& secret, const Root& root)
      : listener_(std::move(listener)), options_(std::move(options)), secret_(&secret), root_(&root) {}
  /// Who is served at the moment.
  struct Peers {
    std::atomic<unsigned> strangers = 0;  ///< who have not proved that they know the secret, or are shown out
    std::atomic<unsigned> known = 0;
  };
  Served serve(path::TcpStream stream, int proof_ms, Peers& peers) const;
  Status serve_request(Channel& channel, Served& served) const;

  path::TcpListener listener_;
  ServerOptions options_;
  const Secret* secret_;
  const Root* root_;
};

}  // namespace agentnic::bulk
