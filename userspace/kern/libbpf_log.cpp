// SPDX-License-Identifier: Apache-2.0
#include "kern/libbpf_log.hpp"

#include <bpf/libbpf.h>
#include <xdp/libxdp.h>

#include <cstdarg>
#include <cstdio>
#include <utility>

namespace agentnic::kern {
namespace {

bool print_all = false;
thread_local std::string last_warning;

int keep(bool is_warning, const char* format, std::va_list args) noexcept {
  if (print_all) {  // whole: a verifier log is longer than the line below
    std::va_list again;
    va_copy(again, args);
    std::vfprintf(stderr, format, again);
    va_end(again);
  }
  char line[1024];
  const int length = std::vsnprintf(line, sizeof(line), format, args);
  if (is_warning) {
    last_warning = line;
    while (!last_warning.empty() && last_warning.back() == '\n') last_warning.pop_back();
  }
  return length;
}

int keep_libbpf(libbpf_print_level level, const char* format, std::va_list args) {
  return keep(level == LIBBPF_WARN, format, args);
}

int keep_libxdp(libxdp_print_level level, const char* format, std::va_list args) {
  return keep(level == LIBXDP_WARN, format, args);
}

}  // namespace

void capture_libbpf_log(bool verbose) {
  print_all = verbose;
  libbpf_set_print(keep_libbpf);
  libxdp_set_print(keep_libxdp);
}

std::string take_libbpf_warning() { return std::exchange(last_warning, {}); }

}  // namespace agentnic::kern
