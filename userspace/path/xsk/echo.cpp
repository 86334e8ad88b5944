// SPDX-License-Identifier: Apache-2.0
#include "path/xsk/echo.hpp"

#include "base/stop.hpp"
#include "path/xsk/datagram.hpp"

namespace agentnic::path {

Turned turn_around(std::span<std::byte> frame) noexcept {
  const auto datagram = read_datagram({&frame, 1});
  if (!datagram) return datagram.error() == Unread::NotUdp ? Turned::NotUdp : Turned::BadChecksum;
  if (reply({&frame, 1}, *datagram) == 0) return Turned::NotUdp;
  return datagram->checksum == Checksum::Partial ? Turned::Completed : Turned::Ready;
}

XskEchoCounters echo_xsk(XskSocket& socket, Wait wait) noexcept {
  const WakeUps wake_ups;
  XskEchoCounters counters;
  while (!stop_requested()) {
    const auto frames = socket.receive();
    if (frames.empty()) {
      if (socket.flush() && wait == Wait::Block) socket.wait();
      continue;
    }
    for (const xdp_desc& frame : frames) {
      const Turned turned = turn_around({socket.data(frame), frame.len});
      if (turned == Turned::Ready || turned == Turned::Completed) {
        counters.completed_checksums += turned == Turned::Completed;
        ++counters.echo.packets;
        socket.send(frame);
      } else {
        ++counters.echo.failed;
        ++(turned == Turned::NotUdp ? counters.not_udp : counters.bad_checksums);
        socket.recycle(frame);
      }
    }
    socket.flush();
  }
  return counters;
}

}  // namespace agentnic::path
