// SPDX-License-Identifier: Apache-2.0
#include "kern/session.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <session.skel.h>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include "kern/libbpf_log.hpp"
#include "kern/order.hpp"

namespace agentnic::kern {
namespace {

/// Those of one session; all others are the instance's.
bool is_of_session(const bpf_map* map) {
  return bpf_map__is_internal(map) || std::string_view(bpf_map__name(map)).starts_with("session_");
}

/// Puts the pinned map in the place of the object's.
Status use_pinned(bpf_map* map, const Maps& maps) {
  const char* name = bpf_map__name(map);
  const int there_fd = maps.fd(name);
  bpf_map_info there{};
  std::uint32_t size = sizeof(there);
  if (bpf_map_get_info_by_fd(there_fd, &there, &size) != 0)
    return fail(Exit::Failed, fmt::format("open a session: map {} is not pinned", name));
  // Their number of entries may be of this machine's CPUs.
  if (there.type != bpf_map__type(map) || there.key_size != bpf_map__key_size(map) ||
      there.value_size != bpf_map__value_size(map)) {
    return fail(Exit::Unsupported,
                fmt::format("open a session: map {} has another shape than this build's", name),
                "detach, and attach again");
  }
  if (const int code = bpf_map__reuse_fd(map, there_fd); code != 0)
    return fail_errno(code, fmt::format("use the pinned map {}", name));
  return {};
}

std::size_t page_bytes() {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  return (sizeof(anic_page) + page - 1) / page * page;
}

}  // namespace

void Session::Destroy::operator()(session_bpf* skeleton) const noexcept { session_bpf::destroy(skeleton); }
void Session::Destroy::operator()(user_ring_buffer* ring) const noexcept { user_ring_buffer__free(ring); }
void Session::Destroy::operator()(const anic_page* page) const noexcept {
  ::munmap(const_cast<anic_page*>(page), page_bytes());
}

Result<Session> Session::open(const PinDir& dir, const Maps& maps, const SessionRequest& request) {
  ANIC_TRY(check_reason(request.reason));
  Session session;
  session.close_program_ = ANIC_TRY(open_close_program(dir));
  session.slot_ = ANIC_TRY(open_session(dir, request));
  anic_session row{};
  ANIC_TRY(maps.read("anic_sessions", session.slot_, row));
  if (row.id == 0)
    return fail(Exit::Failed, "open a session of " + dir.ifname + ": it was ended before it began");
  session.id_ = row.id;  // from now on the destructor closes it
  ANIC_TRY(session.load(maps));
  return session;
}

Status Session::load(const Maps& maps) {
  skeleton_.reset(session_bpf::open());
  if (!skeleton_) return fail_errno(errno, "open the session's BPF object");
  skeleton_->rodata->anic_session_slot = slot_;
  skeleton_->rodata->anic_session_id = id_;
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, skeleton_->obj) {
    if (!is_of_session(map)) ANIC_TRY(use_pinned(map, maps));
  }
  if (const int code = session_bpf::load(skeleton_.get()); code != 0)
    return fail_errno(code, "load the session's BPF object", take_libbpf_warning());
  // Whoever gets the descriptor can read answers, not write them.
  if (bpf_map_freeze(page_fd()) != 0) return fail_errno(errno, "freeze map session_page");
  ANIC_TRY(map_page());
  ring_.reset(user_ring_buffer__new(ring_fd(), nullptr));
  if (!ring_) return fail_errno(errno, "map the session's ring");
  return {};
}

Status Session::map_page() {
  void* at = ::mmap(nullptr, page_bytes(), PROT_READ, MAP_SHARED, page_fd(), 0);
  if (at == MAP_FAILED) return fail_errno(errno, "map the session's page");
  page_.reset(static_cast<const anic_page*>(at));
  return {};
}

Session::Session(Session&& other) noexcept
    : id_(std::exchange(other.id_, 0)),
      slot_(other.slot_),
      close_program_(std::move(other.close_program_)),
      skeleton_(std::move(other.skeleton_)),
      ring_(std::move(other.ring_)),
      page_(std::move(other.page_)) {}

// What cannot be closed ends by itself, as soon as its heartbeat is missed.
Session::~Session() { static_cast<void>(close().has_value()); }

Status Session::propose(const anic_proposal& proposal) const {
  void* sample = user_ring_buffer__reserve(ring_.get(), sizeof(proposal));
  if (sample == nullptr)
    return fail_errno(errno, fmt::format("put a proposal in the ring of session {}", id_), "drain it first");
  std::memcpy(sample, &proposal, sizeof(proposal));
  user_ring_buffer__submit(ring_.get(), sample);
  return {};
}

Result<std::optional<int>> Session::drain(bool observe) const {
  constexpr const char* kWhat = "drain the session";
  const int code = ANIC_TRY(run_drain(drain_fd(), observe, kWhat));
  if (code == -ESTALE) return std::nullopt;
  if (code < 0) return fail_errno(code, kWhat);
  return code;
}

std::optional<anic_answer> Session::answer(std::uint64_t cookie) const {
  // Only a drain makes the kernel write to the page. The last answer first: it is mostly what is asked for.
  for (std::uint64_t i = 1; i <= ANIC_DRAIN_MAX; ++i) {
    const anic_answer& answer = page_->answers[(page_->answered - i) % ANIC_DRAIN_MAX];
    if (answer.cookie == cookie) return answer;
  }
  return std::nullopt;
}

Result<std::optional<anic_session>> Session::look(const Maps& maps) const {
  anic_session row{};
  ANIC_TRY(maps.read("anic_sessions", slot_, row));
  if (row.id != id_) return std::nullopt;
  return row;
}

Result<bool> Session::close() {
  const std::uint64_t id = std::exchange(id_, 0);
  if (id == 0) return false;
  return close_session(close_program_.get(), id);
}

int Session::ring_fd() const noexcept { return bpf_map__fd(skeleton_->maps.session_ring); }
int Session::page_fd() const noexcept { return bpf_map__fd(skeleton_->maps.session_page); }
int Session::drain_fd() const noexcept { return bpf_program__fd(skeleton_->progs.anic_drain); }

}  // namespace agentnic::kern
