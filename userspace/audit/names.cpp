// SPDX-License-Identifier: Apache-2.0
#include "audit/names.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "audit/log.hpp"
#include "base/file.hpp"

namespace agentnic::audit {
namespace {

constexpr std::uint32_t kIdMost = 65'535;
constexpr std::size_t kFileMost = std::size_t{1} << 26U;

Json to_json(const std::map<std::uint32_t, std::string>& names) {
  Json json = Json::object();
  for (const auto& [id, name] : names) json[fmt::format("{}", id)] = name;
  return json;
}

bool read_names(const Json& line, const char* key, std::map<std::uint32_t, std::string>& names) {
  const auto found = line.find(key);
  if (found == line.end() || !found->is_object()) return false;
  for (const auto& [text, name] : found->items()) {
    std::uint32_t id = 0;
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), id);
    if (code != std::errc() || end != text.data() + text.size() || id > kIdMost || !name.is_string())
      return false;
    names[id] = name.get<std::string>();
  }
  return true;
}

std::function<std::string(std::uint32_t)> lookup(const std::map<std::uint32_t, std::string>& names) {
  return [names](std::uint32_t id) {
    const auto found = names.find(id);
    return found == names.end() ? std::string() : found->second;
  };
}

}  // namespace

std::string name_book_line(const NameBook& book) {
  const Json line = {{"index", book.first},
                     {"tenants", to_json(book.tenants)},
                     {"services", to_json(book.services)},
                     {"agents", to_json(book.agents)}};
  return line.dump(-1, ' ', true, Json::error_handler_t::replace) + "\n";
}

Result<std::vector<NameBook>> parse_name_books(std::string_view text) {
  std::vector<NameBook> books;
  for (std::size_t end = 0; (end = text.find('\n')) != text.npos; text.remove_prefix(end + 1)) {
    const Json line = Json::parse(text.substr(0, end), nullptr, false);
    NameBook book;
    const bool good = line.is_object() && line.contains("index") && line["index"].is_number_unsigned() &&
                      read_names(line, "tenants", book.tenants) &&
                      read_names(line, "services", book.services) && read_names(line, "agents", book.agents);
    if (!good) return fail(Exit::BadInput, fmt::format("line {} of the names is not one", books.size() + 1));
    book.first = line["index"].get<std::uint64_t>();
    books.push_back(std::move(book));
  }
  return books;
}

Result<std::vector<NameBook>> read_name_books(const std::string& dir) {
  return parse_name_books(read_file(part_path(dir, kNamesPart), kFileMost).value_or(""));
}

const NameBook& book_of(const std::vector<NameBook>& books, std::uint64_t index) {
  static const NameBook empty;
  const auto after =
      std::ranges::find_if(books, [index](const NameBook& book) { return book.first > index; });
  return after == books.begin() ? empty : *(after - 1);
}

Names names_of(const NameBook& book, std::int64_t wall_ahead_ns) {
  return {.tenant = lookup(book.tenants),
          .service = lookup(book.services),
          .agent = lookup(book.agents),
          .wall_ahead_ns = wall_ahead_ns};
}

}  // namespace agentnic::audit
