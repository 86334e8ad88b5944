// SPDX-License-Identifier: Apache-2.0
//
// Queues set aside, with the kernel's own answers: what a veth is refused for, and that a record in the pins
// is undone by detach, whatever has become of its interface. No device that a test can make takes flow rules;
// the order of steps is tested on a model (tests/unit/queue_rules_test.cpp).

#include "kern/queue_rules.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/mount.h>

#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "kern/instance.hpp"
#include "kern/interface.hpp"

using namespace agentnic;
using Lines = std::vector<std::string>;

namespace {

const kern::QueueService kEcho = {"echo", IPPROTO_UDP, 9000, ANIC_ROLE_SERVER};

const kern::QueueService kGather = {"gather", IPPROTO_TCP, 9100, ANIC_ROLE_SERVER};

/// Runs on a thread with a network namespace and a bpffs of its own, both of which end with it.
void in_own_namespaces(const std::function<void(const kern::NetNs&)>& call) {
  std::string problem;
  std::thread([&] {
    if (::unshare(CLONE_NEWNET | CLONE_NEWNS) != 0 ||
        ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("bpf", kern::kBpffs, "bpf", 0, "mode=0700") != 0) {
      problem = "there are no namespaces to be had";
      return;
    }
    const auto netns = kern::NetNs::current();
    if (netns) call(*netns);
    if (!netns) problem = netns.error().text();
  }).join();
  CHECK(problem == "");
}

void make_veth(const std::string& queues) {
  const std::string command = "PATH=$PATH:/usr/sbin:/sbin ip link add lab0 numrxqueues " + queues +
                              " numtxqueues " + queues + " type veth peer lab1";
  CHECK(std::system(command.c_str()) == 0);
}

/// A record as set_aside() leaves it, in the pins of an instance that is not there.
template <typename Record>
kern::PinDir pin_record(const kern::NetNs& netns, const Record& record, const char* name = "anic_aside") {
  kern::PinDir dir{netns.inode(), "lab0"};
  const auto lock = kern::lock_pins();
  const UniqueFd map(
      bpf_map_create(BPF_MAP_TYPE_ARRAY, name, sizeof(std::uint32_t), sizeof(record), 1, nullptr));
  const std::uint32_t zero = 0;
  CHECK(lock.has_value());
  CHECK(kern::make_pin_dir(dir).has_value());
  CHECK(bpf_map_update_elem(map.get(), &zero, &record, BPF_ANY) == 0);
  CHECK(bpf_obj_pin(map.get(), dir.pin(name).c_str()) == 0);
  return dir;
}

anic_split split_of(const kern::NetNs& netns, std::uint32_t ifindex) {
  return {.netns_cookie = netns.cookie(),
          .ifindex = ifindex,
          .was_on = 0,
          .threshold_changed = 0,
          .threshold_before = 0};
}

/// A program of somebody else, which passes all.
bool attach_generic_xdp(std::uint32_t ifindex) {
  const bpf_insn passes[] = {{BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, XDP_PASS},
                             {BPF_JMP | BPF_EXIT, 0, 0, 0, 0}};
  const UniqueFd program(bpf_prog_load(BPF_PROG_TYPE_XDP, "passes", "GPL", passes, 2, nullptr));
  return program &&
         bpf_xdp_attach(static_cast<int>(ifindex), program.get(), XDP_FLAGS_SKB_MODE, nullptr) == 0;
}

std::unique_ptr<anic_aside> record_of(const kern::NetNs& netns, std::uint32_t ifindex) {
  auto record = std::make_unique<anic_aside>();
  record->netns_cookie = netns.cookie();
  record->ifindex = ifindex;
  record->done = 1;
  record->turned_ntuple_on = 1;
  record->table_size = 4;
  record->queues[0] = 1U << 3U;
  record->rules_count = 1;
  record->rules[0] = {.location = 7,
                      .source_port = 0,
                      .source_mask = 0,
                      .destination_port = 9000,
                      .destination_mask = 0xffff,
                      .queue = 3,
                      .protocol = IPPROTO_UDP,
                      .version = 4};
  return record;
}

/// As if agentnic were attached to lab0.
kern::PinDir make_pins(const kern::NetNs& netns) {
  const kern::PinDir dir{netns.inode(), "lab0"};
  const auto lock = kern::lock_pins();
  CHECK((lock && kern::make_pin_dir(dir)));
  return dir;
}

}  // namespace

