// SPDX-License-Identifier: Apache-2.0
//
// What somebody read through agentnic is recorded, by a program that can do nothing else.

#include <bpf/bpf.h>
#include <grp.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>

#include "audit/words.hpp"
#include "base/clock.hpp"
#include "guarded.hpp"
#include "kern/guardian.hpp"

using namespace agentnic;

namespace {

constexpr std::uint64_t kReader = 1000;  ///< uid

anic_chain chain_of(const Guarded& guarded) { return guarded.only<anic_chain>("anic_chain"); }

int note(const Guarded& guarded, std::uint64_t kind, std::uint64_t tenant) {
  anic_order arguments = order_at(kStart);
  arguments.what = tenant << 32U | kind;
  arguments.session = kReader;
  arguments.wall_ns = 4711;
  std::memcpy(arguments.reason, "to see it", 9);
  return order(guarded.instance(), "note", arguments);
}

int note_fd(const Guarded& guarded) {
  for (const auto& [name, fd] : guarded.instance().object().pinned_programs()) {
    if (std::strcmp(name, kern::kNotePin) == 0) return fd;
  }
  FAIL("it is not pinned");
  return -1;
}

/// What a holder without privileges does with the program; 0, or the number of what was not as it must be.
int unprivileged(int fd) {
  if (::setgroups(0, nullptr) != 0 || ::setresgid(65534, 65534, 65534) != 0 ||
      ::setresuid(65534, 65534, 65534) != 0 || ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    return 1;
  if (!kern::note_read(fd, ANIC_RECORD_READ, 0, kReader, "to see it")) return 2;
  for (const char* tracepoint : {"sys_enter", "sched_switch", "net_dev_xmit"})
    if (bpf_raw_tracepoint_open(tracepoint, fd) >= 0) return 3;
  return 0;
}

}  // namespace

TEST_CASE("guardian: note: who read all records, or a tenant's, or exported them is recorded") {
  Guarded guarded;
  (void)guarded.take();
  const std::vector<std::byte> before = guarded.in_force();
  const std::uint64_t begun_ns = monotonic_ns();
  CHECK(note(guarded, ANIC_RECORD_READ, 0) == 0);
  CHECK(note(guarded, ANIC_RECORD_READ, kAcme) == 0);
  CHECK(note(guarded, ANIC_RECORD_EXPORT, kGlobex) == 0);
  const auto records = guarded.take();
  REQUIRE(records.size() == 3);
  CHECK(records[0].kind == ANIC_RECORD_READ);
  CHECK(records[0].tenant == 0);
  CHECK(records[0].tenant_seq == 0);
  CHECK(records[1].kind == ANIC_RECORD_READ);
  CHECK(records[1].tenant == kAcme);
  CHECK(records[1].tenant_seq == 2);
  CHECK(records[2].kind == ANIC_RECORD_EXPORT);
  CHECK(records[2].tenant == kGlobex);
  CHECK(records[2].tenant_seq == 2);
  for (const anic_record& record : records) {
    CHECK(record.requested == kReader);
    CHECK(record.observed == 4711);
    CHECK(audit::text_of(record.reason) == "to see it");
    CHECK(record.count == 1);
    CHECK(record.generation == static_cast<std::uint32_t>(guarded.word()));
    CHECK((record.time_ns >= begun_ns && record.time_ns <= monotonic_ns()));  // not what the caller says
  }
  CHECK((guarded.in_force() == before));
}

TEST_CASE("guardian: note: nothing but those two kinds, of tenants that there are, is recorded") {
  Guarded guarded;
  (void)guarded.take();
  for (std::uint64_t kind = 0; kind <= 256 + ANIC_RECORD__MAX; ++kind) {
    if (kind == ANIC_RECORD_READ || kind == ANIC_RECORD_EXPORT) continue;
    CHECK(note(guarded, kind, 0) == -EINVAL);
    CHECK(note(guarded, kind, kAcme) == -EINVAL);
  }
  CHECK(note(guarded, ANIC_RECORD_EXPORT, 0) == -EINVAL);
  for (const std::uint64_t tenant : {ANIC_TENANTS_MAX, 255, 256, 256 + int{kAcme}, -1})
    CHECK(note(guarded, ANIC_RECORD_READ, tenant & 0xffffffff) == -EINVAL);
  CHECK(note(guarded, ANIC_RECORD_READ, 3) == -ENOENT);
  CHECK(note(guarded, ANIC_RECORD_EXPORT, ANIC_TENANTS_MAX - 1) == -ENOENT);
  CHECK(guarded.take().empty());
}

TEST_CASE("guardian: note: it is requested, and gets nothing of the reserve, nor what comes before others") {
  constexpr std::uint64_t kRequested = (ANIC_AUDIT_BYTES - ANIC_AUDIT_RESERVE) / ANIC_AUDIT_TAKES;
  constexpr std::uint64_t kWhole = (ANIC_AUDIT_BYTES - ANIC_AUDIT_LAST) / ANIC_AUDIT_TAKES;
  Guarded guarded;
  int code = 0;
  for (std::uint64_t i = 0; i < kWhole && code == 0; ++i) code = note(guarded, ANIC_RECORD_READ, 0);
  CHECK(code == -ENOSPC);
  CHECK(note(guarded, ANIC_RECORD_EXPORT, kAcme) == -ENOSPC);
  CHECK(note(guarded, ANIC_RECORD_READ, 3) == -ENOENT);
  const std::uint64_t seq = chain_of(guarded).seq;
  CHECK((seq == kRequested || seq == kRequested - 1));
  CHECK(chain_of(guarded).lost_total == 0);  // the caller knows
  while (chain_of(guarded).waiting == 0) {
    CHECK(guarded.failsafe(ANIC_ORDER_ENTER, 0, kStart) == 0);
    CHECK(guarded.failsafe(ANIC_ORDER_EXIT, 0, kStart) == 0);
  }
  CHECK(guarded.take().size() == kWhole);
  CHECK(note(guarded, ANIC_RECORD_READ, 0) == -ENOSPC);  // there is room, but others wait for it
  guarded.tick(kStart);
  (void)guarded.take();
  CHECK(note(guarded, ANIC_RECORD_READ, 0) == 0);
  CHECK(guarded.take().size() == 1);
}

TEST_CASE(
    "guardian: note: while somebody has the lock, or has waited for it, it is put off; after the end, over") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  (void)guarded.take();
  REQUIRE(session.lock(kStart, true) == 0);
  CHECK(note(guarded, ANIC_RECORD_READ, 0) == -EBUSY);
  REQUIRE(session.lock(kStart, false) == 0);
  CHECK(note(guarded, ANIC_RECORD_READ, 0) == 0);  // drains do not give way to it
  CHECK(session.drain(kStart) == 0);
  CHECK(guarded.take().size() == 1);
  CHECK(order(guarded.instance(), "end", order_at(kStart)) == 0);
  (void)guarded.take();
  CHECK(note(guarded, ANIC_RECORD_READ, 0) == -ENOSPC);
  CHECK(note(guarded, ANIC_RECORD_READ, kAcme) == -ENOENT);
  CHECK(guarded.take().empty());
}

