// SPDX-License-Identifier: Apache-2.0
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstdlib>
#include <random>
#include <vector>

#include "base/file.hpp"
#include "base/histogram.hpp"
#include "base/hypervisor.hpp"
#include "base/process.hpp"
#include "base/result.hpp"
#include "kern/bpffs.hpp"

using namespace agentnic;

TEST_CASE("error: one line with the object, the reason and the hint") {
  CHECK(Error::from_errno(-EPERM, "open /x", "run as root").text() ==
        "open /x: Operation not permitted; hint: run as root");
  CHECK(Error::from_errno(EPERM, "open /x").text() == "open /x: Operation not permitted");
}

TEST_CASE("error: what the kernel does not support exits with 3, what it forbids with 1") {
  CHECK(Error::from_errno(EOPNOTSUPP, "x").exit == Exit::Unsupported);
  CHECK(Error::from_errno(-ENOSYS, "x").exit == Exit::Unsupported);
  CHECK(Error::from_errno(EPERM, "x").exit == Exit::Failed);
}

TEST_CASE("result: ANIC_TRY hands on the value or the error") {
  const auto half = [](int value) -> Result<int> {
    if (value % 2 != 0) return fail(Exit::BadInput, "odd");
    return value / 2;
  };
  const auto quarter = [&](int value) -> Result<int> { return ANIC_TRY(half(ANIC_TRY(half(value)))); };
  CHECK(quarter(12).value() == 3);
  CHECK(quarter(6).error().what == "odd");
}

TEST_CASE("histogram: a value comes back within 0.05 %, whatever its size") {
  for (std::uint64_t value = 1; value < (std::uint64_t{1} << 40U); value = value * 9 / 8 + 1) {
    Histogram histogram;
    histogram.record(value);
    const auto buckets = histogram.buckets();
    REQUIRE(buckets.size() == 1);
    const double error = std::abs(static_cast<double>(buckets[0].first) - static_cast<double>(value)) /
                         static_cast<double>(value);
    INFO(value << " came back as " << buckets[0].first);
    CHECK(error <= 0.0005);
  }
}

TEST_CASE("histogram: percentiles agree with a sorted list") {
  std::mt19937_64 random(7);
  std::lognormal_distribution<double> latency(9, 1);
  Histogram histogram;
  std::vector<std::uint64_t> values;
  for (int i = 0; i < 50000; ++i) {
    values.push_back(static_cast<std::uint64_t>(latency(random)));
    histogram.record(values.back());
  }
  std::ranges::sort(values);
  for (const double fraction : {0.5, 0.9, 0.99, 0.999}) {
    const auto exact = static_cast<double>(values[static_cast<std::size_t>(std::ceil(fraction * 50000)) - 1]);
    const auto found = histogram.percentile(fraction);
    REQUIRE(found);
    INFO(fraction << ": " << *found << " for " << exact);
    CHECK(std::abs(static_cast<double>(*found) - exact) <= exact * 0.001 + 1);
  }
}

TEST_CASE("histogram: a percentile without ten samples beyond it is not given") {
  Histogram histogram;
  for (int i = 0; i < 999; ++i) histogram.record(5);
  CHECK(histogram.percentile(0.5) == 5);
  CHECK_FALSE(histogram.percentile(0.99));
  histogram.record(5);
  CHECK(histogram.percentile(0.99) == 5);
  CHECK_FALSE(histogram.percentile(0.999));
  CHECK_FALSE(Histogram().percentile(0.5));
}

TEST_CASE("histogram: buckets rebuild it, merging adds, too large values are counted as clipped") {
  Histogram one;
  for (std::uint64_t value : {3ULL, 5000ULL, 5000ULL, 123456789ULL}) one.record(value);
  Histogram copy;
  for (const auto& [value, count] : one.buckets()) copy.add(value, count);
  CHECK(copy.buckets() == one.buckets());
  copy.merge(one);
  CHECK(copy.count() == 8);
  CHECK(one.clipped() == 0);
  one.record(UINT64_MAX);
  CHECK(one.clipped() == 1);
  CHECK(one.max() == UINT64_MAX);
  one.clear();
  CHECK(one.count() == 0);
  CHECK(one.buckets().empty());
}

TEST_CASE("pins: names with dots and percent signs are escaped, and come back") {
  CHECK(kern::escape_ifname("eth0.100") == "eth0%2e100");
  CHECK(kern::escape_ifname("a%2eb") == "a%252eb");
  for (const char* name : {"eth0", "eth0.100", "a%2eb", "..%", "%", "%2"})
    CHECK(kern::unescape_ifname(kern::escape_ifname(name)) == name);
}

TEST_CASE("file: writing replaces the whole file or nothing") {
  char folder[] = "/tmp/agentnic-unit-XXXXXX";
  REQUIRE(::mkdtemp(folder) != nullptr);
  const std::string path = std::string(folder) + "/x";
  CHECK(write_file(path, "one"));
  CHECK(write_file(path, "two"));
  CHECK(read_file(path, 100).value() == "two");
  CHECK_FALSE(read_file(path, 2));
  CHECK_FALSE(write_file(std::string(folder) + "/no/x", "three"));
  ::unlink(path.c_str());
  CHECK(::rmdir(folder) == 0);
}

TEST_CASE("process: output, errors and exit status come back") {
  CHECK(run_program({"printf", "%s", "a b"}).value() == "a b");
  const auto failed = run_program({"ls", "/nonexistent"});
  REQUIRE_FALSE(failed);
  CHECK(failed.error().what.find("/nonexistent") != std::string::npos);
  const auto missing = run_program({"no-such-program-here"});
  REQUIRE_FALSE(missing);
  CHECK(missing.error().what.find("no such program") != std::string::npos);
}

TEST_CASE("process: a child that does not end in time is killed") {
  const auto late = run_program({"sleep", "30"}, 50);
  REQUIRE_FALSE(late);
  CHECK(late.error().what.find("no answer in time") != std::string::npos);
}

TEST_CASE("hypervisor: its name is printable, and only QEMU's emulation of a processor counts as emulated") {
  const std::string name = hypervisor();
  CHECK(name.size() <= 12);
  CHECK(std::ranges::all_of(name, [](char c) { return c >= ' ' && c <= '~'; }));
  CHECK(emulated() == (name == "TCGTCGTCGTCG"));
}
