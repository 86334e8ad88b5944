// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "policy/difference_lines.hpp"

namespace agentnic::policy {
namespace {

void compare_envelopes(const anic_envelope& was, const anic_envelope& is, Lines& lines) {
  Fields fields;
  const auto duration = [&](std::string_view name, __u64 anic_envelope::* member) {
    fields.compare(name, duration_or_none(was.*member), duration_or_none(is.*member));
  };
  const auto rate = [&](std::string_view name, __u64 anic_envelope::* member) {
    fields.compare(name, rate_or_none(was.*member), rate_or_none(is.*member));
  };
  const auto number = [&](std::string_view name, __u32 anic_envelope::* member) {
    fields.compare(name, was.*member, is.*member);
  };
  duration("tick", &anic_envelope::tick_ns);
  duration("heartbeat", &anic_envelope::heartbeat_ns);
  duration("time_limit", &anic_envelope::duration_ns);
  duration("oscillation window", &anic_envelope::oscillation_ns);
  number("oscillation flips", &anic_envelope::flips);
  duration("instability window", &anic_envelope::instability_ns);
  number("instability count", &anic_envelope::instabilities);
  duration("cool_down", &anic_envelope::cool_down_ns);
  number("rejections", &anic_envelope::rejections);
  duration("slo interval", &anic_envelope::slo_interval_ns);
  number("slo over", &anic_envelope::slo_percent);
  number("slo samples", &anic_envelope::slo_samples);
  fields.compare("slo protect", was.protects != 0 ? "true" : "false", is.protects != 0 ? "true" : "false");
  number("weight minimum", &anic_envelope::weight_min);
  number("weight maximum", &anic_envelope::weight_max);
  number("weight step", &anic_envelope::weight_step);
  number("throttle_step", &anic_envelope::throttle_percent);
  rate("borrow maximum", &anic_envelope::borrow_max_bps);
  rate("borrow step", &anic_envelope::borrow_step_bps);
  number("changes tenant", &anic_envelope::changes_of_tenant);
  number("changes total", &anic_envelope::changes);
  number("actions", &anic_envelope::actions);
  if (!fields.empty()) lines.push_back("guardian: " + fields.text());
}

/// In an order that does not depend on ids: who has another id is still granted the same.
std::string list_text(Lines words) {
  std::ranges::sort(words);
  return words.empty() ? "none" : fmt::format("{}", fmt::join(words, " "));
}

void compare_grants(const GrantWords& was, const GrantWords& is, Fields& fields) {
  fields.compare("tenants", list_text(was.tenants), list_text(is.tenants));
  fields.compare("kinds", list_text(was.kinds), list_text(is.kinds));
  fields.compare("classes", list_text(was.classes), list_text(is.classes));
  fields.compare("paths", list_text(was.paths), list_text(is.paths));
}

void compare_agents(const Tables& before, const Tables& after, Lines& lines) {
  const auto& old_rows = before.guarding.agents;
  const auto& new_rows = after.guarding.agents;
  Group group("agents");
  merge(ids_of(old_rows), ids_of(new_rows),
        [&](const std::string& name, const std::size_t* old, const std::size_t* now) {
          const std::string what = "agent " + name;
          if (old == nullptr) return group.added(what);
          if (now == nullptr) return group.removed(what);
          Fields fields;
          fields.compare("id", *old, *now);
          compare_grants(words_of(old_rows[*old].grants, before), words_of(new_rows[*now].grants, after),
                         fields);
          if (!fields.empty()) group.changed(what, fields.text());
        });
  group.append_to(lines);
}

}  // namespace

void compare_guarding(const Tables& before, const Tables& after, Lines& lines) {
  compare_envelopes(before.guarding.envelope, after.guarding.envelope, lines);
  compare_agents(before, after, lines);
}

}  // namespace agentnic::policy
