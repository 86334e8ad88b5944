// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Where pins live: /sys/fs/bpf/agentnic/<netns inode>/<interface>/<name>.

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "base/unique_fd.hpp"

namespace agentnic::kern {

inline constexpr const char* kBpffs = "/sys/fs/bpf";
inline constexpr const char* kPinRoot = "/sys/fs/bpf/agentnic";

/// bpffs forbids dots in names: '.' and '%' become %2e and %25.
std::string escape_ifname(const std::string& name);
std::string unescape_ifname(const std::string& name);

/// The directory of one instance.
struct PinDir {
  std::uint64_t netns_inode = 0;
  std::string ifname;

  [[nodiscard]] std::string path() const;
  [[nodiscard]] std::string pin(const char* name) const { return path() + "/" + name; }
};

/// Pins of an instance beside its maps: the links of the ingress and egress programs, where there are links.
inline constexpr const char* kLinkPin = "link";
inline constexpr const char* kEgressPin = "egress";

/// ... and the programs that are run by hand, or that a queue of cpumap needs.
inline constexpr const char* kPreparePin = "prepare";
inline constexpr const char* kCommitPin = "commit";
inline constexpr const char* kArrivePin = "arrive";
inline constexpr const char* kOpenPin = "open";
inline constexpr const char* kClosePin = "close";
inline constexpr const char* kFailsafePin = "failsafe";
inline constexpr const char* kNotePin = "note";
inline constexpr const char* kEndPin = "end";

Result<UniqueFd> open_pin(const PinDir& dir, const char* name);

/// Mounts a bpffs at /sys/fs/bpf unless one is there; not in mounts that only this process sees.
Status ensure_bpffs();

/// Makes the root (mode 0700) and takes its lock, which is held until the descriptor closes: attach and
/// detach of two processes do not meet.
Result<UniqueFd> lock_pins();

/// Removes empty directories, the root among them. Only for who holds the lock.
void prune_pins();

/// Takes the lock and prunes: what an attach that was killed early has left.
Status clean_pins();

/// Makes the directory of one instance, mode 0700.
Status make_pin_dir(const PinDir& dir);

/// Says that nobody else is to take records of this instance, for as long as the descriptor is open: what two
/// take is missing in both of their logs. Fails when somebody has said so.
Result<UniqueFd> claim_ring(const PinDir& dir);
/// Whether somebody has.
bool has_recorder(const PinDir& dir);

/// Unpins everything in the directory and removes it. Removing what is not there succeeds.
Status remove_pin_dir(const PinDir& dir);

/// Every instance directory there is; none when no bpffs is mounted.
std::vector<PinDir> list_pin_dirs();

}  // namespace agentnic::kern
