// SPDX-License-Identifier: Apache-2.0
#include "kern/bench_programs.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>

#include <bench.skel.h>
#include <cerrno>

#include "kern/libbpf_log.hpp"

namespace agentnic::kern {

void BenchPrograms::Destroy::operator()(bench_bpf* skeleton) const noexcept { bench_bpf::destroy(skeleton); }

Result<BenchPrograms> BenchPrograms::load(const Maps& maps) {
  BenchPrograms bench;
  bench.skeleton_.reset(bench_bpf::open());
  if (!bench.skeleton_) return fail_errno(errno, "open the BPF object of the benchmarks");
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, bench.skeleton_->obj) {
    const int there = maps.fd(bpf_map__name(map));
    if (there < 0) continue;  // its own
    if (const int code = bpf_map__reuse_fd(map, there); code != 0)
      return fail_errno(code, fmt::format("share map {} with the benchmarks", bpf_map__name(map)));
  }
  if (const int code = bench_bpf::load(bench.skeleton_.get()); code != 0)
    return fail_errno(code, "load the BPF object of the benchmarks", take_libbpf_warning());
  return bench;
}

Status BenchPrograms::set(const anic_bench& setup) const {
  const std::uint32_t zero = 0;
  if (bpf_map_update_elem(bpf_map__fd(skeleton_->maps.bench_setup), &zero, &setup, BPF_ANY) != 0)
    return fail_errno(errno, "set up the flows of a benchmark");
  return {};
}

int BenchPrograms::flows_fd() const noexcept { return bpf_program__fd(skeleton_->progs.bench_flows); }
int BenchPrograms::noop_fd() const noexcept { return bpf_program__fd(skeleton_->progs.bench_noop); }
int BenchPrograms::nothing_fd() const noexcept { return bpf_program__fd(skeleton_->progs.bench_nothing); }
int BenchPrograms::chain_fd() const noexcept { return bpf_program__fd(skeleton_->progs.bench_chain); }
int BenchPrograms::fill_fd() const noexcept { return bpf_program__fd(skeleton_->progs.bench_fill); }
int BenchPrograms::tick_fd() const noexcept { return bpf_program__fd(skeleton_->progs.bench_tick); }

}  // namespace agentnic::kern
