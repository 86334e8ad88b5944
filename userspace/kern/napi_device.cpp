// SPDX-License-Identifier: Apache-2.0
#include "kern/napi_device.hpp"

#include <fmt/format.h>
#include <linux/genetlink.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <set>

namespace agentnic::kern {
namespace {

using NetlinkSocket = std::unique_ptr<nl_sock, decltype(&nl_socket_free)>;
using NetlinkMessage = std::unique_ptr<nl_msg, decltype(&nlmsg_free)>;

// Of include/uapi/linux/netdev.h, which headers before Linux 6.3 lack whole: enum netdev_cmd and the
// attributes of a NAPI, both as Documentation/netlink/specs/netdev.yaml numbers them.
constexpr const char* kFamily = "netdev";
constexpr std::uint8_t kFamilyVersion = 1;
constexpr std::uint8_t kNapiGet = 11;
constexpr std::uint8_t kNapiSet = 14;
constexpr int kIfindex = 1;
constexpr int kId = 2;
constexpr int kAttributesMax = 8;

struct Attribute {
  int number;
  bool is_wide;       ///< of 64 bits when it is written; it is read as long as it comes
  const char* since;  ///< whose napi-set has it
};
constexpr std::array<Attribute, ANIC_NAPI__MAX> kAttributes = {{{0, false, ""},
                                                                {5, false, "Linux 6.13"},
                                                                {6, true, "Linux 6.13"},
                                                                {7, true, "Linux 6.13"},
                                                                {8, false, "Linux 6.17"}}};

/// One message to a family and what is answered.
class Question final {
 public:
  /// What goes wrong here or while it is filled, ask() says.
  Question(const char* family, std::uint8_t command, int flags)
      : socket_(nl_socket_alloc(), nl_socket_free), message_(nlmsg_alloc(), nlmsg_free) {
    if (!socket_ || !message_) return;
    code_ = genl_connect(socket_.get());
    if (code_ != 0) return;
    code_ = genl_ctrl_resolve(socket_.get(), family);
    if (code_ < 0) return;
    const void* header =
        genlmsg_put(message_.get(), NL_AUTO_PORT, NL_AUTO_SEQ, code_, 0, flags, command, kFamilyVersion);
    code_ = header == nullptr ? -NLE_NOMEM : 0;
  }

  void put_u32(int attribute, std::uint32_t value) { note(nla_put_u32(message_.get(), attribute, value)); }
  void put_u64(int attribute, std::uint64_t value) { note(nla_put_u64(message_.get(), attribute, value)); }
  void put_u16(int attribute, std::uint16_t value) { note(nla_put_u16(message_.get(), attribute, value)); }

  /// A code of libnl. `read` is called for each message of the answer.
  int ask(nl_recvmsg_msg_cb_t read, void* into) {
    if (code_ < 0) return code_;
    if (read != nullptr) nl_socket_modify_cb(socket_.get(), NL_CB_VALID, NL_CB_CUSTOM, read, into);
    return nl_send_sync(socket_.get(), message_.release());  // which frees it
  }

 private:
  void note(int code) {
    if (code_ == 0) code_ = code;
  }

