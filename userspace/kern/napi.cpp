// SPDX-License-Identifier: Apache-2.0
#include "kern/napi.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <span>
#include <utility>

#include "kern/driver.hpp"
#include "kern/hook.hpp"
#include "kern/pinned_record.hpp"

namespace agentnic::kern {
namespace {

constexpr const char* kNapiPin = "anic_napi";

using Notes = std::vector<std::string>;
using Record = std::unique_ptr<anic_napi_record>;

class PinnedStore final : public NapiStore {
 public:
  explicit PinnedStore(const PinDir& dir) : record_(dir, kNapiPin, "the record of NAPI settings") {}

  Status write(const anic_napi_record& record) override { return record_.write(record); }
  Status clear() override { return record_.clear(); }

 private:
  PinnedRecord record_;
};

/// Nothing: there is none.
Result<Record> read_record(const PinDir& dir) { return read_pinned<anic_napi_record>(dir, kNapiPin); }

policy::Napi stated_in(const anic_napi_record& record) {
  policy::Napi stated;
  for (const anic_napi_setting setting : policy::kNapiSettings) {
    if ((record.set >> setting & 1U) != 0) stated[setting] = record.after[setting];
  }
  return stated;
}

void state(const policy::Napi& wanted, anic_napi_record& record) {
  record.set = 0;
  for (const anic_napi_setting setting : policy::kNapiSettings) {
    if (wanted[setting]) record.set |= 1U << setting;
    record.after[setting] = wanted[setting].value_or(0);
  }
}

std::span<const anic_napi> napis_of(const anic_napi_record& record) {
  return std::span(record.napis).first(std::min<std::size_t>(record.count, ANIC_NAPIS_MAX));
}

const anic_napi* find_napi(std::span<const anic_napi> napis, std::uint32_t id) {
  const auto found = std::ranges::find(napis, id, &anic_napi::id);
  return found == napis.end() ? nullptr : &*found;
}

/// What one that came since had before. Some drivers make them anew when the link is set up, and the kernel
/// keeps some settings (Linux 6.18: the timeout of suspension) and not others: what has our value has it from
/// one that was there, and those had this before.
std::uint64_t inherited(const anic_napi_record& record, std::span<const anic_napi> known,
                        anic_napi_setting setting, std::uint64_t value) {
  const bool is_ours = (record.set >> setting & 1U) != 0 && value == record.after[setting];
  return is_ours && !known.empty() ? known.front().before[setting] : value;
}

/// Those of somebody else's changes that are of one setting, in one note.
class Changes final {
 public:
  void add(std::uint32_t id, anic_napi_setting setting, std::uint64_t value) {
    if (counts_[setting]++ == 0) {
      firsts_[setting] = fmt::format("NAPI {}, {}", id, policy::napi_value_text(setting, value));
    }
  }

  /// `rest` ends the sentence.
  void append_to(Notes& notes, const std::string& ifname, const char* rest) const {
    for (const anic_napi_setting setting : policy::kNapiSettings) {
      if (counts_[setting] == 0) continue;
      const std::string others =
          counts_[setting] == 1 ? "" : fmt::format(" and {} more", counts_[setting] - 1);
      notes.push_back(fmt::format("{} of {} ({}{}) was changed by somebody else{}",
                                  policy::napi_name(setting), ifname, firsts_[setting], others, rest));
    }
  }

