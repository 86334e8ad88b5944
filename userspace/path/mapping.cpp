// SPDX-License-Identifier: Apache-2.0
#include "path/mapping.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <utility>

namespace agentnic::path {

Result<Mapping> Mapping::of(void* at, std::size_t bytes, const char* what) {
  if (at == MAP_FAILED) return fail_errno(errno, what);
  Mapping made;
  made.at_ = static_cast<std::byte*>(at);
  made.bytes_ = bytes;
  return made;
}

Result<Mapping> Mapping::map(int fd, std::size_t bytes, std::int64_t offset, const char* what) {
  return of(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, offset), bytes,
            what);
}

Result<Mapping> Mapping::anonymous(std::size_t bytes, const char* what) {
  Mapping made = ANIC_TRY(
      of(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), bytes, what));
  ::madvise(made.at_, bytes, MADV_HUGEPAGE);  // it works without, a little slower
  return made;
}

Mapping::Mapping(Mapping&& other) noexcept
    : at_(std::exchange(other.at_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(at_, other.at_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

Mapping::~Mapping() {
  if (at_ != nullptr) ::munmap(at_, bytes_);
}

}  // namespace agentnic::path
