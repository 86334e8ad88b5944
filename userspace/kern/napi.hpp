// SPDX-License-Identifier: Apache-2.0
#pragma once

/// How the kernel polls the interface of an instance, set by the policy. The record of what was there before
/// is a pinned map, written before the first change: whatever stops in between, restore_napi_locked() undoes.

#include <optional>
#include <string>
#include <vector>

#include "abi/napi.h"
#include "abi/types.h"
#include "base/result.hpp"
#include "kern/bpffs.hpp"
#include "kern/interface.hpp"
#include "kern/napi_device.hpp"
#include "kern/netns.hpp"

namespace agentnic::kern {

/// Brings the NAPIs of an instance to what is stated; what was set before and is not so any more is undone
/// first, and NAPIs that came since are set too. Nothing to do is no error. On failure what was set by this
/// is undone, and what was set before is set again. The notes say what somebody else has changed since. For
/// who holds the lock of the pins.
Result<std::vector<std::string>> set_napi_locked(const NetNs& netns, const PinDir& dir,
                                                 const Interface& interface, anic_mode mode,
                                                 const policy::Napi& wanted);

/// Puts back what was there before, or what an interrupted call left; nothing to do is no error, and neither
/// is an interface or a NAPI that is gone. What somebody has changed since is left: the notes say what.
Result<std::vector<std::string>> restore_napi_locked(const PinDir& dir);

/// Whether there is a record, be it half done.
bool has_napi_record(const PinDir& dir);

/// What was set, all of it; nothing where that is not done.
Result<policy::Napi> napi_in_force(const PinDir& dir);

/// How it is now.
struct NapiState {
  policy::Napi wanted;           ///< napi_in_force()
  std::vector<NapiThere> napis;  ///< that are there now
  std::vector<std::string> notes;
};
Result<NapiState> read_napi(const PinDir& dir);

/// Where the record is kept.
class NapiStore {
 public:
  NapiStore() = default;
  NapiStore(const NapiStore&) = delete;
  NapiStore& operator=(const NapiStore&) = delete;
  virtual ~NapiStore() = default;

  virtual Status write(const anic_napi_record& record) = 0;
  virtual Status clear() = 0;
};

/// The steps of the above on any device. `record` is what is kept, or empty but for whose it is.
Result<std::vector<std::string>> apply_napi(NapiDevice& device, NapiStore& store, anic_napi_record& record,
                                            const policy::Napi& wanted, const std::string& ifname);
Result<std::vector<std::string>> undo_napi(NapiDevice& device, NapiStore& store,
                                           const anic_napi_record& record, const std::string& ifname);

}  // namespace agentnic::kern