 private:
  std::array<unsigned, ANIC_NAPI__MAX> counts_{};
  std::array<std::string, ANIC_NAPI__MAX> firsts_;
};

/// The record becomes that of the NAPIs that are there; those that it did not know are returned.
Result<std::vector<std::uint32_t>> take_stock(const std::vector<NapiThere>& there, const policy::Napi& wanted,
                                              const std::string& ifname, anic_napi_record& record) {
  if (there.size() > ANIC_NAPIS_MAX) {
    return fail(Exit::Unsupported, fmt::format("set the NAPIs of {}: there are {}, more than {}", ifname,
                                               there.size(), ANIC_NAPIS_MAX));
  }
  const std::vector<anic_napi> known(napis_of(record).begin(), napis_of(record).end());
  std::vector<std::uint32_t> fresh;
  record.count = 0;
  for (const NapiThere& napi : there) {
    anic_napi& row = record.napis[record.count++];
    if (const anic_napi* before = find_napi(known, napi.id)) {
      row = *before;
      continue;
    }
    fresh.push_back(napi.id);
    row = {.id = napi.id, ._pad = 0, .before = {}};
    for (const anic_napi_setting setting : policy::kNapiSettings) {
      if (wanted[setting] && !napi.settings[setting]) {
        return fail(Exit::Unsupported, fmt::format("set the NAPIs of {}: this kernel does not say their {}",
                                                   ifname, policy::napi_name(setting)));
      }
      row.before[setting] = inherited(record, known, setting, napi.settings[setting].value_or(0));
    }
  }
  state(wanted, record);
  return fresh;
}

/// Sets these, and looks whether they have it then.
Status make_changes(NapiDevice& device, const std::vector<std::uint32_t>& ids, const policy::Napi& wanted,
                    const std::string& ifname) {
  for (const std::uint32_t id : ids) ANIC_TRY(device.set(id, wanted));
  for (const NapiThere& napi : ANIC_TRY(device.read())) {
    if (std::ranges::find(ids, napi.id) == ids.end()) continue;
    for (const anic_napi_setting setting : policy::kNapiSettings) {
      if (!wanted[setting] || wanted[setting] == napi.settings[setting]) continue;
      return fail(Exit::Unsupported, fmt::format("NAPI {} of {} does not keep the {} that it took", napi.id,
                                                 ifname, policy::napi_name(setting)));
    }
  }
  return {};
}

/// What of a NAPI goes back to what it was; what is somebody else's goes to `changes`.
policy::Napi what_goes_back(const anic_napi_record& record, const NapiThere& now, Changes& changes) {
  policy::Napi back;
  const auto known = napis_of(record);
  const anic_napi* ours = find_napi(known, now.id);
  for (const anic_napi_setting setting : policy::kNapiSettings) {
    const auto value = now.settings[setting];
    if ((record.set >> setting & 1U) == 0 || !value) continue;
    const std::uint64_t before =
        ours != nullptr ? ours->before[setting] : inherited(record, known, setting, *value);
    if (*value == before) continue;
    if (*value == record.after[setting]) {
      back[setting] = before;
    } else {
      changes.add(now.id, setting, *value);
    }
  }
  return back;
}

/// Why there is none to set.
Error no_napi(const Interface& interface, anic_mode mode) {
  const std::string what = fmt::format("set the NAPIs of {}: ", interface.name);
  const auto driver = ask_driver(interface);
  if (driver && driver->link == "down") {
    return {Exit::Failed, what + "it is down, and has none",
            fmt::format("ip link set dev {} up", interface.name)};
  }
  return {Exit::Unsupported,
          fmt::format("{}it has none (driver {}, mode {})", what, interface.driver, mode_name(mode)),
          interface.driver == "veth" ? "a veth has them with --mode native" : ""};
}

/// Inside the namespace.
Result<Notes> change_napi(const NetNs& netns, const PinDir& dir, const Interface& interface, anic_mode mode,
                          const policy::Napi& wanted) {
  PinnedStore store(dir);
  const auto device = open_napi_device(interface.ifindex);
  Record record = ANIC_TRY(read_record(dir));
  const bool is_set = record && record->done != 0 && stated_in(*record) == wanted;
  if (!is_set && !policy::is_empty(wanted) && ANIC_TRY(device->read()).empty())
    return fail(no_napi(interface, mode));
  Notes notes;
  policy::Napi before;
  if (record && !is_set) {
    if (record->done != 0) before = stated_in(*record);
    notes = ANIC_TRY(undo_napi(*device, store, *record, interface.name));
    record.reset();
  }
  if (policy::is_empty(wanted)) return notes;
  const auto begin = [&] {
    record = std::make_unique<anic_napi_record>();
    record->netns_cookie = netns.cookie();
    record->ifindex = interface.ifindex;
  };
  if (!record) begin();
  auto applied = apply_napi(*device, store, *record, wanted, interface.name);
  if (!applied) {
    if (!policy::is_empty(before)) {
      begin();  // the error that led here is the one to tell
      static_cast<void>(apply_napi(*device, store, *record, before, interface.name).has_value());
    }
    return applied;
  }
  notes.insert(notes.end(), applied->begin(), applied->end());
  return notes;
}

}  // namespace

Result<Notes> apply_napi(NapiDevice& device, NapiStore& store, anic_napi_record& record,
                         const policy::Napi& wanted, const std::string& ifname) {
  const bool is_first = record.done == 0;
  const auto fresh = ANIC_TRY(take_stock(ANIC_TRY(device.read()), wanted, ifname, record));
  if (!is_first && fresh.empty()) return Notes();
  record.done = 0;
  Status done = store.write(record);
  if (done) done = make_changes(device, fresh, wanted, ifname);
  if (done) {
    record.done = 1;
    done = store.write(record);
  }
  if (done) {
    if (is_first) return Notes();
    return Notes{fmt::format("NAPIs of {} that came since were set: {}", ifname, fresh.size())};
  }
  Error error = done.error();
  if (error.exit == Exit::BadInput) error.exit = Exit::Failed;  // it went away meanwhile
  if (!is_first) {  // what was in force stays so; attaching again sets what came since
    record.done = 1;
    static_cast<void>(store.write(record).has_value());
    return fail(std::move(error));
  }
  if (const auto undone = undo_napi(device, store, record, ifname); !undone) {
    error.what += fmt::format("; and it is not undone: {}", undone.error().what);
    error.hint = fmt::format("agentnic-load detach {} undoes it", ifname);
  }
  return fail(std::move(error));
}

Result<Notes> undo_napi(NapiDevice& device, NapiStore& store, const anic_napi_record& record,
                        const std::string& ifname) {
  Changes changes;
  Status first;
  for (const NapiThere& now : ANIC_TRY(device.read())) {
    const policy::Napi back = what_goes_back(record, now, changes);
    if (policy::is_empty(back)) continue;
    const Status done = device.set(now.id, back);
    if (!done && done.error().exit != Exit::BadInput && first) first = done;
  }
  ANIC_TRY(std::move(first));
  ANIC_TRY(store.clear());
  Notes notes;
  changes.append_to(notes, ifname, ", and is left");
  return notes;
}

Result<Notes> set_napi_locked(const NetNs& netns, const PinDir& dir, const Interface& interface,
                              anic_mode mode, const policy::Napi& wanted) {
  if (policy::is_empty(wanted) && !has_napi_record(dir)) return Notes();
  return netns.run([&] { return change_napi(netns, dir, interface, mode, wanted); });
}

Result<Notes> restore_napi_locked(const PinDir& dir) {
  const Record record = ANIC_TRY(read_record(dir));
  if (!record) return Notes();
  PinnedStore store(dir);
  const auto forget = [&]() -> Result<Notes> {
    ANIC_TRY(store.clear());
    return Notes{
        fmt::format("{} is not there any more: settings of its NAPIs were not put back", dir.ifname)};
  };
  return undo_inside(dir, record->netns_cookie, record->ifindex,
                     fmt::format("restore the NAPIs of {}", dir.ifname), forget,
                     [&](const std::string& ifname) {
                       const auto device = open_napi_device(record->ifindex);
                       return undo_napi(*device, store, *record, ifname);
                     });
}

bool has_napi_record(const PinDir& dir) { return ::access(dir.pin(kNapiPin).c_str(), F_OK) == 0; }

Result<policy::Napi> napi_in_force(const PinDir& dir) {
  const Record record = ANIC_TRY(read_record(dir));
  return record && record->done != 0 ? stated_in(*record) : policy::Napi();
}

Result<NapiState> read_napi(const PinDir& dir) {
  NapiState found;
  const Record record = ANIC_TRY(read_record(dir));
  if (!record || record->done == 0) return found;
  found.wanted = stated_in(*record);
  const auto netns = NetNs::find(dir.netns_inode, record->netns_cookie);
  if (!netns) return found;
  found.napis = ANIC_TRY(netns->run([&] { return open_napi_device(record->ifindex)->read(); }));
  Changes changes;
  unsigned fresh = 0;
  for (const NapiThere& napi : found.napis) {
    if (find_napi(napis_of(*record), napi.id) == nullptr) {
      ++fresh;
      continue;
    }
    for (const anic_napi_setting setting : policy::kNapiSettings) {
      const auto value = napi.settings[setting];
      if (found.wanted[setting] && value && value != found.wanted[setting])
        changes.add(napi.id, setting, *value);
    }
  }
  changes.append_to(found.notes, dir.ifname, "");
  if (fresh != 0) {
    found.notes.push_back(
        fmt::format("NAPIs of {} that came since the others were set: {}; agentnic-load attach, with the "
                    "same policy, sets them too",
                    dir.ifname, fresh));
  }
  return found;
}

}  // namespace agentnic::kern
