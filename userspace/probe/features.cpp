// SPDX-License-Identifier: Apache-2.0
#include "probe/features.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <linux/bpf.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>

#include "base/json.hpp"
#include "base/process.hpp"
#include "kern/bpffs.hpp"
#include "kern/clsact.hpp"
#include "kern/hook.hpp"
#include "kern/instance.hpp"
#include "kern/owner_page.hpp"
#include "kern/test_run.hpp"
#include "path/xsk/grant.hpp"
#include "probe/answer.hpp"
#include "probe/ground.hpp"
#include "probe/sockets.hpp"
#include "probe/uring.hpp"

namespace agentnic::probe {
namespace {

constexpr int kRowTimeoutMs = 60'000;  // an emulated machine takes seconds for some
constexpr const char* kAsRoot = "run it as root";

// --- the tries; those of path A are in sockets.cpp and uring.cpp ---

Result<Answer> kernel_btf(Ground& /*ground*/) {
  constexpr const char* kFile = "/sys/kernel/btf/vmlinux";
  if (::access(kFile, R_OK) == 0) return yes(fmt::format("{} can be read", kFile));
  return no(fmt::format("read {}: {}", kFile, std::generic_category().message(errno)));
}

Result<Answer> bpffs(Ground& ground) {
  struct statfs info{};
  const bool there = ::statfs(kern::kBpffs, &info) == 0 && info.f_type == BPF_FS_MAGIC;
  if (ground.bpffs()) return yes("mounted one");
  if (there) return yes(fmt::format("one is mounted at {}", kern::kBpffs));
  if (!ground.entered()) return fail(ground.entered().error());
  return no(ground.bpffs().error().what);
}

Result<Answer> load_programs(Ground& /*ground*/) {
  const auto loaded = kern::load_noop_xdp();
  return loaded ? yes("loaded an XDP program of two instructions") : no(loaded.error().what);
}

/// Whether all programs of the object whose names begin so are loaded.
Result<Answer> verified(Ground& ground, std::string_view prefix) {
  std::vector<std::string> loaded;
  for (const auto& program : ANIC_TRY(ground.programs())) {
    if (!program.name.starts_with(prefix)) continue;
    if (!program.loads) return no(fmt::format("{}: {}", program.name, program.error));
    loaded.push_back(program.name);
  }
  if (loaded.empty()) return fail(Exit::Failed, fmt::format("there is no program {} in the object", prefix));
  return yes(fmt::format("loaded {}", fmt::join(loaded, ", ")));
}

Result<Answer> xdp_program(Ground& ground) { return verified(ground, "anic_xdp"); }
Result<Answer> tc_program(Ground& ground) { return verified(ground, "anic_tc"); }

Result<Answer> test_run(Ground& /*ground*/) {
  const auto program = ANIC_TRY(kern::load_noop_xdp());
  const std::byte frame[64] = {};
  const auto verdict = kern::run_once(program.get(), frame);
  if (!verdict) return no(verdict.error().what);
  return *verdict == XDP_PASS ? yes("ran an XDP program on a frame")
                              : no(fmt::format("a program that passes everything returned {}", *verdict));
}

Result<Answer> veth(Ground& ground) {
  const auto made = ground.new_veth();
  // What made it impossible to try is no answer; what the kernel said to `ip` is one.
  if (!made && !ground.bpffs()) return fail(made.error());
  return made ? yes("made a network namespace and a veth pair in it") : no(made.error().what);
}

/// Attaches the way `attach --mode` does, to a veth of its own.
Result<Answer> attached(Ground& ground, anic_mode mode) {
  const kern::Object& object = *ANIC_TRY(ground.object());
  const kern::Interface interface = ANIC_TRY(ground.new_veth());
  const auto done = kern::attach(object, interface, {{mode}, "probe"});
  if (!done) return no(done.error().what);
  return yes(fmt::format("attached to a veth as {}", kern::hook_name(done->hook)));
}

Result<Answer> xdp_native(Ground& ground) { return attached(ground, ANIC_MODE_NATIVE); }
Result<Answer> xdp_skb(Ground& ground) { return attached(ground, ANIC_MODE_SKB); }

Result<Answer> tcx(Ground& ground) {
  const kern::Object& object = *ANIC_TRY(ground.object());
  const kern::Interface interface = ANIC_TRY(ground.new_veth());
  const auto done = kern::attach_egress(object, interface);
  if (!done) return no(done.error().what);
  if (done->hook != ANIC_HOOK_TCX) return no("this kernel refuses a tcx link; attached to clsact instead");
  return yes("attached to a veth as tcx");
}

Result<Answer> clsact(Ground& ground) {
  const kern::Object& object = *ANIC_TRY(ground.object());
  const kern::Interface interface = ANIC_TRY(ground.new_veth());
  const auto done = kern::clsact_attach(interface, ANIC_DIRECTION_IN, object.tc_in_fd());
  return done ? yes("added a filter to the clsact qdisc of a veth") : no(done.error().what);
}

Result<Answer> xdp_link(Ground& ground) {
  const kern::Object& object = *ANIC_TRY(ground.object());
  const kern::Interface interface = ANIC_TRY(ground.new_veth());
  const auto done = kern::attach_alone(object, interface, ANIC_MODE_SKB);
  return done ? yes("attached to a veth under a link") : no(done.error().what);
}

Result<Answer> dispatcher(Ground& ground) {
  const kern::Object& object = *ANIC_TRY(ground.object());
  const kern::Interface interface = ANIC_TRY(ground.new_veth());
  const auto done = kern::attach(object, interface, {{ANIC_MODE_NATIVE, ANIC_MODE_SKB}, "probe"});
  if (!done) return fail(done.error());
  if (done->hook == ANIC_HOOK_XDP_DISPATCHER) return yes("attached to a veth under it");
  return no(done->notes.empty() ? "attached without it" : done->notes.back());
}

Result<Answer> xsk_copy(Ground& ground) {
  const kern::Object& object = *ANIC_TRY(ground.object());
  const kern::Interface interface = ANIC_TRY(ground.new_veth());
  const auto done = ANIC_TRY(kern::attach(object, interface, {{ANIC_MODE_NATIVE, ANIC_MODE_SKB}, "probe"}));
  const kern::Maps maps = ANIC_TRY(object.maps());
  const auto bound =
      path::bind_xsk({.ifname = interface.name, .queues = {0}, .shape = {.bind = path::XskBind::Copy}});
  if (!bound) return no(bound.error().what);
  if (const Status entered = kern::enter_socket(maps.fd("anic_xsks"), 0, bound->queues[0].socket.get());
      !entered)
    return no(entered.error().what);
  return yes(fmt::format("bound one to a veth in mode {}", kern::mode_name(done.mode)));
}

// --- the table ---

struct Row {
  const char* id;  ///< for machines: never renamed
  const char* title;
  const char* needed_by;
  const char* remedy;  ///< what happens without it, and what to do
  Result<Answer> (*attempt)(Ground& ground);
  bool required = false;         ///< without it nothing can be attached
  bool takes_privileges = true;  ///< else it is tried by anybody
};

constexpr Row kRows[] = {
    {.id = "bpf_load",
     .title = "BPF programs may be loaded",
     .needed_by = "everything",
     .remedy = "nothing can be attached; the kernel was built without BPF, or forbids it (lockdown, an LSM, "
               "a container)",
     .attempt = load_programs,
     .required = true},
    {.id = "bpffs",
     .title = "bpffs",
     .needed_by = "attach, which pins its maps and link there",
     .remedy = "nothing can be attached; mount -t bpf bpf /sys/fs/bpf says why it cannot be mounted",
     .attempt = bpffs,
     .required = true,
     .takes_privileges = false},
    {.id = "xdp_program",
     .title = "the XDP program is accepted",
     .needed_by = "attach, in every mode",
     .remedy = "nothing can be attached; agentnic-load -v probe prints the verifier's log",
     .attempt = xdp_program,
     .required = true},
    {.id = "tc_program",
     .title = "the TC program is accepted",
     .needed_by = "attach, in every mode",
     .remedy = "nothing can be attached; agentnic-load -v probe prints the verifier's log",
     .attempt = tc_program,
     .required = true},
    {.id = "veth",
     .title = "network namespaces and veth",
     .needed_by = "agentnic-bench (the lab), make demo, the net tests, and most tries below",
     .remedy = "no lab; attaching to interfaces that are there works all the same",
     .attempt = veth},
    {.id = "xdp_native",
     .title = "native XDP on veth",
     .needed_by = "attach --mode native, the lab",
     .remedy = "--mode auto takes generic XDP, which is slower",
     .attempt = xdp_native},
    {.id = "xdp_skb",
     .title = "generic XDP",
     .needed_by = "attach --mode skb, interfaces without native XDP",
     .remedy = "XDP only where the driver has it; elsewhere --mode tc",
     .attempt = xdp_skb},
    {.id = "xdp_link",
     .title = "XDP under a BPF link",
     .needed_by = "attach where there is no dispatcher",
     .remedy = "XDP only under libxdp's dispatcher; elsewhere --mode tc",
     .attempt = xdp_link},
    {.id = "dispatcher",
     .title = "libxdp's dispatcher",
     .needed_by = "attach beside other XDP programs, --require dispatcher",
     .remedy = "one XDP program an interface: agentnic's, under a link; refused where a foreign one is there",
     .attempt = dispatcher},
    {.id = "tcx",
     .title = "tcx links",
     .needed_by = "programs at TC under a link: every attach at egress, --mode tc at ingress too",
     .remedy = "filters of a clsact qdisc, which stay when their link would go",
     .attempt = tcx},
    {.id = "clsact",
     .title = "clsact qdiscs",
     .needed_by = "programs at TC where there is no tcx",
     .remedy = "none where there is no tcx either: attach fails",
     .attempt = clsact},
    {.id = "xsk_copy",
     .title = "AF_XDP sockets, copy mode",
     .needed_by = "services on path xsk, agentnic-bench serve --transport xsk",
     .remedy = "services on path xsk take path A, the kernel's",
     .attempt = xsk_copy},
    {.id = "prog_test_run",
     .title = "test runs of programs",
     .needed_by = "the bpf tests, make bench",
     .remedy = "programs can be attached, not tested or timed on a frame",
     .attempt = test_run},
    {.id = "kernel_btf",
     .title = "type information of the kernel",
     .needed_by = "sessions with the guardian: agentnic-agent, agentnic-load propose",
     .remedy = "a kernel built with CONFIG_DEBUG_INFO_BTF has it",
     .attempt = kernel_btf,
     .takes_privileges = false},
    {.id = "reuseport",
     .title = "a program chooses among sockets",
     .needed_by = "path A: workers that share a port, each with what comes on its CPU",
     .remedy = "the kernel spreads flows over the workers by a hash, whatever CPU they come on",
     .attempt = reuseport_program},
    {.id = "busy_poll",
     .title = "preferred busy polling by sockets",
     .needed_by = "path A: --busy-poll of UDP and TCP",
     .remedy = "workers wait asleep, or spin without polling the device; Linux 5.11 with "
               "CONFIG_NET_RX_BUSY_POLL has it",
     .attempt = socket_busy_poll},
    {.id = "epoll_busy_poll",
     .title = "busy polling by epoll",
     .needed_by = "path A: --busy-poll of servers with many connections, IRQ suspension",
     .remedy = "such servers wait asleep, or spin; Linux 6.9 has it",
     .attempt = epoll_busy_poll},
    {.id = "udp_join",
     .title = "datagrams joined and split",
     .needed_by = "path A: bulk UDP, by UDP_GRO and UDP_SEGMENT",
     .remedy = "each datagram is a message of its own; Linux 5.0 has it",
     .attempt = joined_datagrams},
    {.id = "napi_settings",
     .title = "settings of a NAPI, IRQ suspension",
     .needed_by = "path A: interrupts that stay off while a server is busy",
     .remedy = "settings are of whole interfaces (gro_flush_timeout, napi_defer_hard_irqs), and a busy "
               "server is interrupted; Linux 6.13 has it",
     .attempt = napi_settings},
    {.id = "napi_threaded",
     .title = "a thread for one NAPI",
     .needed_by = "path A: polling that is scheduled like any thread",
     .remedy = "all NAPIs of an interface have threads or none has; Linux 6.17 has it",
     .attempt = napi_threaded},
    {.id = "uring",
     .title = "io_uring: multishot, buffer rings",
     .needed_by = "path A over io_uring",
     .remedy = "TCP and UDP by epoll and plain calls; Linux 6.1 has it where kernel.io_uring_disabled is 0",
     .attempt = uring},
    {.id = "uring_bundle",
     .title = "io_uring: bundles",
     .needed_by = "path A over io_uring: one send of what came in several buffers",
     .remedy = "one send a buffer; Linux 6.10 has it",
     .attempt = uring_bundle},
    {.id = "uring_send_zc",
     .title = "io_uring: zero-copy send",
     .needed_by = "path A over io_uring: large answers",
     .remedy = "what is sent is copied once; Linux 6.1 has it",
     .attempt = uring_send_zerocopy},
    {.id = "uring_busy_poll",
     .title = "io_uring: busy polling",
     .needed_by = "path A over io_uring: --busy-poll",
     .remedy = "a ring waits asleep, or spins without polling the device; Linux 6.9 has it",
     .attempt = uring_busy_poll},
    {.id = "zcrx",
     .title = "io_uring: zero-copy receive",
     .needed_by = "path A over io_uring, on a NIC whose driver has it and splits headers from data",
     .remedy = "multishot receive, which copies once; Linux 6.15 with CONFIG_IO_URING_ZCRX has it",
     .attempt = zcrx},
    {.id = "zcrx_nodev",
     .title = "io_uring: zcrx without a device",
     .needed_by = "zero-copy receive (zcrx) on any interface, for tests and trials: the kernel copies",
     .remedy = "zero-copy receive only on a NIC that has it, else multishot receive; Linux 7.3 has it",
     .attempt = zcrx_without_device},
};

// --- the child that tries, and what it tells ---

void tell(int fd, const Json& line) {
  const std::string text = line.dump(-1, ' ', false, Json::error_handler_t::replace) + '\n';
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t wrote = ::write(fd, text.data() + done, text.size() - done);
    if (wrote < 0 && errno != EINTR) return;  // nobody reads any more
    done += wrote > 0 ? static_cast<std::size_t>(wrote) : 0;
  }
}

Json to_line(const kern::VerifiedProgram& program) {
  return {{"name", program.name},
          {"type", program.type},
          {"loads", program.loads},
          {"error", program.error},
          {"stats",
           {program.stats.instructions, program.stats.instruction_limit, program.stats.states_total,
            program.stats.states_peak, program.stats.verification_us}}};
}

kern::VerifiedProgram program_of(const Json& line) {
  const auto& stats = line["stats"];
  return {.name = line["name"],
          .type = line["type"],
          .loads = line["loads"],
          .stats = {.instructions = stats[0],
                    .instruction_limit = stats[1],
                    .states_total = stats[2],
                    .states_peak = stats[3],
                    .verification_us = stats[4]},
          .error = line["error"]};
}

/// One line a row of those to be tried, then one a program.
void try_all(int out_fd, bool privileged) {
  Ground ground;
  if (privileged) ground.enter();
  for (const Row& row : kRows) {
    if (row.takes_privileges && !privileged) continue;
    const auto answer = row.attempt(ground);
    tell(out_fd, {{"available", answer ? Json(answer->available) : Json(nullptr)},
                  {"detail", answer ? answer->detail : answer.error().text()}});
  }
  if (!privileged) return;
  const auto programs = ground.programs();
  if (!programs) return;  // the rows of the programs have told why
  for (const auto& program : *programs) tell(out_fd, to_line(program));
}

}  // namespace

