// SPDX-License-Identifier: Apache-2.0
#include "cli/common/xsk_options.hpp"

#include <fmt/format.h>

#include <iostream>

namespace agentnic::cli {

void add_xsk_options(CLI::App& app, XskOptions& options) {
  path::XskRequest& request = options.request;
  app.add_option("SERVICE", request.service, "service of the policy, on path xsk, that this user owns")
      ->required();
  app.add_option("--socket", options.socket, "where agentnic-load serve listens: /run/agentnic/xsk-IFACE")
      ->required();
  app.add_option("--queue", request.first_queue, "first receive queue; any that is free unless stated");
  app.add_option("--queues", request.queues, "how many")->capture_default_str();
  app.add_option("--frames", request.shape.frames, "of memory, of all queues; a power of two")
      ->capture_default_str();
  app.add_option("--frame-bytes", request.shape.frame_bytes, "2048 or 4096")->capture_default_str();
  app.add_option("--bind", options.bind, "auto, copy or zerocopy")
      ->check(CLI::IsMember(kBinds))
      ->capture_default_str();
  app.add_flag("--jumbo", request.shape.multi_buffer, "packets longer than a frame, in several (Linux 6.6)");
  app.add_option("--busy-poll", request.shape.busy_poll_us, "preferred busy polling, us; 0: interrupts")
      ->capture_default_str();
  app.add_option("--busy-budget", request.shape.busy_budget, "packets of one poll")->capture_default_str();
  app.add_option("--wait", options.wait, "block or spin")
      ->check(CLI::IsMember(kWaits))
      ->capture_default_str();
  app.add_flag("--json", options.json, "print JSON; units are in the key names");
}

Result<path::XskClient> connect(const XskOptions& options) {
  path::XskRequest request = options.request;
  request.shape.bind = kBinds.at(options.bind);
  return path::connect_xsk(options.socket, request);
}

Json to_json(path::XskClient& client) {
  const path::FrameCensus census = client.memory().census();
  Json queues = Json::array();
  for (const path::XskSocket& socket : client.sockets()) {
    const path::XskLosses losses = socket.losses();
    const path::XskOccupancy rings = socket.occupancy();
    const path::XskCounters& counters = socket.counters();
    queues.push_back({{"queue", socket.queue()},
                      {"obtained", socket.zero_copy() ? "zerocopy" : "copy"},
                      {"received", counters.received},
                      {"sent", counters.sent},
                      {"refused", socket.refused()},
                      {"starved", counters.starved},
                      {"refused_kicks", counters.refused_kicks},
                      {"misused_frames", counters.misused},
                      {"losses",
                       {{"rx_dropped", losses.rx_dropped},
                        {"rx_ring_full", losses.rx_ring_full},
                        {"fill_ring_empty", losses.fill_ring_empty},
                        {"rx_invalid", losses.rx_invalid},
                        {"tx_invalid", losses.tx_invalid}}},
                      {"rings",
                       {{"fill", rings.fill},
                        {"receive", rings.receive},
                        {"transmit", rings.transmit},
                        {"completion", rings.completion}}}});
  }
  return {{"interface", client.grant().ifname},
          {"huge_pages", client.grant().huge_pages},
          {"frames",
           {{"all", client.memory().frames()},
            {"free", census.free},
            {"receiving", census.receiving},
            {"held", census.held},
            {"sending", census.sending}}},
          {"queues", queues}};
}

void announce(const std::string& schema, const XskOptions& options, path::XskClient& client) {
  if (options.json) {
    Json json = {{"schema", schema}, {"ready", true}, {"service", options.request.service}};
    json.update(to_json(client));
    std::cout << json.dump() << std::endl;
    return;
  }
  std::string text = fmt::format("{} on {}:", options.request.service, client.grant().ifname);
  for (const path::XskSocket& socket : client.sockets())
    text += fmt::format(" queue {} ({})", socket.queue(), socket.zero_copy() ? "zerocopy" : "copy");
  std::cout << text << "; Ctrl-C ends it" << std::endl;
}

}  // namespace agentnic::cli
