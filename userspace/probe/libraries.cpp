// SPDX-License-Identifier: Apache-2.0
#include "probe/libraries.hpp"

#include <CLI/Version.hpp>

#include <bpf/libbpf.h>
#include <dlfcn.h>
#include <fmt/format.h>
#include <liburing.h>
#include <netlink/netlink.h>
#include <netlink/version.h>
#include <sodium.h>
#include <xdp/libxdp.h>
#include <nlohmann/json.hpp>

#include <charconv>
#include <filesystem>
#include <system_error>
#include <utility>

namespace agentnic::probe {
namespace {

/// For a library that does not tell its version: that of the file from which this function of it was loaded.
template <typename Function>
std::string version_of_file(Function* function) {
  Dl_info info{};
  if (::dladdr(reinterpret_cast<void*>(function), &info) == 0 || info.dli_fname == nullptr) return {};
  std::error_code code;
  const auto file = std::filesystem::canonical(info.dli_fname, code);
  return code ? std::string() : version_in_file_name(file.string());
}

/// The next number of a version, which is shortened by it; 0 at its end.
unsigned next_number(std::string_view& version) {
  unsigned number = 0;
  const auto [end, error] = std::from_chars(version.data(), version.data() + version.size(), number);
  version.remove_prefix(static_cast<std::size_t>(end - version.data()));
  const auto dot = version.find('.');
  version.remove_prefix(dot == std::string_view::npos ? version.size() : dot + 1);
  return error == std::errc() ? number : 0;
}

Library judge(std::string name, std::string needed_by, std::string minimum, std::string built_with,
              std::string running) {
  Library library{.name = std::move(name),
                  .needed_by = std::move(needed_by),
                  .built_with = std::move(built_with),
                  .running = std::move(running),
                  .minimum = std::move(minimum),
                  .ok = std::nullopt,
                  .remedy = "make deps installs it; then build again"};
  const std::string& known = library.running.empty() ? library.built_with : library.running;
  if (!known.empty()) library.ok = version_at_least(known, library.minimum);
  return library;
}

}  // namespace

bool version_at_least(std::string_view version, std::string_view minimum) {
  while (!minimum.empty()) {
    const unsigned wanted = next_number(minimum);
    const unsigned there = next_number(version);
    if (there != wanted) return there > wanted;
  }
  return true;
}

std::string version_in_file_name(std::string_view path) {
  constexpr std::string_view kEnding = ".so.";
  const auto at = path.rfind(kEnding);
  return at == std::string_view::npos ? std::string() : std::string(path.substr(at + kEnding.size()));
}

std::vector<Library> list_libraries() {
  const std::string json = fmt::format("{}.{}.{}", NLOHMANN_JSON_VERSION_MAJOR, NLOHMANN_JSON_VERSION_MINOR,
                                       NLOHMANN_JSON_VERSION_PATCH);
  const auto text = static_cast<std::string (*)(fmt::string_view, fmt::format_args)>(fmt::vformat);
  return {
      judge("libbpf", "loading and attaching programs", "1.4",
            fmt::format("{}.{}", LIBBPF_MAJOR_VERSION, LIBBPF_MINOR_VERSION),
            fmt::format("{}.{}", libbpf_major_version(), libbpf_minor_version())),
      judge("libxdp", "the dispatcher, AF_XDP sockets", "1.3", "", version_of_file(xdp_multiprog__close)),
      judge("liburing", "path A over io_uring", "2.15",
            fmt::format("{}.{}", IO_URING_VERSION_MAJOR, IO_URING_VERSION_MINOR),
            fmt::format("{}.{}", io_uring_major_version(), io_uring_minor_version())),
      judge("libnl", "what drivers say of themselves", "3.7", LIBNL_VERSION,
            fmt::format("{}.{}.{}", nl_ver_maj, nl_ver_min, nl_ver_mic)),
      judge("libsodium", "SHA-256 of policies", "1.0", SODIUM_VERSION_STRING, sodium_version_string()),
      judge("fmt", "text", "9",
            fmt::format("{}.{}.{}", FMT_VERSION / 10000, FMT_VERSION / 100 % 100, FMT_VERSION % 100),
            version_of_file(text)),
      // Headers only: what was built with is what runs.
      judge("nlohmann_json", "JSON, in and out", "3.11", json, json),
      judge("CLI11", "command lines", "2.1", CLI11_VERSION, CLI11_VERSION),
  };
}

}  // namespace agentnic::probe
