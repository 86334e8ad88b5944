// SPDX-License-Identifier: Apache-2.0
#include "cli/load/grants.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <net/if.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "kern/interface.hpp"
#include "kern/queue_rules.hpp"

namespace agentnic::cli {
namespace {

constexpr int kPatienceMs = 500;  // for a socket that was just closed; whoever asks meanwhile waits, too
constexpr const char* kServiceMaps[] = {"anic_state", "anic_policies", "anic_services", "anic_tenants"};

std::uint64_t inode_of(const std::string& path) {
  struct stat info{};
  return ::stat(path.c_str(), &info) == 0 ? info.st_ino : 0;
}

}  // namespace

Status may_own(const std::vector<kern::XskService>& services, const std::string& service, uid_t uid) {
  const std::string what = fmt::format("AF_XDP sockets for service {}: ", service);
  const auto wanted = std::ranges::find(services, service, &kern::XskService::name);
  if (wanted == services.end())
    return fail(Exit::BadInput, what + "the policy in force has no such service on path xsk",
                "agentnic-load serve IFACE --dry-run lists them");
  for (const kern::XskService& one : services) {
    if (one.owner == uid) continue;
    const std::string whose = one.owner == ANIC_NO_OWNER ? "nobody's" : fmt::format("user {}'s", one.owner);
    if (&one == &*wanted)
      return fail(Exit::Failed, fmt::format("{}it is {}, and not user {}'s", what, whose, uid),
                  "\"owner\" of the service in the policy");
    return fail(Exit::Failed,
                fmt::format("{}a queue brings the packets of service {} too, which is {}, and not user {}'s",
                            what, one.name, whose, uid),
                "one owner for all services on path xsk of an interface");
  }
  return {};
}

Result<Grants> Grants::open(const kern::NetNs& netns, const kern::InstanceStatus& status,
                            std::vector<std::uint32_t> steered, std::uint32_t frames_max) {
  Grants made;
  made.dir_ = status.dir;
  made.ifname_ = status.ifname;
  made.ifindex_ = status.ifindex;
  made.steered_ = std::move(steered);
  made.frames_max_ = frames_max;
  made.slots_ = ANIC_TRY(kern::open_xsk_slots(netns, status.ifname));
  made.maps_ = ANIC_TRY(kern::Maps::pinned_to_read(status.dir, kServiceMaps));
  made.pin_inode_ = inode_of(status.dir.path() + "/anic_xsks");
  made.pages_ = kern::open_owner_pages(made.slots_.pages.get());
  return made;
}

Result<std::vector<kern::XskService>> Grants::services() const { return kern::xsk_services_in_force(maps_); }

bool Grants::is_aside(std::uint32_t queue) const {
  return std::ranges::find(steered_, queue) != steered_.end() || kern::is_set_aside(dir_, queue);
}

/// The queues that were asked for.
Result<std::vector<std::uint32_t>> Grants::candidates(const path::XskRequest& request) const {
  const kern::Interface interface = ANIC_TRY(kern::find_interface(ifname_));
  const bool any = request.first_queue == path::kXskAnyQueue;
  const std::uint32_t first = any ? 0 : request.first_queue;
  const std::uint64_t end = any ? interface.rx_queues : std::uint64_t{first} + request.queues;
  if (end > interface.rx_queues || interface.rx_queues < request.queues)
    return fail(Exit::BadInput, fmt::format("{} queues of {}, from {} on: it has {}", request.queues, ifname_,
                                            first, interface.rx_queues));
  std::vector<std::uint32_t> all;
  for (auto queue = first; queue < end; ++queue) all.push_back(queue);
  return all;
}

/// Zero-copy on queues that are set aside for it, and on no others, whichever of them are free.
Result<path::XskGrant> Grants::bind(const path::XskRequest& request) const {
  path::XskBindOptions options{.ifname = ifname_,
                               .queues = ANIC_TRY(candidates(request)),
                               .count = request.queues,
                               .shape = request.shape,
                               .patience_ms = kPatienceMs};
  const std::vector<std::uint32_t> all = options.queues;
  if (request.shape.bind != path::XskBind::Copy) {
    std::erase_if(options.queues, [&](std::uint32_t queue) { return !is_aside(queue); });
    const bool enough = options.queues.size() >= request.queues;
    if (request.shape.bind == path::XskBind::ZeroCopy && !enough)
      return fail(Exit::Unsupported,
                  fmt::format("zero-copy on {} queues of {}: {} of those asked for are set aside for it",
                              request.queues, ifname_, options.queues.size()),
                  "agentnic-load serve IFACE --zero-copy-queues LIST, or ask for copy");
    if (enough) {
      auto made = path::bind_xsk(options);
      if (made || request.shape.bind == path::XskBind::ZeroCopy) return made;
    }
  }
  options.queues = all;
  options.shape.bind = path::XskBind::Copy;
  return path::bind_xsk(options);
}

Result<path::XskGrant> Grants::make(const path::XskRequest& request, uid_t uid) {
  if (auto gone = ended()) return fail(Exit::Failed, std::move(gone->what));
  if (::if_nametoindex(ifname_.c_str()) != ifindex_)
    return fail(Exit::Failed, fmt::format("{} is another interface now", ifname_), "start serve again");
  ANIC_TRY(may_own(ANIC_TRY(services()), request.service, uid));
  if (request.shape.frames > frames_max_)
    return fail(Exit::BadInput,
                fmt::format("{} frames: an owner may have {}", request.shape.frames, frames_max_),
                "agentnic-load serve --frames-max");
  path::XskGrant grant = ANIC_TRY(bind(request));
  for (path::XskQueueGrant& one : grant.queues) {
    one.page = ANIC_TRY(kern::enter_owner(slots_, one.queue, one.socket.get()));
    pages_[one.queue] = UniqueFd(::fcntl(one.page.get(), F_DUPFD_CLOEXEC, 0));
  }
  return grant;
}

std::map<std::uint32_t, anic_owner> Grants::pages() const {
  std::map<std::uint32_t, anic_owner> list;
  for (const auto& [queue, page] : pages_)
    if (const auto read = kern::read_owner_page(page.get())) list.emplace(queue, *read);
  return list;
}

std::optional<Error> Grants::ended() const {
  if (inode_of(dir_.path() + "/anic_xsks") != pin_inode_)
    return Error{
        .exit = Exit::Done, .what = fmt::format("agentnic was detached from {}", ifname_), .hint = {}};
  char name[IF_NAMESIZE] = {};
  if (::if_indextoname(ifindex_, name) == nullptr)
    return Error{.exit = Exit::Failed, .what = fmt::format("interface {} was removed", ifname_), .hint = {}};
  return std::nullopt;
}

}  // namespace agentnic::cli
