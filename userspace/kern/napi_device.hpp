// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The NAPIs of an interface as the kernel lets them be read and set: by its generic netlink family netdev.
/// Reading takes no privileges.

#include <cstdint>
#include <memory>
#include <vector>

#include "base/result.hpp"
#include "policy/napi.hpp"

namespace agentnic::kern {

struct NapiThere {
  std::uint32_t id = 0;
  policy::Napi settings;  ///< nothing: the kernel does not say
};

/// One step each. Tests have one that fails and dies where they want.
class NapiDevice {
 public:
  NapiDevice() = default;
  NapiDevice(const NapiDevice&) = delete;
  NapiDevice& operator=(const NapiDevice&) = delete;
  virtual ~NapiDevice() = default;

  /// None: it has none, is down, or is gone. By id.
  virtual Result<std::vector<NapiThere>> read() = 0;
  /// What is stated. Bad input: it is not there any more.
  virtual Status set(std::uint32_t id, const policy::Napi& settings) = 0;
};

/// The real one, of an interface of the calling thread's namespace, in which it must be used.
std::unique_ptr<NapiDevice> open_napi_device(std::uint32_t ifindex);

/// Unsupported unless the kernel has all settings that are stated; asks it what it takes. `what` begins the
/// error.
Status need_napi(const policy::Napi& wanted, const std::string& what);

}  // namespace agentnic::kern
