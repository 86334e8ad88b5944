// SPDX-License-Identifier: Apache-2.0
#include "policy/validate.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "policy/json_reader.hpp"
#include "policy/order.hpp"
#include "policy/parse.hpp"
#include "policy/prefix.hpp"
#include "policy/units.hpp"

namespace agentnic::policy {
namespace {

/// Who has what, by JSON pointer. A second claim is a fault.
template <typename Key>
class Claims {
 public:
  /// `what` says what is claimed; it is asked only for a fault.
  template <typename What>
  void claim(const Key& key, const std::string& place, What what) {
    const auto [owner, fresh] = owners_.try_emplace(key, place);
    if (!fresh) throw Fault{place, fmt::format("{} is taken by {}", what(), owner->second), ""};
  }

  [[nodiscard]] const std::string* owner(const Key& key) const {
    const auto found = owners_.find(key);
    return found == owners_.end() ? nullptr : &found->second;
  }

 private:
  std::map<Key, std::string> owners_;
};

template <typename Named>
void check_names(const std::vector<Named>& items, const char* list) {
  Claims<std::string> names;
  for (std::size_t i = 0; i < items.size(); ++i) {
    names.claim(items[i].name, fmt::format("/{}/{}/name", list, i),
                [&] { return fmt::format("the name {}", items[i].name); });
  }
}

/// One value of `list` belongs to one tenant; `say` makes its text.
template <typename T, typename Say>
void check_owners(const Policy& policy, const char* key, std::vector<T> Tenant::* list, Say say) {
  Claims<T> owners;
  for (std::size_t i = 0; i < policy.tenants.size(); ++i) {
    const std::vector<T>& values = policy.tenants[i].*list;
    for (std::size_t j = 0; j < values.size(); ++j) {
      owners.claim(values[j], fmt::format("/tenants/{}/{}/{}", i, key, j), [&] { return say(values[j]); });
    }
  }
}

void check_prefix_count(const Policy& policy) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < policy.tenants.size(); ++i) {
    count += policy.tenants[i].remotes.size() + policy.tenants[i].locals.size();
    if (count > kMaxPrefixes) {
      throw Fault{fmt::format("/tenants/{}", i),
                  fmt::format("more than {} prefixes, with those of the tenants before it", kMaxPrefixes),
                  ""};
    }
  }
}

/// A rate of no more than what the link carries; `what` is the word for it.
void check_rate(const Policy& policy, std::uint64_t rate, const char* what, const std::string& place) {
  if (rate == 0) return;
  if (policy.link_rate_bps == 0) {
    throw Fault{place, fmt::format("{} needs /link_rate, which is missing", what),
                R"(state what the link carries, such as "link_rate": "10Gbit")"};
  }
  if (rate > policy.link_rate_bps) {
    throw Fault{
        place,
        fmt::format("{} is more than the {} of /link_rate", rate_text(rate), rate_text(policy.link_rate_bps)),
        ""};
  }
}

/// `at` is the budget's place.
void check_budget(const Policy& policy, const Tenant& tenant, const std::string& at) {
  const Budget& budget = tenant.budget;
  const std::pair<const char*, std::uint64_t> rates[] = {
      {"minimum", budget.minimum_bps}, {"ceiling", budget.ceiling_bps}, {"bulk", budget.bulk_bps}};
  for (const auto& [key, rate] : rates)
    check_rate(policy, rate, "a rate of a budget", fmt::format("{}/{}", at, key));
  if (budget.ceiling_bps == 0) return;
  if (budget.ceiling_bps < budget.minimum_bps) {
    throw Fault{at + "/ceiling",
                fmt::format("{} is less than the {} of {}/minimum", rate_text(budget.ceiling_bps),
                            rate_text(budget.minimum_bps), at),
                ""};
  }
  if (budget.bulk_bps > budget.ceiling_bps) {
    throw Fault{at + "/bulk",
                fmt::format("{} is more than the {} of {}/ceiling", rate_text(budget.bulk_bps),
                            rate_text(budget.ceiling_bps), at),
                ""};
  }
}

void check_budgets(const Policy& policy) {
  std::uint64_t sum = 0;  // of at most 64 rates below 2^44
  for (std::size_t i = 0; i < policy.tenants.size(); ++i) {
    const std::string at = fmt::format("/tenants/{}/budget", i);
    check_budget(policy, policy.tenants[i], at);
    sum += policy.tenants[i].budget.minimum_bps;
    if (policy.tenants[i].budget.minimum_bps != 0 && sum > policy.link_rate_bps) {
      throw Fault{at + "/minimum",
                  fmt::format("with this one the minimums sum up to {}, more than the {} of /link_rate",
                              rate_text(sum), rate_text(policy.link_rate_bps)),
                  ""};
    }
  }
}

/// Where the floor of `cls` that holds for a tenant stands; `tenant` is the tenant's place.
std::string floor_place(const Tenant* tenant, const std::string& at, anic_class cls) {
  const bool own = tenant != nullptr && tenant->classes[cls].floor_percent.has_value();
  return fmt::format("{}/classes/{}/floor", own ? at : "", class_name(cls));
}

