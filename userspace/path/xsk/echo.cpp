// SPDX-License-Identifier: Apache-2.0
#include "path/xsk/echo.hpp"

#include <linux/if_ether.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/checksum.hpp"
#include "base/stop.hpp"
#include "lib/parse.h"

namespace agentnic::path {
namespace {

/// The sum over the pseudo header of RFC 768 or RFC 8200, section 8.1.
std::uint64_t pseudo_header(const std::byte* ip, bool is_v6, std::uint16_t udp_length_be) noexcept {
  const std::uint64_t sum = is_v6 ? checksum_add(ip + offsetof(ipv6hdr, saddr), 32, 0)
                                  : checksum_add(ip + offsetof(iphdr, saddr), 8, 0);
  return sum + udp_length_be + ANIC_BE16(IPPROTO_UDP);
}

}  // namespace

Turned turn_around(std::span<std::byte> frame) noexcept {
  anic_pkt pkt{};
  anic_parse(&pkt, frame.data(), frame.data() + frame.size());
  if (pkt.kind != ANIC_KIND_UDP || pkt.fragment != ANIC_FRAGMENT_NONE) return Turned::NotUdp;
  std::byte* ip = frame.data() + pkt.l3_off;
  std::byte* l4 = frame.data() + pkt.l4_off;
  udphdr udp{};
  std::memcpy(&udp, l4, sizeof(udp));
  const std::size_t length = ANIC_BE16(udp.len);
  if (length < sizeof(udp) || length > frame.size() - pkt.l4_off) return Turned::NotUdp;

  const bool is_v6 = pkt.ip_version == 6;
  Turned result = Turned::Ready;
  if (udp.check != 0 || is_v6) {
    const std::uint64_t pseudo = pseudo_header(ip, is_v6, udp.len);
    const std::uint64_t whole = checksum_add(l4, length, pseudo);
    if (checksum_fold(whole) != 0xffff) {
      if (udp.check != checksum_fold(pseudo)) return Turned::BadChecksum;
      // The partial sum stands in the field, so that `whole` has it once too often.
      const auto check = static_cast<std::uint16_t>(~checksum_fold(whole - udp.check));
      udp.check = check == 0 ? std::uint16_t{0xffff} : check;
      result = Turned::Completed;
    }
  }
  std::swap(udp.source, udp.dest);
  std::memcpy(l4, &udp, sizeof(udp));
  const std::size_t address_bytes = is_v6 ? sizeof(in6_addr) : sizeof(in_addr);
  std::byte* source = ip + (is_v6 ? offsetof(ipv6hdr, saddr) : offsetof(iphdr, saddr));
  std::swap_ranges(source, source + address_bytes, source + address_bytes);
  std::swap_ranges(frame.data(), frame.data() + ETH_ALEN, frame.data() + ETH_ALEN);
  return result;
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