TEST_CASE("queues: a veth is refused for what it lacks", "[smoke]") {
  in_own_namespaces([](const kern::NetNs& netns) {
    make_veth("1");
    const auto one = kern::plan_queues(netns, "lab0", {1}, {kEcho});
    CHECK_FALSE(one.has_value());
    if (!one) {
      CHECK(one.error().exit == Exit::Unsupported);
      CHECK(one.error().what ==
            "set queue 1 of lab0 aside: lab0 (veth) has one receive queue, which takes everything");
    }
    const auto none = kern::plan_queues(netns, "lab7", {1}, {kEcho});
    CHECK((!none && none.error().exit == Exit::BadInput));
  });
  in_own_namespaces([](const kern::NetNs& netns) {
    make_veth("4");
    const auto several = kern::plan_queues(netns, "lab0", {3}, {kEcho});
    CHECK_FALSE(several.has_value());
    if (!several) {
      CHECK(several.error().exit == Exit::Unsupported);
      CHECK(several.error().what ==
            "set queue 3 of lab0 aside: lab0 (veth) has no RSS table to take them out of");
    }
  });
}

TEST_CASE("queues: for zero-copy receive a veth is refused with all that it lacks, and is left as it is",
          "[smoke]") {
  in_own_namespaces([](const kern::NetNs& netns) {
    make_veth("4");
    const std::string lacks =
        "set queue 3 of lab0 aside for zero-copy receive: lab0 (veth) has no RSS table to take them out of; "
        "lab0 "
        "(veth) takes no flow rules (no ntuple); lab0 (veth) has no header/data split (tcp-data-split)";
    const auto plan = kern::plan_receive(netns, "lab0", {3}, {kGather});
    CHECK_FALSE(plan.has_value());
    if (!plan) {
      CHECK(plan.error().exit == Exit::Unsupported);
      CHECK(plan.error().what == lacks);
    }
    CHECK_FALSE(kern::has_queues_aside({netns.inode(), "lab0"}));
    CHECK(attach_generic_xdp(::if_nametoindex("lab0")));
    const auto with_xdp = kern::plan_receive(netns, "lab0", {3}, {kGather});
    CHECK((!with_xdp && with_xdp.error().what == lacks + "; lab0 (veth) has an XDP program"));
  });
}

TEST_CASE("queues: what a device does not take is an error that names it, and its driver") {
  in_own_namespaces([](const kern::NetNs&) {
    make_veth("4");
    const auto device = kern::open_queue_device("lab0");
    CHECK(device.has_value());
    if (!device) return;
    const auto nic = (*device)->read();
    CHECK((nic && nic->queues == 4 && nic->table.empty() && !nic->rules));
    CHECK((nic && !nic->ntuple_on && !nic->ntuple_can_change));
    const auto rule = (*device)->add_rule({.version = 4,
                                           .protocol = IPPROTO_UDP,
                                           .destination_port = 9000,
                                           .destination_mask = 0xffff,
                                           .queue = 3},
                                          0);
    CHECK((!rule && rule.error().what.contains("port 9000 to queue 3 of lab0: its driver (veth) refuses")));
    const Status table = (*device)->set_table({0, 1, 2, 0});
    CHECK((!table && table.error().what.contains("RSS table of lab0: its driver (veth) refuses")));
    CHECK_FALSE((*device)->set_default_table().has_value());
    const Status ntuple = (*device)->set_ntuple(true);
    CHECK((!ntuple && ntuple.error().exit == Exit::Unsupported));
    CHECK((*device)->set_ntuple(false).has_value());
    CHECK((*device)->remove_rule(7).has_value());  // which is not there
    CHECK((nic && nic->header_split == kern::HeaderSplit{} && !nic->has_xdp));
    const Status split = (*device)->set_header_split(kern::SplitMode::On, std::nullopt);
    CHECK((!split && split.error().exit == Exit::Unsupported));
    CHECK((!split && split.error().what.starts_with("set header/data split of lab0: ")));
    CHECK((!split && split.error().what.ends_with(" (its driver is veth)")));
  });
}