TEST_CASE("guardian: note: who holds the program and no privileges can run it") {
  Guarded guarded;
  (void)guarded.take();
  const int fd = note_fd(guarded);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) ::_exit(unprivileged(fd));
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(guarded.take().size() == 1);
}

TEST_CASE("guardian: note: note_read() says what went wrong") {
  Guarded guarded;
  const int fd = note_fd(guarded);
  (void)guarded.take();
  CHECK(kern::note_read(fd, ANIC_RECORD_EXPORT, kAcme, kReader, "monthly"));
  const auto records = guarded.take();
  REQUIRE(records.size() == 1);
  CHECK(records[0].kind == ANIC_RECORD_EXPORT);
  CHECK(records[0].requested == kReader);
  CHECK(records[0].observed >= wall_ns() - 60 * kSecond);
  CHECK(audit::text_of(records[0].reason) == "monthly");
  const auto nobody = kern::note_read(fd, ANIC_RECORD_READ, 3, kReader, "");
  REQUIRE_FALSE(nobody);
  CHECK(nobody.error().text().contains("id 3 is no tenant's now"));
  const auto wordy = kern::note_read(fd, ANIC_RECORD_READ, 0, kReader, std::string(ANIC_TEXT_LEN + 1, 'x'));
  REQUIRE_FALSE(wordy);
  CHECK(wordy.error().exit == Exit::BadInput);
  CHECK_FALSE(kern::note_read(fd, ANIC_RECORD_COMMIT, kAcme, kReader, ""));
  CHECK(order(guarded.instance(), "end", order_at(kStart)) == 0);
  const auto over = kern::note_read(fd, ANIC_RECORD_READ, 0, kReader, "");
  REQUIRE_FALSE(over);
  CHECK(over.error().text().contains("full, or at its end"));
}
