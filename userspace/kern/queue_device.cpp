// SPDX-License-Identifier: Apache-2.0
#include "kern/queue_device.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <span>
#include <utility>

#include "base/unique_fd.hpp"
#include "kern/ethtool_netlink.hpp"
#include "kern/interface.hpp"

namespace agentnic::kern {
namespace {

bool is_zero(const void* bytes, std::size_t count) {
  const std::span all(static_cast<const std::byte*>(bytes), count);
  return std::ranges::all_of(all, [](std::byte byte) { return byte == std::byte{0}; });
}

/// The ports of a rule in the layout that a family of flows has them, and whether its mask has nothing else.
struct Ports {
  std::uint16_t source_be = 0;
  std::uint16_t destination_be = 0;
};
template <typename Spec>
void put_ports(Spec& spec, Ports ports) {
  spec.psrc = ports.source_be;
  spec.pdst = ports.destination_be;
}
template <typename Spec>
Ports ports_of(const Spec& spec) {
  return {spec.psrc, spec.pdst};
}
template <typename Spec>
bool only_ports(Spec mask) {
  put_ports(mask, {});
  return is_zero(&mask, sizeof(mask));
}

std::uint32_t flow_type(const FlowRule& rule) {
  if (rule.protocol == IPPROTO_TCP) return rule.version == 4 ? TCP_V4_FLOW : TCP_V6_FLOW;
  return rule.version == 4 ? UDP_V4_FLOW : UDP_V6_FLOW;
}

ethtool_rx_flow_spec spec_of(const FlowRule& rule, std::uint32_t location) {
  ethtool_rx_flow_spec spec{};
  spec.flow_type = flow_type(rule);
  spec.ring_cookie = rule.queue;
  spec.location = location;
  const Ports ports{htons(rule.source_port), htons(rule.destination_port)};
  const Ports masks{htons(rule.source_mask), htons(rule.destination_mask)};
  // UDP has the struct of TCP.
  if (rule.version == 4) {
    put_ports(spec.h_u.tcp_ip4_spec, ports);
    put_ports(spec.m_u.tcp_ip4_spec, masks);
  } else {
    put_ports(spec.h_u.tcp_ip6_spec, ports);
    put_ports(spec.m_u.tcp_ip6_spec, masks);
  }
  return spec;
}

/// Nothing: it says something that a FlowRule cannot.
std::optional<FlowRule> rule_of(const ethtool_rx_flow_spec& spec) {
  FlowRule rule;
  switch (spec.flow_type) {  // with FLOW_EXT, FLOW_MAC_EXT or FLOW_RSS it is none of these
    case TCP_V4_FLOW:
    case TCP_V6_FLOW:
      rule.protocol = IPPROTO_TCP;
      break;
    case UDP_V4_FLOW:
    case UDP_V6_FLOW:
      rule.protocol = IPPROTO_UDP;
      break;
    default:
      return std::nullopt;
  }
  const bool is_v4 = spec.flow_type == TCP_V4_FLOW || spec.flow_type == UDP_V4_FLOW;
  if (is_v4 ? !only_ports(spec.m_u.tcp_ip4_spec) : !only_ports(spec.m_u.tcp_ip6_spec)) return std::nullopt;
  const Ports ports = is_v4 ? ports_of(spec.h_u.tcp_ip4_spec) : ports_of(spec.h_u.tcp_ip6_spec);
  const Ports masks = is_v4 ? ports_of(spec.m_u.tcp_ip4_spec) : ports_of(spec.m_u.tcp_ip6_spec);
  rule.version = is_v4 ? 4 : 6;
  rule.source_mask = ntohs(masks.source_be);
  rule.destination_mask = ntohs(masks.destination_be);
  rule.source_port = ntohs(ports.source_be) & rule.source_mask;
  rule.destination_port = ntohs(ports.destination_be) & rule.destination_mask;
  rule.queue = static_cast<std::uint32_t>(ethtool_get_flow_spec_ring(spec.ring_cookie));
  return rule;
}

/// A command of ethtool that ends in an array, as words; `Head` is what comes before.
template <typename Head>
class WordBuffer final {
 public:
  explicit WordBuffer(std::size_t words) : words_(sizeof(Head) / kWord + words) {}

  [[nodiscard]] Head& head() { return *reinterpret_cast<Head*>(words_.data()); }
  [[nodiscard]] std::span<std::uint32_t> tail() { return std::span(words_).subspan(sizeof(Head) / kWord); }
  [[nodiscard]] void* data() { return words_.data(); }

