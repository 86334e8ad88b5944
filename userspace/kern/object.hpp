// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The instance object: the programs and maps of one interface, loaded into the kernel.

#include <cstdint>
#include <memory>

#include "abi/meta.h"
#include "base/result.hpp"
#include "kern/bpffs.hpp"
#include "policy/compile.hpp"

struct bpf_object;
struct instance_bpf;

namespace agentnic::kern {

/// Owns the loaded skeleton. Maps and programs outlive it only where they are pinned or attached.
/// Descriptors are borrowed.
class Object final {
 public:
  static Result<Object> load();

  [[nodiscard]] int xdp_fd() const noexcept;
  [[nodiscard]] int tc_fd() const noexcept;
  [[nodiscard]] int counters_fd() const noexcept;
  [[nodiscard]] int xsks_fd() const noexcept;

  /// Writes the policy's entries into maps that are still empty.
  [[nodiscard]] Status fill(const policy::Tables& tables) const;
  [[nodiscard]] Status write_meta(const anic_meta& meta) const;

  /// Pins every map under its name in a directory that is empty.
  [[nodiscard]] Status pin_maps(const PinDir& dir) const;

  /// A second, not yet loaded copy of the object that shares these maps and in which only anic_xdp will
  /// be loaded: what libxdp's dispatcher needs, since it changes the program's type before the load.
  [[nodiscard]] Result<std::unique_ptr<bpf_object, void (*)(bpf_object*)>> open_for_dispatcher() const;

  /// Bytes of kernel memory that the maps take with `cpus` possible CPUs.
  static std::uint64_t memory_bytes(unsigned cpus);

 private:
  struct Destroy {
    void operator()(instance_bpf* skeleton) const noexcept;
  };
  std::unique_ptr<instance_bpf, Destroy> skeleton_;
};

/// Possible CPUs, which is how many copies a per-CPU map has.
unsigned possible_cpus();

}  // namespace agentnic::kern