  NetlinkSocket socket_;
  NetlinkMessage message_;
  int code_ = -NLE_NOMEM;
};

/// A number of 32 or 64 bits, which some attributes have by their value.
std::optional<std::uint64_t> number_in(const nlattr* attribute) {
  if (attribute == nullptr) return std::nullopt;
  if (nla_len(attribute) >= static_cast<int>(sizeof(std::uint64_t))) return nla_get_u64(attribute);
  if (nla_len(attribute) >= static_cast<int>(sizeof(std::uint32_t))) return nla_get_u32(attribute);
  return std::nullopt;
}

/// A callback of C: reads a message of the answer to napi-get into a std::vector<NapiThere>.
int read_napi_answer(nl_msg* message, void* into) noexcept {
  std::array<nlattr*, kAttributesMax + 1> found{};
  if (genlmsg_parse(nlmsg_hdr(message), 0, found.data(), kAttributesMax, nullptr) != 0) return NL_SKIP;
  const auto id = number_in(found[kId]);
  if (!id) return NL_SKIP;
  NapiThere there{.id = static_cast<std::uint32_t>(*id), .settings = {}};
  for (const anic_napi_setting setting : policy::kNapiSettings)
    there.settings[setting] = number_in(found.at(static_cast<std::size_t>(kAttributes[setting].number)));
  static_cast<std::vector<NapiThere>*>(into)->push_back(there);
  return NL_OK;
}

/// A callback of C: reads a message of the policy of an operation, the attributes that it takes, into a
/// std::set<int>. It has no attributes within attributes, whose policy would be another.
int read_policy_answer(nl_msg* message, void* into) noexcept {
  std::array<nlattr*, CTRL_ATTR_MAX + 1> found{};
  if (genlmsg_parse(nlmsg_hdr(message), 0, found.data(), CTRL_ATTR_MAX, nullptr) != 0) return NL_SKIP;
  if (found[CTRL_ATTR_POLICY] == nullptr) return NL_SKIP;
  int policies_left = nla_len(found[CTRL_ATTR_POLICY]);
  auto* policy = static_cast<nlattr*>(nla_data(found[CTRL_ATTR_POLICY]));
  for (; nla_ok(policy, policies_left) != 0; policy = nla_next(policy, &policies_left)) {
    int left = nla_len(policy);
    auto* attribute = static_cast<nlattr*>(nla_data(policy));
    for (; nla_ok(attribute, left) != 0; attribute = nla_next(attribute, &left))
      static_cast<std::set<int>*>(into)->insert(nla_type(attribute));
  }
  return NL_OK;
}

/// The attributes that napi-set takes here; none: there is no napi-set.
Result<std::set<int>> settable(const std::string& what) {
  std::set<int> attributes;
  const NetlinkSocket socket(nl_socket_alloc(), nl_socket_free);
  if (!socket || genl_connect(socket.get()) != 0) return fail_errno(ENOMEM, what + ": netlink");
  const int family = genl_ctrl_resolve(socket.get(), kFamily);
  if (family < 0) return attributes;
  Question question("nlctrl", CTRL_CMD_GETPOLICY, NLM_F_DUMP);
  question.put_u16(CTRL_ATTR_FAMILY_ID, static_cast<std::uint16_t>(family));
  question.put_u32(CTRL_ATTR_OP, kNapiSet);
  const int code = question.ask(read_policy_answer, &attributes);
  if (code == -NLE_OBJ_NOTFOUND) return attributes;
  if (code < 0) {
    return fail(Exit::Failed,
                fmt::format("{}: ask the kernel what it lets be set: {}", what, nl_geterror(code)));
  }
  return attributes;
}

class NetlinkNapiDevice final : public NapiDevice {
 public:
  explicit NetlinkNapiDevice(std::uint32_t ifindex) : ifindex_(ifindex) {}

  Result<std::vector<NapiThere>> read() override {
    std::vector<NapiThere> napis;
    Question question(kFamily, kNapiGet, NLM_F_DUMP);
    question.put_u32(kIfindex, ifindex_);
    const int code = question.ask(read_napi_answer, &napis);
    if (code == -NLE_NODEV || code == -NLE_OBJ_NOTFOUND) return std::vector<NapiThere>();
    if (code < 0) {
      return fail(Exit::Failed,
                  fmt::format("read the NAPIs of interface {}: {}", ifindex_, nl_geterror(code)));
    }
    std::ranges::sort(napis, {}, &NapiThere::id);
    return napis;
  }

  Status set(std::uint32_t id, const policy::Napi& settings) override {
    Question question(kFamily, kNapiSet, 0);
    question.put_u32(kId, id);
    for (const anic_napi_setting setting : policy::kNapiSettings) {
      const Attribute& attribute = kAttributes[setting];
      if (!settings[setting]) continue;
      if (attribute.is_wide) {
        question.put_u64(attribute.number, *settings[setting]);
      } else {
        question.put_u32(attribute.number, static_cast<std::uint32_t>(*settings[setting]));
      }
    }
    const int code = question.ask(nullptr, nullptr);
    if (code >= 0) return {};
    return fail(code == -NLE_OBJ_NOTFOUND ? Exit::BadInput : Exit::Failed,
                fmt::format("set {} of NAPI {}: {}", policy::napi_text(settings), id, nl_geterror(code)));
  }

 private:
  std::uint32_t ifindex_;
};

}  // namespace

std::unique_ptr<NapiDevice> open_napi_device(std::uint32_t ifindex) {
  return std::make_unique<NetlinkNapiDevice>(ifindex);
}

Status need_napi(const policy::Napi& wanted, const std::string& what) {
  if (policy::is_empty(wanted)) return {};
  const std::set<int> attributes = ANIC_TRY(settable(what));
  for (const anic_napi_setting setting : policy::kNapiSettings) {
    if (!wanted[setting] || attributes.contains(kAttributes[setting].number)) continue;
    return fail(
        Exit::Unsupported,
        fmt::format("{}: this kernel does not let {} of a NAPI be set", what, policy::napi_name(setting)),
        fmt::format("{} does; or leave it out of napi in the policy", kAttributes[setting].since));
  }
  return {};
}

}  // namespace agentnic::kern