 private:
  static constexpr std::size_t kWord = sizeof(std::uint32_t);
  static_assert(sizeof(Head) % kWord == 0);
  // Of the alignment that 64-bit fields of the head want: operator new gives it.
  std::vector<std::uint32_t> words_;
};

class EthtoolDevice final : public QueueDevice {
 public:
  EthtoolDevice(Interface interface, UniqueFd socket_fd)
      : interface_(std::move(interface)), socket_fd_(std::move(socket_fd)) {}

  Result<NicQueues> read() override {
    NicQueues nic;
    interface_ = ANIC_TRY(find_interface(interface_.name));  // the number of queues may have changed
    nic.ifname = interface_.name;
    nic.driver = interface_.driver;
    nic.queues = interface_.rx_queues;
    nic.table = ANIC_TRY(read_table(0));
    const Ntuple ntuple = ANIC_TRY(read_ntuple(interface_.name));
    nic.ntuple_on = ntuple.on;
    nic.ntuple_can_change = ntuple.can_change;
    nic.rules = ANIC_TRY(read_rules());
    nic.header_split = ANIC_TRY(read_header_split(interface_.name));
    nic.has_xdp = ANIC_TRY(attached_xdp(interface_.ifindex)).id != 0;
    return nic;
  }

  Status set_ntuple(bool on) override {
    ANIC_TRY(kern::set_ntuple(interface_.name, on));
    // A feature that the driver does not let be is no error to the kernel.
    if (ANIC_TRY(read_ntuple(interface_.name)).on != on) {
      return fail(Exit::Unsupported, fmt::format("turn ntuple of {} {}: its driver ({}) does not",
                                                 interface_.name, on ? "on" : "off", interface_.driver));
    }
    return {};
  }

  Status set_table(const RssTable& table) override {
    return write_table(table, fmt::format("set the RSS table of {}", interface_.name));
  }

  Status set_default_table() override {
    return write_table({}, fmt::format("set the RSS table of {} to the driver's own", interface_.name));
  }

  Result<std::uint32_t> add_rule(const FlowRule& rule, std::uint32_t location) override {
    ethtool_rxnfc command{};
    command.cmd = ETHTOOL_SRXCLSRLINS;
    command.fs = spec_of(rule, location == ANIC_LOCATION_NONE ? RX_CLS_LOC_ANY : location);
    if (const int code = ioctl(&command); code != 0) {
      const bool is_masked = (rule.source_mask & rule.destination_mask) != 0;
      return fail(
          Exit::Unsupported,
          fmt::format("add a flow rule for port {} to queue {} of {}: its driver ({}) refuses: {}",
                      rule.destination_mask == 0xffff ? rule.destination_port : rule.source_port, rule.queue,
                      interface_.name, interface_.driver, std::generic_category().message(code)),
          is_masked ? "it may not take bits of a port: set one queue aside" : "");
    }
    return command.fs.location;
  }

  Status remove_rule(std::uint32_t location) override {
    ethtool_rxnfc command{};
    command.cmd = ETHTOOL_SRXCLSRLDEL;
    command.fs.location = location;
    const int code = ioctl(&command);
    if (code == 0 || !ANIC_TRY(has_rule(location))) return {};
    return fail_errno(code, fmt::format("remove flow rule {} of {}", location, interface_.name));
  }

  Status set_header_split(SplitMode mode, std::optional<std::uint32_t> threshold) override {
    Status done = kern::set_header_split(interface_.name, mode, threshold);
    if (!done) done.error().what += fmt::format(" (its driver is {})", interface_.driver);
    return done;
  }

 private:
  /// An errno, or 0.
  int ioctl(void* command) {
    ifreq request{};
    std::copy_n(interface_.name.data(), std::min<std::size_t>(interface_.name.size(), IFNAMSIZ - 1),
                request.ifr_name);
    request.ifr_data = static_cast<char*>(command);
    return ::ioctl(socket_fd_.get(), SIOCETHTOOL, &request) == 0 ? 0 : errno;
  }

  Result<RssTable> read_table(std::uint32_t context) {
    const std::string what = fmt::format("read the RSS table of {}", interface_.name);
    ethtool_rxfh sizes{};
    sizes.cmd = ETHTOOL_GRSSH;
    sizes.rss_context = context;
    if (const int code = ioctl(&sizes); code != 0) {
      if (code == EOPNOTSUPP) return RssTable();
      return fail_errno(code, what);
    }
    if (sizes.indir_size == 0) return RssTable();
    WordBuffer<ethtool_rxfh> buffer(sizes.indir_size);
    buffer.head().cmd = ETHTOOL_GRSSH;
    buffer.head().rss_context = context;
    buffer.head().indir_size = sizes.indir_size;
    if (const int code = ioctl(buffer.data()); code != 0) return fail_errno(code, what);
    if (context == 0) transform_ = buffer.head().rsvd8[0];
    return RssTable(buffer.tail().begin(), buffer.tail().end());
  }

