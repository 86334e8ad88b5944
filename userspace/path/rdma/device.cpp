// SPDX-License-Identifier: Apache-2.0
#include "path/rdma/device.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>
#include <vector>

namespace agentnic::path {
namespace {

constexpr std::array<unsigned char, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool is_mapped(const Gid& gid) { return std::memcmp(gid.data(), kMapped.data(), kMapped.size()) == 0; }

struct FreeList {
  void operator()(ibv_device** list) const noexcept { ibv_free_device_list(list); }
};
using DeviceList = std::unique_ptr<ibv_device*[], FreeList>;

/// The devices that the kernel has; none, too, when it has no RDMA at all.
Result<std::pair<DeviceList, std::span<ibv_device*>>> devices() {
  int count = 0;
  DeviceList list(ibv_get_device_list(&count));
  if (!list) {
    if (errno == ENOSYS) return std::pair(DeviceList(), std::span<ibv_device*>());
    return fail_errno(errno, "list RDMA devices");
  }
  const std::span<ibv_device*> span(list.get(), static_cast<std::size_t>(count));
  return std::pair(std::move(list), span);
}

/// The RoCEv2 GIDs of an open device.
std::vector<RdmaPort> ports_of(ibv_context* context, const ibv_device_attr& limits) {
  std::vector<RdmaPort> ports;
  std::vector<ibv_gid_entry> entries(1024);
  const ssize_t found = ibv_query_gid_table(context, entries.data(), entries.size(), 0);
  entries.resize(found > 0 ? static_cast<std::size_t>(found) : 0);
  for (unsigned port = 1; port <= limits.phys_port_cnt; ++port) {
    ibv_port_attr state{};
    if (ibv_query_port(context, static_cast<std::uint8_t>(port), &state) != 0) continue;
    for (const ibv_gid_entry& entry : entries) {
      // An address handle has eight bits for the index.
      if (entry.port_num != port || entry.gid_type != IBV_GID_TYPE_ROCE_V2 || entry.gid_index > UINT8_MAX)
        continue;
      RdmaPort made{.device = ibv_get_device_name(context->device),
                    .port = static_cast<std::uint8_t>(port),
                    .active = state.state == IBV_PORT_ACTIVE,
                    .gid_index = entry.gid_index,
                    .gid = {},
                    .ifindex = entry.ndev_ifindex,
                    .mtu = state.active_mtu};
      std::memcpy(made.gid.data(), entry.gid.raw, made.gid.size());
      ports.push_back(made);
    }
  }
  return ports;
}

/// The interfaces of this network namespace that have this address.
Result<std::vector<std::uint32_t>> interfaces_with(const Gid& address) {
  std::vector<std::uint32_t> found;
  ifaddrs* first = nullptr;
  if (::getifaddrs(&first) != 0) return fail_errno(errno, "list the addresses of interfaces");
  const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> all(first, ::freeifaddrs);
  for (const ifaddrs* one = first; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr) continue;
    const auto family = one->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    Address each;
    each.length = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    std::memcpy(&each.storage, one->ifa_addr, each.length);
    if (gid_of(each) == address) found.push_back(::if_nametoindex(one->ifa_name));
  }
  return found;
}

/// Why not this one; empty: it is the one. A device is seen in all network namespaces (`rdma system`, netns
/// shared), with the addresses of each; the index of the interface tells them apart unless two namespaces
/// have the same address at the same index.
std::string refusal(const RdmaPort& port, const Gid& wanted, const std::vector<std::uint32_t>& interfaces) {
  const bool has_address = port.gid == wanted;
  const bool is_elsewhere =
      has_address && port.ifindex != 0 && std::ranges::find(interfaces, port.ifindex) == interfaces.end();
  if (has_address && port.active && !is_elsewhere) return "";
  return fmt::format("{} port {} ({}{}{})", port.device, port.port, gid_text(port.gid),
                     port.active ? "" : ", not active", is_elsewhere ? ", of another network namespace" : "");
}

}  // namespace