TEST_CASE("queues: nothing is set aside for an instance that is not attached") {
  in_own_namespaces([](const kern::NetNs& netns) {
    make_veth("4");
    kern::QueuePlan plan;
    plan.ifname = "lab0";
    plan.queues = {3};
    const kern::PinDir dir{netns.inode(), "lab0"};
    const Status done = kern::set_aside(netns, plan, dir);
    CHECK((!done && done.error().what.contains("agentnic is not attached")));
    CHECK_FALSE(kern::has_queues_aside(dir));
    CHECK_FALSE(kern::is_set_aside(dir, 3));
    const auto notes = kern::give_back(dir);
    CHECK((notes && notes->empty()));
  });
}

TEST_CASE("queues: a plan that the device does not take leaves no record") {
  in_own_namespaces([](const kern::NetNs& netns) {
    make_veth("4");
    kern::QueuePlan plan;  // one that says there is a table where there is none, so that it is written
    plan.ifname = "lab0";
    plan.queues = {3};
    plan.turns_ntuple_on = true;
    const kern::PinDir dir = make_pins(netns);
    const Status done = kern::set_aside(netns, plan, dir);
    CHECK((!done && done.error().what.contains("turn ntuple of lab0 on: its driver (veth) does not")));
    CHECK_FALSE(kern::has_queues_aside(dir));
  });
}

TEST_CASE("queues: a plan of zero-copy receive that the device does not take leaves no record") {
  in_own_namespaces([](const kern::NetNs& netns) {
    make_veth("4");
    kern::QueuePlan plan;  // of what the veth is, and ntuple off as it is when it turns that on
    plan.ifname = "lab0";
    plan.purpose = kern::Purpose::Receive;
    plan.queues = {3};
    plan.turns_ntuple_on = true;
    const kern::PinDir dir = make_pins(netns);
    const Status done = kern::set_aside(netns, plan, dir);
    CHECK((!done && done.error().exit == Exit::Unsupported));
    CHECK((!done &&
           done.error().what.starts_with("set queues of lab0 aside: set header/data split of lab0: ")));
    CHECK_FALSE(kern::has_queues_aside(dir));
  });
}

TEST_CASE("queues: detach undoes a record of header/data split that was left alone, of whatever interface") {
  in_own_namespaces([](const kern::NetNs& netns) {
    const kern::PinDir dir = pin_record(netns, split_of(netns, 4711), "anic_split");
    CHECK(kern::has_queues_aside(dir));
    const auto report = kern::detach_instance(dir);
    CHECK((report &&
           report->notes == Lines{"lab0 is not there any more: nothing of its queues was given back"}));
    CHECK_FALSE(std::filesystem::exists(dir.path()));
  });
  in_own_namespaces([](const kern::NetNs& netns) {
    make_veth("4");
    const kern::PinDir dir = pin_record(netns, split_of(netns, ::if_nametoindex("lab0")), "anic_split");
    CHECK_FALSE(kern::is_set_aside(dir, 3, kern::Purpose::Receive));
    const auto report = kern::detach_instance(dir);
    CHECK((report && report->was_there && report->notes.empty()));
    CHECK_FALSE(std::filesystem::exists(dir.path()));
  });
  in_own_namespaces([](const kern::NetNs& netns) {
    make_veth("4");
    anic_split record = split_of(netns, ::if_nametoindex("lab0"));
    record.was_on = 1;
    record.threshold_changed = 1;
    record.threshold_before = 256;
    const kern::PinDir dir = pin_record(netns, record, "anic_split");
    const auto report = kern::detach_instance(dir);
    CHECK((report &&
           report->notes == Lines{"header/data split of lab0 was turned off by somebody else, and is left",
                                  "hds-thresh of lab0 was changed by somebody else, and is left"}));
    CHECK_FALSE(std::filesystem::exists(dir.path()));
  });
}