  /// An empty table: the driver's own.
  Status write_table(const RssTable& table, const std::string& what) {
    ANIC_TRY(read_table(0));
    WordBuffer<ethtool_rxfh> buffer(table.size());
    buffer.head().cmd = ETHTOOL_SRSSH;
    buffer.head().indir_size = static_cast<std::uint32_t>(table.size());
    // What is hashed stays as it is. Linux 6.8 has a field there (input_xfrm), which it would set; to those
    // before it must be zero, which is what they gave.
    buffer.head().rsvd8[0] = transform_;
    std::ranges::copy(table, buffer.tail().begin());
    if (const int code = ioctl(buffer.data()); code != 0) {
      return fail(Exit::Unsupported, fmt::format("{}: its driver ({}) refuses: {}", what, interface_.driver,
                                                 std::generic_category().message(code)));
    }
    return {};
  }

  Result<std::optional<RuleTable>> read_rules() {
    const std::string what = fmt::format("read the flow rules of {}", interface_.name);
    ethtool_rxnfc count{};
    count.cmd = ETHTOOL_GRXCLSRLCNT;
    if (const int code = ioctl(&count); code != 0) {
      // Drivers answer what they like to what they do not have.
      if (code == EOPNOTSUPP || code == EINVAL) return std::optional<RuleTable>();
      return fail_errno(code, what);
    }
    RuleTable table;
    table.chooses_location = (count.data & RX_CLS_LOC_SPECIAL) != 0;
    table.size = static_cast<std::uint32_t>(count.data) & ~std::uint32_t{RX_CLS_LOC_SPECIAL};
    WordBuffer<ethtool_rxnfc> all(count.rule_cnt);
    all.head().cmd = ETHTOOL_GRXCLSRLALL;
    all.head().rule_cnt = count.rule_cnt;
    if (count.rule_cnt != 0) {
      if (const int code = ioctl(all.data()); code != 0) return fail_errno(code, what);
      if (table.size == 0) table.size = static_cast<std::uint32_t>(all.head().data);
    }
    // The array begins where the struct's padding does.
    const auto* locations = reinterpret_cast<const std::uint32_t*>(static_cast<const std::byte*>(all.data()) +
                                                                   offsetof(ethtool_rxnfc, rule_locs));
    for (const std::uint32_t location : std::span(locations, std::min(all.head().rule_cnt, count.rule_cnt))) {
      ethtool_rxnfc one{};
      one.cmd = ETHTOOL_GRXCLSRULE;
      one.fs.location = location;
      const int code = ioctl(&one);
      if (code == ENOENT) continue;  // removed since
      if (code != 0) return fail_errno(code, what);
      table.rules.push_back(ANIC_TRY(describe(one, location)));
    }
    return std::optional(std::move(table));
  }

  Result<RuleThere> describe(const ethtool_rxnfc& command, std::uint32_t location) {
    const ethtool_rx_flow_spec& spec = command.fs;
    RuleThere there{.location = location, .queues = {}, .rule = rule_of(spec)};
    if (spec.ring_cookie == RX_CLS_FLOW_DISC || spec.ring_cookie == RX_CLS_FLOW_WAKE) {
      there.rule.reset();
      return there;
    }
    // The upper bits are the virtual function; 0 is the interface itself.
    if (ethtool_get_flow_spec_ring_vf(spec.ring_cookie) != 0) {
      there.rule.reset();
      return there;
    }
    const auto queue = static_cast<std::uint32_t>(ethtool_get_flow_spec_ring(spec.ring_cookie));
    there.queues = {queue};
    if ((spec.flow_type & FLOW_RSS) == 0) return there;
    there.queues = ANIC_TRY(read_table(command.rss_context));  // each is added to the rule's own
    for (std::uint32_t& each : there.queues) each += queue;
    return there;
  }

  Result<bool> has_rule(std::uint32_t location) {
    const auto table = ANIC_TRY(read_rules());
    return table && std::ranges::find(table->rules, location, &RuleThere::location) != table->rules.end();
  }

  Interface interface_;
  UniqueFd socket_fd_;
  std::uint8_t transform_ = 0;  ///< of what is hashed, as the kernel gave it
};

}  // namespace

Result<std::unique_ptr<QueueDevice>> open_queue_device(const std::string& ifname) {
  Interface interface = ANIC_TRY(find_interface(ifname));
  UniqueFd socket_fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket_fd) return fail_errno(errno, "open a socket to ask for the queues of " + ifname);
  return std::make_unique<EthtoolDevice>(std::move(interface), std::move(socket_fd));
}

}  // namespace agentnic::kern
