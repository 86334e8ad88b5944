// SPDX-License-Identifier: Apache-2.0
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <set>
#include <string_view>

#include "base/process.hpp"
#include "kern/driver.hpp"
#include "probe/features.hpp"
#include "probe/libraries.hpp"

using namespace agentnic;

TEST_CASE("libraries: versions are compared by their numbers, not as text") {
  CHECK(probe::version_at_least("1.10", "1.9"));
  CHECK(probe::version_at_least("1.4", "1.4"));
  CHECK(probe::version_at_least("9.1.0", "9"));
  CHECK(probe::version_at_least("1.0.18", "1.0"));
  CHECK(probe::version_at_least("1.4.6~bpo", "1.4.6"));
  CHECK(probe::version_at_least("2", ""));
  CHECK_FALSE(probe::version_at_least("1.3.9", "1.4"));
  CHECK_FALSE(probe::version_at_least("1", "1.1"));
  CHECK_FALSE(probe::version_at_least("", "1"));
  CHECK_FALSE(probe::version_at_least("garbage", "1"));
}

TEST_CASE("libraries: the version of a shared library is in its file's name") {
  CHECK(probe::version_in_file_name("/usr/lib/x86_64-linux-gnu/libxdp.so.1.3.0") == "1.3.0");
  CHECK(probe::version_in_file_name("libfmt.so.9.1.0") == "9.1.0");
  CHECK(probe::version_in_file_name("/usr/lib/libx.so").empty());
  CHECK(probe::version_in_file_name("").empty());
}

TEST_CASE("libraries: those that this was built with are new enough") {
  for (const auto& library : probe::list_libraries()) {
    INFO(library.name << " " << library.running << ", built with " << library.built_with);
    CHECK(library.ok.value_or(true));
    CHECK_FALSE(library.needed_by.empty());
    CHECK_FALSE(library.minimum.empty());
  }
}

TEST_CASE("driver: XDP features have the kernel's names, and a bit without one its number") {
  CHECK(kern::xdp_feature_names(0).empty());
  CHECK(kern::xdp_feature_names(kern::kXdpBasic | kern::kXdpXskZeroCopy) ==
        std::vector<std::string>{"basic", "xsk-zerocopy"});
  CHECK(kern::xdp_feature_names(std::uint64_t{1} << 6U) == std::vector<std::string>{"ndo-xmit-sg"});
  CHECK(kern::xdp_feature_names(std::uint64_t{1} << 63U) == std::vector<std::string>{"bit-63"});
}

TEST_CASE(
    "probe: every feature has an id of its own, a title, a user and a remedy; whoever asks, all are listed") {
  const auto tried = probe::try_features();
  std::set<std::string> ids;
  for (const auto& feature : tried.features) {
    INFO(feature.id);
    CHECK(ids.insert(feature.id).second);
    CHECK_FALSE(feature.title.empty());
    CHECK_FALSE(feature.needed_by.empty());
    CHECK_FALSE(feature.remedy.empty());
    CHECK_FALSE(feature.detail.empty());
  }
  CHECK(std::ranges::any_of(tried.features, [](const auto& feature) { return feature.required; }));
}

TEST_CASE("process: a copy of this process tells line by line, and its end is seen") {
  auto child = Child::start("copy", [](int out_fd) {
    constexpr std::string_view kSaid = "one\ntwo\nhalf";
    static_cast<void>(::write(out_fd, kSaid.data(), kSaid.size()) == 0);
  });
  REQUIRE(child);
  CHECK(child->read_line(5000).value() == "one");
  CHECK(child->read_line(5000).value() == "two");
  const auto late = child->read_line(5000);
  REQUIRE_FALSE(late);
  CHECK(late.error().what.find("copy: ended early") != std::string::npos);
}

TEST_CASE("process: a copy of this process that hangs is given up") {
  auto child = Child::start("copy", [](int /*out_fd*/) { ::pause(); });
  REQUIRE(child);
  const auto line = child->read_line(50);
  REQUIRE_FALSE(line);
  CHECK(line.error().what.find("no answer in time") != std::string::npos);
}