Gid gid_of(const Address& address) {
  Gid gid{};
  if (address.storage.ss_family == AF_INET) {
    std::memcpy(gid.data(), kMapped.data(), kMapped.size());
    std::memcpy(gid.data() + kMapped.size(), &reinterpret_cast<const sockaddr_in*>(address.get())->sin_addr,
                4);
  } else {
    std::memcpy(gid.data(), &reinterpret_cast<const sockaddr_in6*>(address.get())->sin6_addr, gid.size());
  }
  return gid;
}

std::string gid_text(const Gid& gid) {
  char text[INET6_ADDRSTRLEN] = {};
  if (is_mapped(gid)) {
    ::inet_ntop(AF_INET, gid.data() + kMapped.size(), text, sizeof(text));
  } else {
    ::inet_ntop(AF_INET6, gid.data(), text, sizeof(text));
  }
  return text;
}

Result<RdmaDevice> RdmaDevice::open(const Address& local, const std::string& name) {
  const Gid wanted = gid_of(local);
  const auto interfaces = ANIC_TRY(interfaces_with(wanted));
  std::string seen;
  const auto [list, all] = ANIC_TRY(devices());
  for (ibv_device* device : all) {
    const std::string called = ibv_get_device_name(device);
    if (!name.empty() && called != name) continue;
    RdmaDevice made;
    made.context_.reset(ibv_open_device(device));
    made.limits_ = std::make_unique<ibv_device_attr>();
    if (!made.context_ || ibv_query_device(made.context_.get(), made.limits_.get()) != 0) {
      seen += fmt::format("{}{} (it cannot be opened: {})", seen.empty() ? "" : ", ", called,
                          std::generic_category().message(errno));
      continue;
    }
    for (const RdmaPort& port : ports_of(made.context_.get(), *made.limits_)) {
      if (const std::string why = refusal(port, wanted, interfaces); !why.empty()) {
        seen += (seen.empty() ? "" : ", ") + why;
        continue;
      }
      made.port_ = port;
      made.domain_.reset(ibv_alloc_pd(made.context_.get()));
      if (!made.domain_) return fail_errno(errno, "make a protection domain of " + called);
      return made;
    }
  }
  return fail(
      Exit::Unsupported,
      fmt::format("find an RDMA port with the RoCEv2 address {}: there is {}", gid_text(wanted),
                  seen.empty() ? name.empty() ? "no RDMA device" : "no device " + name : "only " + seen),
      "rdma link show");
}

std::optional<std::string> RdmaDevice::trouble() const {
  pollfd waiting{context_->async_fd, POLLIN, 0};
  while (::poll(&waiting, 1, 0) > 0) {
    ibv_async_event event{};
    if (ibv_get_async_event(context_.get(), &event) != 0)
      return fmt::format("the device {} is gone", port_.device);
    ibv_ack_async_event(&event);
    if (event.event_type == IBV_EVENT_PORT_ERR && event.element.port_num != port_.port) continue;
    switch (event.event_type) {
      case IBV_EVENT_DEVICE_FATAL:
      case IBV_EVENT_QP_FATAL:
      case IBV_EVENT_QP_REQ_ERR:
      case IBV_EVENT_QP_ACCESS_ERR:
      case IBV_EVENT_CQ_ERR:
      case IBV_EVENT_PORT_ERR:
        return fmt::format("the device {} says: {}", port_.device, ibv_event_type_str(event.event_type));
      default:  // nothing that ends it
        break;
    }
  }
  return std::nullopt;
}

std::string RdmaDevice::text() const {
  return fmt::format("{} port {}, GID {} ({}), MTU {}", port_.device, port_.port, port_.gid_index,
                     gid_text(port_.gid), 128U << static_cast<unsigned>(port_.mtu));
}

}  // namespace agentnic::path
