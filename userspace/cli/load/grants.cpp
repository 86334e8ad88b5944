// SPDX-License-Identifier: Apache-2.0
#include "cli/load/grants.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <net/if.h>
#include <sys/stat.h>

#include <algorithm>
#include <functional>
#include <ranges>

#include "kern/interface.hpp"
#include "kern/queue_rules.hpp"

namespace agentnic::cli {
namespace {

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
                            std::vector<std::uint32_t> steered) {
  Grants made;
  made.dir_ = status.dir;
  made.ifname_ = status.ifname;
  made.ifindex_ = status.ifindex;
  made.steered_ = std::move(steered);
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

Result<std::vector<std::uint32_t>> Grants::candidates(const path::XskRequest& request) const {
  const kern::Interface interface = ANIC_TRY(kern::find_interface(ifname_));
  std::vector<std::uint32_t> all;
  const bool any = request.first_queue == path::kXskAnyQueue;
  const std::uint32_t first = any ? 0 : request.first_queue;
  const std::uint64_t end = any ? interface.rx_queues : std::uint64_t{first} + request.queues;
  if (end > interface.rx_queues)
    return fail(Exit::BadInput, fmt::format("queues {} to {} of {}: it has {}", first, end - 1, ifname_,
                                            interface.rx_queues));
  for (auto queue = first; queue < end; ++queue) all.push_back(queue);
  const auto aside = [&](std::uint32_t queue) { return is_aside(queue); };
  if (request.shape.bind == path::XskBind::ZeroCopy) std::erase_if(all, std::not_fn(aside));
  std::ranges::stable_partition(all, aside);
  if (all.size() >= request.queues) return all;
  if (request.shape.bind == path::XskBind::ZeroCopy)
    return fail(Exit::Unsupported,
                fmt::format("zero-copy on {} queues of {}: {} of those asked for are set aside for it",
                            request.queues, ifname_, all.size()),
                "agentnic-load serve IFACE --zero-copy-queues LIST, or ask for copy");
  return fail(Exit::BadInput,
              fmt::format("{} queues of {}: it has {}", request.queues, ifname_, interface.rx_queues));
}

Result<path::XskGrant> Grants::make(const path::XskRequest& request, uid_t uid) {
  ANIC_TRY(may_own(ANIC_TRY(services()), request.service, uid));
  path::XskBindOptions options{.ifname = ifname_,
                               .queues = ANIC_TRY(candidates(request)),
                               .count = request.queues,
                               .shape = request.shape};
  if (options.shape.bind == path::XskBind::Auto &&
      !std::ranges::all_of(options.queues | std::views::take(request.queues),
                           [&](std::uint32_t queue) { return is_aside(queue); }))
    options.shape.bind = path::XskBind::Copy;
  path::XskGrant grant = ANIC_TRY(path::bind_xsk(options));
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
