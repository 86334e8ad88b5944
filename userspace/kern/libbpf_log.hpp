// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What libbpf and libxdp say, kept for error messages instead of printed.

#include <string>

namespace agentnic::kern {

/// Takes the libraries' messages from now on; `verbose` also prints them to stderr as they come.
void capture_libbpf_log(bool verbose);

/// The last warning since the last call, one line, or nothing.
std::string take_libbpf_warning();

}  // namespace agentnic::kern