void check_floors(const Policy& policy, const Tenant* tenant, const std::string& at) {
  std::uint32_t sum = 0;
  std::vector<std::string> parts;
  for (const anic_class cls : kClasses) {
    const std::uint32_t floor = policy.terms(tenant, cls).floor_percent;
    if (floor == 0) continue;
    sum += floor;
    parts.push_back(fmt::format("{} of {}", floor, floor_place(tenant, at, cls)));
  }
  if (sum > 100) {
    throw Fault{
        at + "/classes",
        fmt::format("the floors{} sum up to {} percent: {}",
                    tenant != nullptr ? " of tenant " + tenant->name : "", sum, fmt::join(parts, ", ")),
        "at most 100"};
  }
}

/// What bulk is guaranteed must be within what it may have.
void check_bulk_floor(const Policy& policy, const Tenant& tenant, const std::string& at) {
  const Budget& budget = tenant.budget;
  const std::uint64_t rate = budget.minimum_bps * policy.terms(&tenant, ANIC_CLASS_BULK).floor_percent / 100;
  if (budget.bulk_bps != 0 && budget.bulk_bps < rate) {
    throw Fault{at + "/budget/bulk",
                fmt::format("{} is less than the {} that {} guarantees", rate_text(budget.bulk_bps),
                            rate_text(rate), floor_place(&tenant, at, ANIC_CLASS_BULK)),
                ""};
  }
}

void check_sender_count(const Policy& policy) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < policy.tenants.size(); ++i) {
    count += policy.tenants[i].cgroups.size() + policy.tenants[i].marks.size();
    if (count > ANIC_SENDERS_MAX) {
      throw Fault{fmt::format("/tenants/{}", i),
                  fmt::format("more than {} cgroups and marks up to here", ANIC_SENDERS_MAX), ""};
    }
  }
}

void check_tenants(const Policy& policy) {
  check_names(policy.tenants, "tenants");
  check_prefix_count(policy);
  check_sender_count(policy);
  check_owners(policy, "prefixes", &Tenant::remotes, prefix_text);
  check_owners(policy, "local", &Tenant::locals, prefix_text);
  check_owners(policy, "cgroups", &Tenant::cgroups,
               [](const std::string& path) { return fmt::format("the cgroup {}", path); });
  check_owners(policy, "marks", &Tenant::marks,
               [](std::uint32_t mark) { return fmt::format("the mark {}", mark); });
  check_budgets(policy);
  check_floors(policy, nullptr, "");
  for (std::size_t i = 0; i < policy.tenants.size(); ++i) {
    const std::string at = fmt::format("/tenants/{}", i);
    check_floors(policy, &policy.tenants[i], at);
    check_bulk_floor(policy, policy.tenants[i], at);
  }
}

/// One end of a port, and whose: nobody's name is that of any tenant.
using End = std::tuple<std::string, std::uint8_t, std::uint16_t, std::uint8_t>;

/// Calls `use` with each end that `port`, a Service or a ControlPort, has.
template <typename Port, typename Use>
void for_ends(const Port& port, const std::string& tenant, Use use) {
  for (const std::uint8_t role : {ANIC_ROLE_SERVER, ANIC_ROLE_CLIENT}) {
    if ((port.role & role) != 0) use(End(tenant, port.protocol, port.port, role));
  }
}

std::string end_text(const End& end) {
  return fmt::format("{} port {} ({})", protocol_name(std::get<1>(end)), std::get<2>(end),
                     role_name(std::get<3>(end)));
}

Claims<End> claim_control(const Policy& policy) {
  Claims<End> ends;
  for (const auto& [key, list] :
       {std::pair{"control", &policy.control}, {"management", &policy.management}}) {
    for (std::size_t i = 0; i < list->size(); ++i) {
      const std::string place = fmt::format("/{}/{}/port", key, i);
      for_ends((*list)[i], "",
               [&](const End& end) { ends.claim(end, place, [&] { return end_text(end); }); });
    }
  }
  return ends;
}

/// `remedy` is what helps where there are no tenants.
void check_tenant(const Policy& policy, const std::string& name, const std::string& place,
                  const char* remedy) {
  if (std::ranges::find(policy.tenants, name, &Tenant::name) != policy.tenants.end()) return;
  std::vector<std::string> names;
  for (const Tenant& tenant : policy.tenants) names.push_back(tenant.name);
  throw Fault{place, fmt::format("{} is not a tenant of /tenants", name),
              names.empty() ? remedy : fmt::format("one of: {}", fmt::join(names, ", "))};
}

void check_service_tenants(const Policy& policy) {
  for (std::size_t i = 0; i < policy.services.size(); ++i) {
    if (const std::string& name = policy.services[i].tenant; !name.empty()) {
      check_tenant(policy, name, fmt::format("/services/{}/tenant", i),
                   "without the key, the service is that of any tenant");
    }
  }
}

