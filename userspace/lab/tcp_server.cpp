// SPDX-License-Identifier: Apache-2.0
#include "lab/tcp_server.hpp"

#include <algorithm>
#include <optional>
#include <stop_token>
#include <thread>

#include "kern/reuseport.hpp"
#include "lab/environment.hpp"

namespace agentnic::lab {

Result<TcpServer> TcpServer::open(const TcpServerOptions& options) {
  TcpServer made;
  made.options_ = options;
  const bool several = options.cpus.size() > 1;
  std::optional<kern::ReuseportGroup> group;
  if (several) group = ANIC_TRY(kern::ReuseportGroup::open());
  for (std::size_t i = 0; i < std::max<std::size_t>(options.cpus.size(), 1); ++i) {
    auto listener = ANIC_TRY(
        path::TcpListener::listen(options.local, {.busy_poll = options.busy_poll, .reuse_port = several}));
    if (several) ANIC_TRY(group->add(listener.fd(), options.cpus[i]));
    if (options.uring) {
      path::UringEchoOptions uring = *options.uring;
      uring.busy_poll = options.busy_poll;
      made.workers_.emplace_back(ANIC_TRY(path::UringEcho::open(std::move(listener), uring)));
    } else {
      made.workers_.emplace_back(ANIC_TRY(path::TcpEcho::open(std::move(listener), options.busy_poll)));
    }
  }
  return made;
}

Result<std::vector<TcpServed>> TcpServer::run() {
  std::vector<TcpServed> served(workers_.size());
  std::vector<Status> ended(workers_.size());
  std::stop_source stop;  // one that fails ends all
  const auto work = [&](std::size_t i) -> Status {
    if (!options_.cpus.empty()) ANIC_TRY(pin_to_cpu(options_.cpus[i]));
    if (auto* epoll = std::get_if<path::TcpEcho>(&workers_[i])) {
      served[i].echo = epoll->run(options_.wait, stop.get_token());
    } else {
      auto& uring = std::get<path::UringEcho>(workers_[i]);
      served[i].echo = ANIC_TRY(uring.run(options_.wait, stop.get_token()));
      served[i].uring = uring.more();
    }
    return {};
  };
  {
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < workers_.size(); ++i)
      threads.emplace_back([&, i] {
        ended[i] = work(i);
        if (!ended[i]) stop.request_stop();
      });
  }
  for (Status& one : ended) ANIC_TRY(std::move(one));
  return served;
}

}  // namespace agentnic::lab
