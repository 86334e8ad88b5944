// SPDX-License-Identifier: Apache-2.0
#include "base/hypervisor.hpp"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>

#include <cstring>
#endif

namespace agentnic {
namespace {

constexpr const char* kTcg = "TCGTCGTCGTCG";

}  // namespace

std::string hypervisor() {
#if defined(__x86_64__) || defined(__i386__)
  // Leaf 1 says whether there is one; leaf 0x40000000 is its own, with twelve characters in EBX, ECX and EDX
  // (the hypervisor CPUID interface of KVM: Documentation/virt/kvm/x86/cpuid.rst of Linux).
  constexpr unsigned kHypervisorPresent = 1U << 31U;
  unsigned eax = 0;
  unsigned words[3] = {};
  if (__get_cpuid(1, &eax, &words[0], &words[1], &words[2]) == 0 || (words[1] & kHypervisorPresent) == 0)
    return {};
  __cpuid(0x40000000, eax, words[0], words[1], words[2]);
  char name[sizeof(words) + 1] = {};
  std::memcpy(name, words, sizeof(words));
  return name;
#else
  return {};
#endif
}

bool emulated() { return hypervisor() == kTcg; }

}  // namespace agentnic
