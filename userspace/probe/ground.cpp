// SPDX-License-Identifier: Apache-2.0
#include "probe/ground.hpp"

#include <fmt/format.h>
#include <sched.h>
#include <sys/mount.h>

#include <cerrno>
#include <string>

#include "base/process.hpp"
#include "kern/bpffs.hpp"

namespace agentnic::probe {
namespace {

Status enter_namespaces() {
  const std::string what = "make network and mount namespaces to try things in";
  if (::unshare(CLONE_NEWNET | CLONE_NEWNS) != 0 ||
      ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return fail_errno(errno, what, "this takes CAP_SYS_ADMIN: run as root");
  return {};
}

Status mount_bpffs() {
  if (::mount("bpf", kern::kBpffs, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") != 0)
    return fail_errno(errno, fmt::format("mount a bpffs at {}", kern::kBpffs));
  return {};
}

}  // namespace

void Ground::enter() {
  entered_ = enter_namespaces();
  bpffs_ = entered_ ? mount_bpffs() : entered_;
}

Result<kern::Interface> Ground::new_veth() {
  ANIC_TRY(Status(bpffs_));
  const std::string name = fmt::format("probe{}", veths_++);
  const std::string peer = name + "p";
  ANIC_TRY(run_program({"ip", "link", "add", name, "numrxqueues", "1", "numtxqueues", "1", "type", "veth",
                        "peer", "name", peer, "numrxqueues", "1", "numtxqueues", "1"}));
  // AF_XDP binds only to what is up.
  for (const std::string& end : {name, peer}) ANIC_TRY(run_program({"ip", "link", "set", end, "up"}));
  return kern::find_interface(name);
}

Status Ground::loopback() {
  ANIC_TRY(Status(entered_));
  ANIC_TRY(run_program({"ip", "link", "set", "lo", "up"}));
  return {};
}

Result<const kern::Object*> Ground::object() {
  if (!object_) object_ = kern::Object::load();
  if (!*object_) return fail(object_->error());
  return &**object_;
}

Result<std::vector<kern::VerifiedProgram>> Ground::programs() {
  if (!programs_) programs_ = kern::verify_programs();
  return *programs_;
}

}  // namespace agentnic::probe