Tried try_features() {
  Tried tried;
  tried.privileged = kern::need_privileges("probe").has_value();
  auto child = Child::start("probe", [&](int out_fd) { try_all(out_fd, tried.privileged); });
  std::optional<Error> ended;
  const auto next = [&]() -> std::optional<Json> {
    if (!child) ended = child.error();
    if (ended) return std::nullopt;
    const auto line = child->read_line(kRowTimeoutMs);
    if (!line) ended = line.error();
    return line ? std::optional(Json::parse(*line, nullptr, false)) : std::nullopt;
  };
  for (const Row& row : kRows) {
    Feature feature{.id = row.id,
                    .title = row.title,
                    .needed_by = row.needed_by,
                    .required = row.required,
                    .available = std::nullopt,
                    .detail = "not tried: this takes root; run it as root",
                    .remedy = row.remedy};
    if (row.takes_privileges && !tried.privileged) {
      feature.remedy = kAsRoot;
    } else if (const auto line = next()) {
      if (!(*line)["available"].is_null()) feature.available = (*line)["available"].get<bool>();
      feature.detail = (*line)["detail"];
    } else {
      // The first such row is the one that ended it.
      feature.detail = "not found out: " + ended->text();
    }
    tried.features.push_back(std::move(feature));
  }
  while (const auto line = tried.privileged ? next() : std::nullopt)
    tried.programs.push_back(program_of(*line));
  return tried;
}

}  // namespace agentnic::probe
