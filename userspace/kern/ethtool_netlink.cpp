// SPDX-License-Identifier: Apache-2.0
#include "kern/ethtool_netlink.hpp"

#include <fmt/format.h>
#include <linux/ethtool_netlink.h>
#include <linux/netlink.h>
#include <netlink/errno.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <memory>
#include <string_view>
#include <thread>

namespace agentnic::kern {
namespace {

using NetlinkSocket = std::unique_ptr<nl_sock, decltype(&nl_socket_free)>;
using NetlinkMessage = std::unique_ptr<nl_msg, decltype(&nlmsg_free)>;

constexpr const char* kNtuple = "rx-ntuple-filter";  // as the kernel calls the feature

// Newer than the headers of Linux 6.12: include/uapi/linux/ethtool_netlink_generated.h of 6.14, after
// ETHTOOL_A_RINGS_TX_PUSH_BUF_LEN_MAX, which is 16.
constexpr int kRingsHdsThresh = 17;
static_assert(ETHTOOL_A_RINGS_TX_PUSH_BUF_LEN_MAX == 16);

constexpr std::chrono::milliseconds kLetsGo(1'000);
constexpr std::chrono::milliseconds kLook(20);

// Every message begins with the same header.
static_assert(int{ETHTOOL_A_RINGS_HEADER} == int{ETHTOOL_A_FEATURES_HEADER});

/// What became of a request.
struct Outcome {
  int code = 0;       ///< negative: of libnl
  std::string words;  ///< the kernel's own, if it said why
};

/// A callback of C: keeps the words of an error, and lets its code be the result.
int keep_words(sockaddr_nl*, nlmsgerr* error, void* into) noexcept {
  const nlmsghdr* reply = reinterpret_cast<const nlmsghdr*>(error) - 1;
  if ((reply->nlmsg_flags & NLM_F_ACK_TLVS) == 0) return NL_STOP;
  // With NLM_F_CAPPED the request is not repeated before them.
  const std::size_t repeated =
      (reply->nlmsg_flags & NLM_F_CAPPED) != 0 ? 0 : error->msg.nlmsg_len - sizeof(nlmsghdr);
  const std::size_t before = sizeof(nlmsghdr) + sizeof(nlmsgerr) + NLMSG_ALIGN(repeated);
  if (before >= reply->nlmsg_len) return NL_STOP;
  auto* first = reinterpret_cast<nlattr*>(reinterpret_cast<std::byte*>(error) - sizeof(nlmsghdr) + before);
  nlattr* said = nla_find(first, static_cast<int>(reply->nlmsg_len - before), NLMSGERR_ATTR_MSG);
  if (said == nullptr || nla_len(said) <= 0) return NL_STOP;
  const std::string_view words(static_cast<const char*>(nla_data(said)),
                               static_cast<std::size_t>(nla_len(said)));
  *static_cast<std::string*>(into) = words.substr(0, words.find('\0'));
  return NL_STOP;
}

/// A message about an interface, to which `add` adds the rest; its answer goes to `read`.
template <typename Add>
Result<Outcome> ask(const std::string& ifname, std::uint8_t command, const std::string& what, const Add& add,
                    nl_recvmsg_msg_cb_t read, void* into) {
  const NetlinkSocket netlink(nl_socket_alloc(), nl_socket_free);
  NetlinkMessage message(nlmsg_alloc(), nlmsg_free);
  if (!netlink || !message) return fail_errno(ENOMEM, what);
  if (const int code = genl_connect(netlink.get()); code != 0)
    return fail(Exit::Failed, fmt::format("{}: {}", what, nl_geterror(code)));
  const int family = genl_ctrl_resolve(netlink.get(), ETHTOOL_GENL_NAME);
  if (family < 0) return fail(Exit::Unsupported, what + ": this kernel has no ethtool over netlink");
  genlmsg_put(message.get(), NL_AUTO_PORT, NL_AUTO_SEQ, family, 0, 0, command, ETHTOOL_GENL_VERSION);
  nlattr* header = nla_nest_start(message.get(), ETHTOOL_A_FEATURES_HEADER);
  if (header == nullptr || nla_put_string(message.get(), ETHTOOL_A_HEADER_DEV_NAME, ifname.c_str()) != 0)
    return fail_errno(ENOMEM, what);
  nla_nest_end(message.get(), header);
  if (!add(message.get())) return fail_errno(ENOMEM, what);
  if (read != nullptr) nl_socket_modify_cb(netlink.get(), NL_CB_VALID, NL_CB_CUSTOM, read, into);
  Outcome outcome;
  const int on = 1;  // without it, there are no words
  ::setsockopt(nl_socket_get_fd(netlink.get()), SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on));
  nl_socket_modify_err_cb(netlink.get(), NL_CB_CUSTOM, keep_words, &outcome.words);
  outcome.code = nl_send_sync(netlink.get(), message.release());  // which frees it
  return outcome;
}

Status check(const Outcome& outcome, Exit exit, const std::string& what) {
  if (outcome.code >= 0) return {};
  return fail(exit, fmt::format("{}: {}", what,
                                outcome.words.empty() ? nl_geterror(outcome.code) : outcome.words.c_str()));
}

/// Whether a bit set of an answer has this one. Without a mask it lists what is set, else all that it is
/// about, and says of each.
bool has_bit(nlattr* bit_set, std::string_view name) {
  std::array<nlattr*, ETHTOOL_A_BITSET_MAX + 1> parts{};
  if (bit_set == nullptr || nla_parse_nested(parts.data(), ETHTOOL_A_BITSET_MAX, bit_set, nullptr) != 0)
    return false;
  nlattr* bits = parts[ETHTOOL_A_BITSET_BITS];
  const bool lists_set = parts[ETHTOOL_A_BITSET_NOMASK] != nullptr;
  if (bits == nullptr) return false;
  int left = nla_len(bits);
  for (nlattr* bit = static_cast<nlattr*>(nla_data(bits)); nla_ok(bit, left); bit = nla_next(bit, &left)) {
    std::array<nlattr*, ETHTOOL_A_BITSET_BIT_MAX + 1> words{};
    if (nla_parse_nested(words.data(), ETHTOOL_A_BITSET_BIT_MAX, bit, nullptr) == 0 &&
        words[ETHTOOL_A_BITSET_BIT_NAME] != nullptr &&
        nla_get_string(words[ETHTOOL_A_BITSET_BIT_NAME]) == name)
      return lists_set || words[ETHTOOL_A_BITSET_BIT_VALUE] != nullptr;
  }
  return false;
}

/// A callback of C: reads the answer to ETHTOOL_MSG_FEATURES_GET into an Ntuple.
int read_features_answer(nl_msg* message, void* into) noexcept {
  std::array<nlattr*, ETHTOOL_A_FEATURES_MAX + 1> found{};
  if (genlmsg_parse(nlmsg_hdr(message), 0, found.data(), ETHTOOL_A_FEATURES_MAX, nullptr) != 0)
    return NL_SKIP;
  *static_cast<Ntuple*>(into) = {.on = has_bit(found[ETHTOOL_A_FEATURES_ACTIVE], kNtuple),
                                 .can_change = has_bit(found[ETHTOOL_A_FEATURES_HW], kNtuple) &&
                                               !has_bit(found[ETHTOOL_A_FEATURES_NOCHANGE], kNtuple)};
  return NL_OK;
}

/// A callback of C: reads the answer to ETHTOOL_MSG_RINGS_GET into a HeaderSplit.
int read_rings_answer(nl_msg* message, void* into) noexcept {
  std::array<nlattr*, kRingsHdsThresh + 1> found{};
  if (genlmsg_parse(nlmsg_hdr(message), 0, found.data(), kRingsHdsThresh, nullptr) != 0) return NL_SKIP;
  HeaderSplit& split = *static_cast<HeaderSplit*>(into);
  if (nlattr* mode = found[ETHTOOL_A_RINGS_TCP_DATA_SPLIT]) {
    const std::uint8_t value = nla_get_u8(mode);
    if (value == ETHTOOL_TCP_DATA_SPLIT_DISABLED) split.mode = SplitMode::Off;
    if (value == ETHTOOL_TCP_DATA_SPLIT_ENABLED) split.mode = SplitMode::On;
  }
  if (nlattr* threshold = found[kRingsHdsThresh]) split.threshold = nla_get_u32(threshold);
  return NL_OK;
}

std::uint8_t number_of(SplitMode mode) {
  switch (mode) {
    case SplitMode::On:
      return ETHTOOL_TCP_DATA_SPLIT_ENABLED;
    case SplitMode::Off:
      return ETHTOOL_TCP_DATA_SPLIT_DISABLED;
    case SplitMode::Unstated:
      break;
  }
  return ETHTOOL_TCP_DATA_SPLIT_UNKNOWN;
}

}  // namespace

Result<Ntuple> read_ntuple(const std::string& ifname) {
  const std::string what = fmt::format("ask for the features of {}", ifname);
  Ntuple ntuple;
  const Outcome outcome = ANIC_TRY(ask(
      ifname, ETHTOOL_MSG_FEATURES_GET, what, [](nl_msg*) { return true; }, read_features_answer, &ntuple));
  ANIC_TRY(check(outcome, Exit::Failed, what));
  return ntuple;
}

Status set_ntuple(const std::string& ifname, bool on) {
  const std::string what = fmt::format("turn ntuple of {} {}", ifname, on ? "on" : "off");
  const auto add = [&](nl_msg* message) {
    nlattr* wanted = nla_nest_start(message, ETHTOOL_A_FEATURES_WANTED);
    nlattr* bits = wanted != nullptr ? nla_nest_start(message, ETHTOOL_A_BITSET_BITS) : nullptr;
    nlattr* bit = bits != nullptr ? nla_nest_start(message, ETHTOOL_A_BITSET_BITS_BIT) : nullptr;
    if (bit == nullptr || nla_put_string(message, ETHTOOL_A_BITSET_BIT_NAME, kNtuple) != 0) return false;
    if (on && nla_put_flag(message, ETHTOOL_A_BITSET_BIT_VALUE) != 0) return false;
    nla_nest_end(message, bit);
    nla_nest_end(message, bits);
    nla_nest_end(message, wanted);
    return true;
  };
  return check(ANIC_TRY(ask(ifname, ETHTOOL_MSG_FEATURES_SET, what, add, nullptr, nullptr)), Exit::Failed,
               what);
}

Result<HeaderSplit> read_header_split(const std::string& ifname) {
  const std::string what = fmt::format("ask for the rings of {}", ifname);
  HeaderSplit split;
  const Outcome outcome = ANIC_TRY(
      ask(ifname, ETHTOOL_MSG_RINGS_GET, what, [](nl_msg*) { return true; }, read_rings_answer, &split));
  if (outcome.code != -NLE_OPNOTSUPP) ANIC_TRY(check(outcome, Exit::Failed, what));
  return split;
}

Status set_header_split(const std::string& ifname, SplitMode mode, std::optional<std::uint32_t> threshold) {
  const std::string what = fmt::format("set header/data split of {}", ifname);
  const auto add = [&](nl_msg* message) {
    return nla_put_u8(message, ETHTOOL_A_RINGS_TCP_DATA_SPLIT, number_of(mode)) == 0 &&
           (!threshold || nla_put_u32(message, kRingsHdsThresh, *threshold) == 0);
  };
  // While somebody receives with zero-copy it stays, and a ring that was closed lets go only after a while.
  const bool may_be_held = mode != SplitMode::On || threshold.value_or(0) != 0;
  const auto until = std::chrono::steady_clock::now() + kLetsGo;
  for (;;) {
    const Outcome outcome = ANIC_TRY(ask(ifname, ETHTOOL_MSG_RINGS_SET, what, add, nullptr, nullptr));
    if (!may_be_held || outcome.code != -NLE_INVAL || std::chrono::steady_clock::now() >= until)
      return check(outcome, Exit::Unsupported, what);
    std::this_thread::sleep_for(kLook);
  }
}

}  // namespace agentnic::kern
