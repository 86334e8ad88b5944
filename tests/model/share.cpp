// SPDX-License-Identifier: Apache-2.0
#include "share.hpp"

#include <algorithm>
#include <span>
#include <vector>

namespace agentnic::model {
namespace {

constexpr std::int64_t kTicks = 64;  // in a nanosecond
constexpr std::uint64_t kCostUnit = 65536;
constexpr std::uint64_t kLeastRate = 8000;
constexpr std::uint64_t kBurstBytes = 73728;
constexpr std::uint64_t kHoldNs = 5'000'000;
constexpr std::int64_t kLease = 100'000 * kTicks;
constexpr std::uint64_t kLeaseMost = 65536;
constexpr std::uint64_t kHorizonNs = 200'000'000;
constexpr std::int64_t kDebt = 3'600'000'000'000 * kTicks;
constexpr std::uint64_t kPeriodNs = 10'000'000;
constexpr std::uint64_t kWantedNs = 100'000'000;
constexpr std::uint64_t kWantedBytes = 32768;
constexpr std::uint64_t kLevelUnit = 1024;
constexpr int kRounds = 16;

std::int64_t ticks(std::uint64_t ns) { return static_cast<std::int64_t>(ns) * kTicks; }

/// Of a byte, in 1/65536 of a tick.
std::uint64_t cost(std::uint64_t rate) { return std::uint64_t{8'000'000'000} * kTicks * kCostUnit / rate; }

std::int64_t price(std::uint64_t bytes, std::uint64_t rate) {
  return static_cast<std::int64_t>(bytes * cost(rate) / kCostUnit);
}

}  // namespace

/// A higher rate makes the debt shorter, but not shorter than a packet may have to wait already.
void Shares::set_rate(Bucket& bucket, std::uint64_t rate, std::uint64_t now_ns) {
  const std::int64_t debt = bucket.paid - ticks(now_ns);
  if (bucket.rate != 0 && rate != 0 && cost(rate) < cost(bucket.rate) && debt > ticks(kHorizonNs) &&
      debt <= kDebt) {
    const std::uint64_t bytes = static_cast<std::uint64_t>(debt) * kCostUnit / cost(bucket.rate);
    bucket.paid = ticks(now_ns) + std::max(price(bytes, rate), ticks(kHorizonNs));
  }
  bucket.rate = rate;
}

void Shares::install(const policy::Policy& policy, const policy::Ids& ids, std::uint64_t now_ns) {
  link_ = policy.link_rate_bps;
  for (Tenant& tenant : tenants_) tenant.weight = 0;
  for (Lane& lane : lanes_) {
    lane.weight = 0;
    lane.lease = 0;
  }
  const auto or_link = [&](std::uint64_t ceiling) { return ceiling != 0 ? std::min(ceiling, link_) : link_; };
  const auto add = [&](std::uint32_t id, const policy::Tenant* tenant) {
    const policy::Budget budget = tenant != nullptr ? tenant->budget : policy::Budget{};
    Tenant& whole = tenants_.at(id);
    whole.least = budget.minimum_bps;
    whole.most = or_link(budget.ceiling_bps);
    whole.weight = budget.weight;
    for (const anic_class cls : policy::kClasses) {
      const policy::Terms terms = policy.terms(tenant, cls);
      Lane& lane = lanes_.at(ANIC_LANE(id, static_cast<std::uint32_t>(cls)));
      lane.least = budget.minimum_bps * terms.floor_percent / 100;
      lane.most = whole.most;
      if (cls == ANIC_CLASS_BULK && budget.bulk_bps != 0) lane.most = std::min(lane.most, budget.bulk_bps);
      lane.weight = terms.weight;
    }
  };
  add(0, nullptr);
  for (const policy::Tenant& tenant : policy.tenants) add(ids.tenants.at(tenant.name), &tenant);
  share_out(now_ns);
}

/// Guarantees first; then all who want more get the same for each unit of weight, as far as they want it.
void Shares::share(std::uint64_t total, std::span<Claim> claims) {
  std::uint64_t left = total;
  std::vector<Claim*> asking;
  std::uint64_t weight = 0;
  const auto more = [](const Claim& claim) { return claim.wants - std::min(claim.wants, claim.least); };
  for (Claim& claim : claims) {
    left -= std::min(left, std::min(claim.wants, claim.least));
    if (more(claim) == 0) continue;
    asking.push_back(&claim);
    weight += claim.weight;
  }
  std::uint64_t level = 0;  // for each unit of weight
  for (int round = 0; round < kRounds && weight != 0; ++round) {
    level = left * kLevelUnit / weight;
    const auto content = std::ranges::partition(
        asking, [&](const Claim* claim) { return more(*claim) > claim->weight * level / kLevelUnit; });
    if (content.empty()) break;
    for (const Claim* claim : content) {
      left -= std::min(left, more(*claim));
      weight -= claim->weight;
    }
    asking.erase(content.begin(), content.end());
  }
  for (Claim& claim : claims) {
    claim.rate = weight != 0 ? claim.least + claim.weight * level / kLevelUnit
                             : std::max(claim.least, claim.wants + left);
    claim.rate = std::max(std::min(claim.rate, claim.most), kLeastRate);
  }
}

void Shares::share_out(std::uint64_t now_ns) {
  if (link_ == 0) {
    for (Lane& lane : lanes_) lane.bucket.rate = 0;
    for (Tenant& tenant : tenants_) tenant.bucket.rate = 0;
    return;
  }

  std::vector<Claim> tenants;
  std::vector<std::uint32_t> ids;
  for (std::uint32_t id = 0; id < ANIC_TENANTS_MAX; ++id) {
    const Tenant& tenant = tenants_.at(id);
    if (tenant.weight == 0) continue;
    Claim claim{.least = tenant.least, .most = tenant.most, .wants = 0, .weight = tenant.weight, .rate = 0};
    for (const anic_class cls : policy::kClasses) {
      Lane& lane = lanes_.at(ANIC_LANE(id, static_cast<std::uint32_t>(cls)));
      const std::uint64_t since = now_ns > lane.since_ns ? now_ns - lane.since_ns : 0;
      if (since >= kWantedNs || (since >= kPeriodNs / 2 && lane.bytes >= kWantedBytes)) {
        lane.wanted = lane.bytes * 8'000'000'000 / since;
        lane.bytes = 0;
        lane.since_ns = now_ns;
      }
      lane.hungry = lane.bucket.paid > ticks(now_ns);
      claim.wants += lane.hungry ? lane.most : std::min(lane.wanted, lane.most);
    }
    claim.wants = std::min(claim.wants, claim.most);
    tenants.push_back(claim);
    ids.push_back(id);
  }
  share(link_, tenants);

  for (std::size_t i = 0; i < ids.size(); ++i) {
    std::vector<Claim> claims;
    for (const anic_class cls : policy::kClasses) {
      const Lane& lane = lanes_.at(ANIC_LANE(ids[i], static_cast<std::uint32_t>(cls)));
      const std::uint64_t most = std::min(lane.most, tenants[i].rate);
      claims.push_back({.least = lane.least,
                        .most = most,
                        .wants = lane.hungry ? most : std::min(lane.wanted, most),
                        .weight = lane.weight,
                        .rate = 0});
    }
    share(tenants[i].rate, claims);
    for (std::size_t j = 0; j < claims.size(); ++j) {
      const auto cls = static_cast<std::uint32_t>(policy::kClasses.at(j));
      set_rate(lanes_.at(ANIC_LANE(ids[i], cls)).bucket, claims[j].rate, now_ns);
    }
    Tenant& tenant = tenants_.at(ids[i]);
    set_rate(tenant.bucket, tenant.most < link_ ? tenant.most : 0, now_ns);
  }
}

std::optional<std::uint64_t> Shares::take(Bucket& bucket, std::uint64_t bytes, std::uint64_t now_ns,
                                          std::uint64_t hold_ns, std::uint64_t patience_ns) {
  const std::int64_t now = ticks(now_ns);
  const std::int64_t full = now - std::max(ticks(hold_ns), price(kBurstBytes, bucket.rate));
  std::int64_t due = bucket.paid;
  if (due < full || due > now + kDebt) due = full;
  if (due > now + ticks(patience_ns)) return std::nullopt;
  bucket.paid = due + price(bytes, bucket.rate);
  return due > now ? static_cast<std::uint64_t>(due / kTicks) : now_ns;
}

/// All or nothing.
std::optional<std::uint64_t> Shares::take_both(std::uint32_t id, std::uint64_t bytes, std::uint64_t now_ns,
                                               std::uint64_t hold_ns, std::uint64_t patience_ns) {
  Lane& lane = lanes_.at(id);
  Bucket& whole = tenants_.at(id / ANIC_CLASS__MAX).bucket;
  const auto due = take(lane.bucket, bytes, now_ns, hold_ns, patience_ns);
  if (!due || whole.rate == 0) return due;
  const auto due_of_tenant = take(whole, bytes, now_ns, hold_ns, patience_ns);
  if (due_of_tenant) return std::max(*due, *due_of_tenant);
  lane.bucket.paid -= price(bytes, lane.bucket.rate);
  return std::nullopt;
}

bool Shares::police(std::uint32_t id, std::uint64_t wire, std::uint64_t now_ns) {
  Lane& lane = lanes_.at(id);
  if (lane.lease >= wire) {
    lane.lease -= wire;
    return true;
  }
  if (lane.bucket.rate == 0) return true;
  const std::uint64_t ahead =
      std::min<std::uint64_t>(kLease * kCostUnit / cost(lane.bucket.rate), kLeaseMost);
  const std::uint64_t bytes = wire - lane.lease + ahead;
  const bool passes = take_both(id, bytes, now_ns, kHoldNs, 0).has_value();
  lane.bytes += passes ? bytes : wire;
  if (passes) lane.lease = ahead;
  return passes;
}

std::optional<std::uint64_t> Shares::pace(std::uint32_t id, std::uint64_t wire, std::uint64_t now_ns) {
  Lane& lane = lanes_.at(id);
  if (lane.bucket.rate == 0) return 0;
  lane.bytes += wire;
  return take_both(id, wire, now_ns, 0, kHorizonNs);
}

}  // namespace agentnic::model