void check_services(const Policy& policy) {
  check_names(policy.services, "services");
  check_service_tenants(policy);
  const Claims<End> control = claim_control(policy);
  Claims<End> ends;
  for (std::size_t i = 0; i < policy.services.size(); ++i) {
    const Service& service = policy.services[i];
    const std::string place = fmt::format("/services/{}/port", i);
    for_ends(service, "", [&](const End& end) {
      if (const std::string* owner = control.owner(end)) {
        throw Fault{place, fmt::format("{} is taken by {}", end_text(end), *owner), ""};
      }
    });
    for_ends(service, service.tenant, [&](const End& end) {
      ends.claim(end, place, [&] {
        return end_text(end) + (service.tenant.empty() ? "" : fmt::format(" of tenant {}", service.tenant));
      });
    });
  }
}

/// What AF_XDP sockets receive stays on the queue that it came on.
void check_cpus(const Policy& policy) {
  for (std::size_t i = 0; i < policy.services.size(); ++i) {
    const Service& service = policy.services[i];
    if (service.path != ANIC_PATH_XSK) continue;
    const auto refuse = [&](const StatedTerms& terms, const std::string& at) {
      if (!terms.cpus || terms.cpus->empty()) return;
      throw Fault{fmt::format("{}/classes/{}/cpus", at, class_name(service.cls)),
                  fmt::format("the class has the xsk service {} of /services/{}", service.name, i),
                  "an AF_XDP socket takes packets of its own queue alone: give the service another class"};
    };
    refuse(policy.classes[service.cls], "");
    for (std::size_t j = 0; j < policy.tenants.size(); ++j) {
      if (service.tenant.empty() || service.tenant == policy.tenants[j].name)
        refuse(policy.tenants[j].classes[service.cls], fmt::format("/tenants/{}", j));
    }
  }
}

void check_dscp(const Policy& policy) {
  Claims<std::uint8_t> values;
  for (std::size_t i = 0; i < policy.dscp.size(); ++i) {
    values.claim(policy.dscp[i].value, fmt::format("/dscp/{}/value", i),
                 [&] { return fmt::format("the DSCP {}", policy.dscp[i].value); });
  }
}

/// R2: what is stated is in the range of what may be proposed, or the first change would have to leave its
/// step or the range. `tenant`: its number.
void check_weight(const Policy& policy, std::size_t tenant, anic_class cls) {
  const anic_envelope& envelope = policy.envelope;
  const std::uint16_t weight = policy.terms(&policy.tenants[tenant], cls).weight;
  if (weight >= envelope.weight_min && weight <= envelope.weight_max) return;
  const bool is_more = weight > envelope.weight_max;
  const std::string bound = is_more ? "/guardian/weight/maximum" : "/guardian/weight/minimum";
  const std::string key = fmt::format("/classes/{}/weight", class_name(cls));
  const bool is_own = policy.tenants[tenant].classes[cls].weight.has_value();
  if (!is_own && !policy.classes[cls].weight.has_value()) {
    throw Fault{bound,
                fmt::format("{} is {} than {}, the weight of {} where none is stated",
                            is_more ? envelope.weight_max : envelope.weight_min, is_more ? "less" : "more",
                            weight, class_name(cls)),
                "state " + key};
  }
  throw Fault{(is_own ? fmt::format("/tenants/{}", tenant) : "") + key,
              fmt::format("{} is {} than the {} of {}", weight, is_more ? "more" : "less",
                          is_more ? envelope.weight_max : envelope.weight_min, bound),
              "a weight that no agent may ask for cannot be tuned"};
}

void check_guardian(const Policy& policy) {
  const anic_envelope& envelope = policy.envelope;
  if (envelope.weight_max < envelope.weight_min) {
    throw Fault{"/guardian/weight/maximum",
                fmt::format("{} is less than the {} of /guardian/weight/minimum", envelope.weight_max,
                            envelope.weight_min),
                ""};
  }
  for (std::size_t i = 0; i < policy.tenants.size(); ++i) {
    for (const anic_class cls : kClasses) check_weight(policy, i, cls);
  }
  check_rate(policy, envelope.borrow_max_bps, "a rate to borrow", "/guardian/borrow/maximum");
  if (envelope.borrow_step_bps <= envelope.borrow_max_bps) return;
  const std::string place = "/guardian/borrow/step";
  if (envelope.borrow_max_bps == 0)
    throw Fault{place, "a step needs /guardian/borrow/maximum, which is missing", ""};
  throw Fault{place,
              fmt::format("{} is more than the {} of /guardian/borrow/maximum",
                          rate_text(envelope.borrow_step_bps), rate_text(envelope.borrow_max_bps)),
              ""};
}

void check_agents(const Policy& policy) {
  check_names(policy.agents, "agents");
  for (std::size_t i = 0; i < policy.agents.size(); ++i) {
    for (std::size_t j = 0; const std::string& name : policy.agents[i].tenants) {
      check_tenant(policy, name, fmt::format("/agents/{}/tenants/{}", i, j++),
                   "what is no tenant's cannot be granted to an agent");
    }
  }
}

}  // namespace

void validate(const Policy& policy) {
  check_tenants(policy);
  check_services(policy);
  check_cpus(policy);
  check_dscp(policy);
  check_guardian(policy);
  check_agents(policy);
}

}  // namespace agentnic::policy