TEST_CASE("queues: detach undoes a record and is not held up by an interface that is gone") {
  in_own_namespaces([](const kern::NetNs& netns) {
    const kern::PinDir dir = pin_record(netns, *record_of(netns, 4711));
    CHECK(kern::has_queues_aside(dir));
    CHECK_FALSE(kern::is_set_aside(dir, 3));
    const auto report = kern::detach_instance(dir);
    CHECK((report && report->was_there));
    if (report)
      CHECK(report->notes == Lines{"lab0 is not there any more: nothing of its queues was given back"});
    CHECK_FALSE(std::filesystem::exists(dir.path()));
  });
}

TEST_CASE("queues: detach leaves what is not as it was set, and says so") {
  in_own_namespaces([](const kern::NetNs& netns) {
    make_veth("4");
    const kern::PinDir dir = pin_record(netns, *record_of(netns, ::if_nametoindex("lab0")));
    CHECK_FALSE(kern::is_set_aside(dir, 3));
    const auto report = kern::detach_instance(dir);
    CHECK((report && report->was_there));
    if (report) {
      CHECK(report->notes == Lines{"the RSS table of lab0 was changed by somebody else, and is left; the "
                                   "driver's own: ethtool -X lab0 default"});
    }
    CHECK_FALSE(std::filesystem::exists(dir.path()));
    const auto again = kern::detach_instance(dir);
    CHECK((again && !again->was_there));
  });
}

TEST_CASE("queues: the RSS table of a NIC is read, set, and set to the driver's own", "[multi-queue]") {
  const auto device = kern::open_queue_device("mq0");
  REQUIRE(device.has_value());
  const auto before = (*device)->read();
  REQUIRE(before.has_value());
  REQUIRE(before->queues == 2);
  REQUIRE_FALSE(before->table.empty());
  CHECK(kern::is_default_table(before->table, 2));
  const auto plan = kern::plan_queues(*before, {1}, {kEcho});
  REQUIRE_FALSE(plan.has_value());
  CHECK(plan.error().what == "set queue 1 of mq0 aside: mq0 (virtio_net) takes no flow rules (no ntuple)");

  const auto receive = kern::plan_queues(*before, {1}, {kGather}, kern::Purpose::Receive);
  REQUIRE_FALSE(receive.has_value());
  CHECK(
      receive.error().what ==
      "set queue 1 of mq0 aside for zero-copy receive: mq0 (virtio_net) takes no flow rules (no ntuple); mq0 "
      "(virtio_net) has no header/data split (tcp-data-split)");
  const Status split = (*device)->set_header_split(kern::SplitMode::On, std::nullopt);
  REQUIRE_FALSE(split.has_value());
  CHECK(split.error().exit == Exit::Unsupported);
  // Linux 7.3 says why: setting TCP data split is not supported
  CHECK(split.error().what.starts_with("set header/data split of mq0: "));
  CHECK(split.error().what.ends_with(" (its driver is virtio_net)"));

  const kern::RssTable without = kern::spread_over_others(before->table, 2, {1});
  CHECK((*device)->set_table(without).has_value());
  const auto changed = (*device)->read();
  CHECK((changed && changed->table == without));
  CHECK((*device)->set_default_table().has_value());
  const auto after = (*device)->read();
  CHECK((after && after->table == before->table));
}
