// SPDX-License-Identifier: Apache-2.0
#include "path/xsk/echo.hpp"

#include "base/stop.hpp"
#include "path/xsk/datagram.hpp"

namespace agentnic::path {

Turned turn_around(Pieces packet) noexcept {
  const auto datagram = read_datagram(packet);
  if (!datagram) return datagram.error() == Unread::NotUdp ? Turned::NotUdp : Turned::BadChecksum;
  if (reply(packet, *datagram) == 0) return Turned::NotUdp;
  return datagram->checksum == Checksum::Partial ? Turned::Completed : Turned::Ready;
}

XskEchoCounters echo_xsk(XskClient& client, Wait wait) noexcept {
  const WakeUps wake_ups;
  XskEchoCounters counters;
  PieceList pieces;
  while (!stop_requested() && !client.gone()) {
    bool idle = true;
    for (XskSocket& socket : client.sockets()) {
      for (auto frames = socket.receive(); !frames.empty();) {
        idle = false;
        const auto packet = first_packet(frames);
        frames = frames.subspan(packet.size());
        const Turned turned = turn_around(client.pieces(packet, pieces));
        if (turned == Turned::Ready || turned == Turned::Completed) {
          counters.completed_checksums += turned == Turned::Completed;
          ++counters.echo.packets;
          socket.send(packet);
        } else {
          ++counters.echo.failed;
          ++(turned == Turned::NotUdp ? counters.not_udp : counters.bad_checksums);
          socket.recycle(packet);
        }
      }
    }
    if (client.flush() && idle && wait == Wait::Block) client.wait(-1);
  }
  return counters;
}

}  // namespace agentnic::path
