// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The instance object: the programs and maps of one interface, loaded into the kernel.

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "kern/bpffs.hpp"
#include "kern/chain_key.hpp"
#include "kern/generation.hpp"
#include "kern/maps.hpp"

struct bpf_object;
struct instance_bpf;

namespace agentnic::kern {

/// Owns the loaded skeleton. Maps and programs outlive it only where they are pinned or attached.
/// Descriptors are borrowed.
class Object final {
 public:
  /// With maps of its own, empty, and the keys of its flow cache drawn, and of the audit's chain unless there
  /// is one. `cpus`: for so many possible CPUs instead of this machine's, to find out what they cost.
  static Result<Object> load(unsigned cpus = possible_cpus(),
                             const std::optional<ChainKey>& chain_key = std::nullopt);

  /// The programs alone, over maps that exist. Unsupported, with the map's name, where a map has another
  /// shape.
  static Result<Object> load_over(const Maps& maps);

  [[nodiscard]] int xdp_fd() const noexcept;
  [[nodiscard]] int tc_in_fd() const noexcept;
  [[nodiscard]] int tc_out_fd() const noexcept;
  [[nodiscard]] CommitPrograms commit() const noexcept;

  /// Sets the tick going, or again with these programs. It runs for as long as the maps are held or pinned.
  [[nodiscard]] Status start() const;

  /// Descriptors of its own of all maps.
  [[nodiscard]] Result<Maps> maps() const;

  /// Programs that are pinned, each under its name of kern/bpffs.hpp.
  [[nodiscard]] std::vector<std::pair<const char*, int>> pinned_programs() const;

  /// Pins every map under its name in a directory that is empty, and the programs.
  [[nodiscard]] Status pin(const PinDir& dir) const;

  /// A second, not yet loaded copy of the object that shares these maps and in which only anic_xdp will
  /// be loaded: what libxdp's dispatcher needs, since it changes the program's type before the load.
  [[nodiscard]] Result<std::unique_ptr<bpf_object, void (*)(bpf_object*)>> open_for_dispatcher() const;

 private:
  struct Destroy {
    void operator()(instance_bpf* skeleton) const noexcept;
  };
  std::unique_ptr<instance_bpf, Destroy> skeleton_;
};

}  // namespace agentnic::kern
