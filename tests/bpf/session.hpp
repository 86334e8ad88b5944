// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Sessions, orders and records of an instance, at times that the test says. What fails here fails the test.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "abi/observe.h"
#include "instance.hpp"

struct bpf_object;
struct ring_buffer;
struct user_ring_buffer;

namespace agentnic {

/// Runs one of the programs of the guardian for operators, at the time of the order; its answer.
int order(const Instance& instance, const char* program, const anic_order& arguments);

/// An order at a time.
anic_order order_at(std::uint64_t now_ns);

/// A drain at a time.
anic_draining draining_at(std::uint64_t now_ns);

/// All tenants, kinds, classes and paths.
anic_grants everything();

/// A session whose drain takes the time from the test.
class TestSession final {
 public:
  /// Opens it.
  TestSession(const Instance& instance, const anic_grants& asked, std::uint64_t now_ns,
              std::uint32_t agent = 0);

  /// Of one that is open.
  TestSession(const Instance& instance, std::uint32_t slot);

  /// Is that of another session that is open from now on, so that nothing is loaded again. What its ring and
  /// page hold, they keep.
  void become(std::uint32_t slot);

  /// Writes bytes to the ring as they are. False: there is no room.
  bool write(const void* bytes, std::size_t size) const;

  /// Writes a sample of so many bytes, and takes it back. False: there is no room.
  [[nodiscard]] bool take_back(std::size_t size) const;

  /// Drains; how many were answered, or -errno.
  [[nodiscard]] int drain(std::uint64_t now_ns) const;

  /// The same, and has the observation written.
  const anic_observation& observe(std::uint64_t now_ns) const;

  /// Has the observation written without a drain.
  void observe_alone(std::uint64_t now_ns) const;

  /// One proposal: its answer.
  [[nodiscard]] anic_answer propose(anic_proposal proposal, std::uint64_t now_ns) const;

  /// Takes the guardian's lock, or gives it back.
  [[nodiscard]] int lock(std::uint64_t now_ns, bool held) const;

  /// What is handed to an agent; borrowed.
  [[nodiscard]] int ring_fd() const;
  [[nodiscard]] int page_fd() const;
  [[nodiscard]] int drain_fd() const;

  [[nodiscard]] std::uint64_t id() const { return id_; }
  [[nodiscard]] std::uint32_t slot() const { return slot_; }
  [[nodiscard]] const anic_page& page() const { return *page_; }
  [[nodiscard]] anic_session row() const;
  int close(std::uint64_t now_ns) const;

 private:
  template <typename Arguments>
  [[nodiscard]] int run(const char* program, const Arguments& arguments) const;

  const Instance& instance_;
  std::uint32_t slot_ = 0;
  std::uint64_t id_ = 0;
  std::unique_ptr<bpf_object, void (*)(bpf_object*)> object_;
  std::unique_ptr<user_ring_buffer, void (*)(user_ring_buffer*)> ring_;
  std::shared_ptr<const anic_page> page_;
};

/// Takes what is in the audit's ring.
class Records final {
 public:
  explicit Records(const Instance& instance);

  /// Those since the last time, so many at most.
  std::vector<anic_record> take(std::size_t most = static_cast<std::size_t>(-1));

 private:
  struct Taken {
    std::vector<anic_record> records;
    std::size_t most = 0;
  };
  static int keep(void* taken, void* data, std::size_t size);

  Taken taken_;
  std::unique_ptr<ring_buffer, void (*)(ring_buffer*)> ring_;
};

}  // namespace agentnic
