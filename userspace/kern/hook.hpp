// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Where on an interface the programs sit: a bpf_link of their own, libxdp's dispatcher, or tcx.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "abi/types.h"
#include "base/result.hpp"
#include "base/unique_fd.hpp"
#include "kern/interface.hpp"
#include "kern/object.hpp"
#include "policy/model.hpp"

namespace agentnic::kern {

/// --mode of the command line.
enum class ModeRequest { Auto, Native, Skb, Tc };

/// Which modes will be tried, in this order, and why.
struct ModePlan {
  std::vector<anic_mode> modes;
  std::string why;
};
ModePlan plan_modes(ModeRequest request, const policy::Policy& policy);

/// Whether this kernel loads the extension programs that libxdp's dispatcher is made of.
bool dispatcher_works();

/// What was obtained. Dropping it before it is pinned detaches a link; a dispatcher's program and a filter of
/// clsact stay.
struct Attachment {
  anic_hook hook = ANIC_HOOK_NONE;
  anic_mode mode = ANIC_MODE_NONE;
  UniqueFd link;                   ///< none under the dispatcher, none for clsact
  std::vector<std::string> notes;  ///< why it is not the first choice
};

/// Refuses, with its name, when a program that is not ours and not libxdp's dispatcher is in the way.
/// Call inside the interface's network namespace, as all functions below.
Status refuse_foreign_xdp(const Interface& interface);

Result<Attachment> attach(const Object& object, const Interface& interface, const ModePlan& plan);

/// Whether this kernel takes a tcx link, found out by trying one on the interface.
Result<bool> has_tcx(const Object& object, const Interface& interface);

/// The egress program, in every mode.
Result<Attachment> attach_egress(const Object& object, const Interface& interface);

/// One XDP mode as a single program under a link, where attach() might take the dispatcher.
Result<Attachment> attach_alone(const Object& object, const Interface& interface, anic_mode mode);

/// Whether this program sits on this interface of the calling thread's namespace.
bool is_on_interface(std::uint32_t ifindex, anic_direction direction, anic_hook hook, std::uint32_t prog_id);

/// Takes the program that uses the map with this id out of the dispatcher of an interface; false: no such
/// program.
Result<bool> leave_dispatcher(std::uint32_t ifindex, std::uint32_t map_id);

/// Puts the object's program into the dispatcher and takes the one that uses the map with this id out. Each
/// of the two steps is atomic; between them both run, and what passes is counted by both.
Status replace_in_dispatcher(const Object& object, const Interface& interface, std::uint32_t map_id,
                             anic_mode mode);

/// Removes what libxdp left in bpffs of dispatchers of an interface that held the program with this map and
/// are attached no more: a forced removal, a removed interface and a kill leave them. `attached_id`: the XDP
/// program that is on the interface now, or 0.
void sweep_dispatchers(std::uint32_t ifindex, std::uint32_t map_id, std::uint32_t attached_id);

/// The program that uses the map with this id and runs under the dispatcher of an interface, if there is one.
struct DispatcherMember {
  std::uint32_t prog_id = 0;
  anic_mode mode = ANIC_MODE_NONE;
};
std::optional<DispatcherMember> find_in_dispatcher(std::uint32_t ifindex, std::uint32_t map_id);

/// The words for people and JSON; "?" for a value that has none.
std::string hook_name(std::uint8_t hook);
std::string mode_name(std::uint8_t mode);

}  // namespace agentnic::kern
