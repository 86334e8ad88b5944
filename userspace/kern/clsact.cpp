// SPDX-License-Identifier: Apache-2.0
#include "kern/clsact.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <functional>
#include <iterator>
#include <memory>
#include <string_view>

#include "base/unique_fd.hpp"
#include "kern/libbpf_log.hpp"
#include "kern/maps.hpp"

namespace agentnic::kern {
namespace {

using NetlinkSocket = std::unique_ptr<nl_sock, decltype(&nl_socket_free)>;
using OnMessage = std::function<void(nlmsghdr*)>;

/// A callback of C.
int call_with_message(nl_msg* message, void* on_message) noexcept {
  (*static_cast<const OnMessage*>(on_message))(nlmsg_hdr(message));
  return NL_OK;
}

/// Every answer to a dump of qdiscs or filters of one interface.
Status dump(int type, std::uint32_t ifindex, std::uint32_t parent, const OnMessage& on_message) {
  const std::string what = fmt::format("ask for the traffic control of interface index {}", ifindex);
  const NetlinkSocket netlink(nl_socket_alloc(), nl_socket_free);
  if (!netlink) return fail_errno(ENOMEM, what);
  int code = nl_connect(netlink.get(), NETLINK_ROUTE);
  tcmsg request{};
  request.tcm_family = AF_UNSPEC;
  request.tcm_ifindex = static_cast<int>(ifindex);
  request.tcm_parent = parent;
  if (code >= 0) code = nl_send_simple(netlink.get(), type, NLM_F_DUMP, &request, sizeof(request));
  if (code >= 0) {
    nl_socket_modify_cb(netlink.get(), NL_CB_VALID, NL_CB_CUSTOM, call_with_message,
                        const_cast<OnMessage*>(&on_message));
    code = nl_recvmsgs_default(netlink.get());
  }
  if (code < 0) return fail(Exit::Failed, fmt::format("{}: {}", what, nl_geterror(code)));
  return {};
}

/// The attributes of a traffic control message.
using Attributes = std::array<nlattr*, TCA_MAX + 1>;
bool parse_attributes(nlmsghdr* header, Attributes& found) {
  return nlmsg_parse(header, sizeof(tcmsg), found.data(), TCA_MAX, nullptr) == 0;
}

bool is_kind(const Attributes& attributes, std::string_view kind) {
  return attributes[TCA_KIND] != nullptr && nla_get_string(attributes[TCA_KIND]) == kind;
}

/// The id of a BPF filter's program; 0 for another kind of filter.
std::uint32_t prog_id_of(const Attributes& attributes) {
  if (!is_kind(attributes, "bpf") || attributes[TCA_OPTIONS] == nullptr) return 0;
  std::array<nlattr*, TCA_BPF_MAX + 1> options{};
  if (nla_parse_nested(options.data(), TCA_BPF_MAX, attributes[TCA_OPTIONS], nullptr) != 0) return 0;
  return options[TCA_BPF_ID] != nullptr ? nla_get_u32(options[TCA_BPF_ID]) : 0;
}

bpf_tc_attach_point point(anic_direction direction) {
  return direction == ANIC_DIRECTION_IN ? BPF_TC_INGRESS : BPF_TC_EGRESS;
}

}  // namespace

Result<bool> has_clsact(std::uint32_t ifindex) {
  bool found = false;
  ANIC_TRY(dump(RTM_GETQDISC, ifindex, 0, [&](nlmsghdr* header) {
    Attributes attributes{};
    const auto* message = static_cast<const tcmsg*>(nlmsg_data(header));
    // A dump of qdiscs is of all interfaces.
    if (message->tcm_ifindex == static_cast<int>(ifindex) && parse_attributes(header, attributes))
      found = found || is_kind(attributes, "clsact");
  }));
  return found;
}

Result<RootQdisc> root_qdisc(std::uint32_t ifindex) {
  RootQdisc root;
  bool has_children = false;
  bool all_are_fq = true;
  ANIC_TRY(dump(RTM_GETQDISC, ifindex, 0, [&](nlmsghdr* header) {
    Attributes attributes{};
    const auto* message = static_cast<const tcmsg*>(nlmsg_data(header));
    if (message->tcm_ifindex != static_cast<int>(ifindex) || !parse_attributes(header, attributes) ||
        attributes[TCA_KIND] == nullptr || is_kind(attributes, "clsact") || is_kind(attributes, "ingress"))
      return;
    if (message->tcm_parent == TC_H_ROOT) {
      root.kind = nla_get_string(attributes[TCA_KIND]);
    } else {
      has_children = true;
      all_are_fq = all_are_fq && is_kind(attributes, "fq");
    }
  }));
  root.keeps_times = root.kind == "fq" || (root.kind == "mq" && has_children && all_are_fq);
  return root;
}

Result<std::vector<TcFilter>> clsact_filters(std::uint32_t ifindex) {
  std::vector<TcFilter> filters;
  if (!ANIC_TRY(has_clsact(ifindex))) return filters;
  for (const auto direction : {ANIC_DIRECTION_IN, ANIC_DIRECTION_OUT}) {
    const std::uint32_t parent =
        TC_H_MAKE(TC_H_CLSACT, direction == ANIC_DIRECTION_IN ? TC_H_MIN_INGRESS : TC_H_MIN_EGRESS);
    ANIC_TRY(dump(RTM_GETTFILTER, ifindex, parent, [&](nlmsghdr* header) {
      Attributes attributes{};
      const auto* message = static_cast<const tcmsg*>(nlmsg_data(header));
      // Each filter comes after its head, which has no handle.
      if (message->tcm_handle == 0 || !parse_attributes(header, attributes)) return;
      filters.push_back({.direction = direction,
                         .handle = message->tcm_handle,
                         .priority = message->tcm_info >> 16U,
                         .prog_id = prog_id_of(attributes)});
    }));
  }
  return filters;
}

Result<std::vector<TcFilter>> clsact_filters_of(std::uint32_t ifindex, std::uint32_t map_id) {
  std::vector<TcFilter> ours = ANIC_TRY(clsact_filters(ifindex));
  std::erase_if(ours, [&](const TcFilter& filter) {
    const UniqueFd prog(filter.prog_id != 0 ? bpf_prog_get_fd_by_id(filter.prog_id) : -1);
    return !prog || !uses_map(prog.get(), map_id);
  });
  return ours;
}

Status clsact_attach(const Interface& interface, anic_direction direction, int prog_fd) {
  const std::string what =
      fmt::format("attach {} to {} (clsact)", direction == ANIC_DIRECTION_IN ? "anic_tc_in" : "anic_tc_out",
                  interface.name);
  LIBBPF_OPTS(bpf_tc_hook, hook);
  hook.ifindex = static_cast<int>(interface.ifindex);
  hook.attach_point = point(direction);
  int code = bpf_tc_hook_create(&hook);
  if (code != 0 && code != -EEXIST) return fail_errno(code, what, take_libbpf_warning());
  // An ingress qdisc has the same handle, and takes a filter for egress as one of its own.
  if (code == -EEXIST && !ANIC_TRY(has_clsact(interface.ifindex))) {
    take_libbpf_warning();
    return fail(
        Exit::Failed, what + ": an ingress qdisc is there, which has no egress",
        fmt::format("a clsact qdisc takes the same filters: tc qdisc del dev {0} ingress; tc qdisc add dev "
                    "{0} clsact",
                    interface.name));
  }
  LIBBPF_OPTS(bpf_tc_opts, options);
  options.prog_fd = prog_fd;
  code = bpf_tc_attach(&hook, &options);
  take_libbpf_warning();  // "Exclusivity flag on": the qdisc was there
  if (code != 0) return fail_errno(code, what);
  return {};
}

Status clsact_replace(std::uint32_t ifindex, const TcFilter& filter, int prog_fd) {
  LIBBPF_OPTS(bpf_tc_hook, hook);
  hook.ifindex = static_cast<int>(ifindex);
  hook.attach_point = point(filter.direction);
  LIBBPF_OPTS(bpf_tc_opts, options);
  options.prog_fd = prog_fd;
  options.handle = filter.handle;
  options.priority = filter.priority;
  options.flags = BPF_TC_F_REPLACE;
  if (const int code = bpf_tc_attach(&hook, &options); code != 0)
    return fail_errno(code, fmt::format("replace the filter of interface index {}", ifindex),
                      take_libbpf_warning());
  return {};
}

Status clsact_detach(std::uint32_t ifindex, const TcFilter& filter) {
  LIBBPF_OPTS(bpf_tc_hook, hook);
  hook.ifindex = static_cast<int>(ifindex);
  hook.attach_point = point(filter.direction);
  LIBBPF_OPTS(bpf_tc_opts, options);
  options.handle = filter.handle;
  options.priority = filter.priority;
  if (const int code = bpf_tc_detach(&hook, &options); code != 0 && code != -ENOENT)
    return fail_errno(code, fmt::format("remove the filter of interface index {}", ifindex),
                      take_libbpf_warning());
  return {};
}

Status clsact_remove_if_empty(std::uint32_t ifindex) {
  if (!ANIC_TRY(has_clsact(ifindex)) || !ANIC_TRY(clsact_filters(ifindex)).empty()) return {};
  LIBBPF_OPTS(bpf_tc_hook, hook);
  hook.ifindex = static_cast<int>(ifindex);
  hook.attach_point = static_cast<bpf_tc_attach_point>(BPF_TC_INGRESS | BPF_TC_EGRESS);  // the whole qdisc
  if (const int code = bpf_tc_hook_destroy(&hook); code != 0)
    return fail_errno(code, fmt::format("remove the clsact qdisc of interface index {}", ifindex),
                      take_libbpf_warning());
  return {};
}

}  // namespace agentnic::kern
