// SPDX-License-Identifier: Apache-2.0
/// Fuzz target: what the audit reads that others may have written: keys, checkpoints, names, exports,
/// records. The first byte says which.

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "audit/chain_key.hpp"
#include "audit/export.hpp"
#include "audit/names.hpp"
#include "audit/note.hpp"
#include "audit/sentence.hpp"
#include "audit/sequence.hpp"
#include "text_rules.hpp"

using namespace agentnic;

namespace {

/// That of the checkpoints in the corpus.
const audit::SigningKey& corpus_key() {
  static const audit::SigningKey key =
      audit::SigningKey::parse(
          "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")
          .value();
  return key;
}

void hold_error(const Error& error) {
  hold(!has_control_characters(error.text()), "an error is one line of text", error.text());
}

void read_keys(const std::string& text) {
  if (const auto key = audit::SigningKey::parse(text)) {
    const std::string_view line =
        std::string_view(text).substr(0, text.size() - (text.ends_with('\n') ? 1 : 0));
    hold(key->text() == std::string(line) + "\n", "a signing key is written as it is read", text);
  } else {
    hold_error(key.error());
  }
  if (const auto key = audit::parse_verifier_key(text); !key) hold_error(key.error());
  if (const auto key = audit::parse_chain_key(text)) {
    hold(audit::chain_key_text(*key) == text, "a chain key is written as it is read", text);
  } else {
    hold_error(key.error());
  }
}

void read_note(const std::string& text) {
  const auto opened = audit::open_note(text, corpus_key().verifier());
  if (!opened) {
    hold(opened.error().byte <= text.size(), "a fault is inside of the text", text);
    return;
  }
  hold(audit::sign_checkpoint(opened->checkpoint, corpus_key()) == text.substr(0, opened->length),
       "a checkpoint has one form", text);
}

void read_names(const std::string& text) {
  const auto books = audit::parse_name_books(text);
  if (!books) return hold_error(books.error());
  std::string lines;
  for (const audit::NameBook& book : *books) lines += audit::name_book_line(book);
  const auto again = audit::parse_name_books(lines);
  hold(again && again->size() == books->size(), "names are read as they are written", lines);
}

void read_export(std::string_view text) {
  audit::ExportChecker checker(corpus_key().verifier());
  for (std::size_t end = 0; (end = text.find('\n')) != text.npos; text.remove_prefix(end + 1)) {
    if (const auto line = checker.add(text.substr(0, end)); !line) return hold_error(line.error());
  }
  static_cast<void>(checker.finish().has_value());
}

void read_records(const std::uint8_t* data, std::size_t size) {
  audit::Sequence sequence;
  const audit::NameBook nobody;
  for (; size >= sizeof(anic_record); data += sizeof(anic_record), size -= sizeof(anic_record)) {
    anic_record record{};
    std::memcpy(&record, data, sizeof(record));
    const std::uint64_t before = sequence.size();
    hold(sequence.add(record).has_value() == (sequence.size() == before),
         "a record is taken, or it is said why not");
    const std::string sentence = audit::sentence(record, audit::names_of(nobody, 0));
    hold(!has_control_characters(sentence), "a record is one line of text", sentence);
    hold(Json::accept(audit::record_json(record, audit::names_of(nobody, 0))
                          .dump(-1, ' ', false, Json::error_handler_t::replace)),
         "a record is JSON");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0]) {
    case 'k':
      read_keys(text);
      break;
    case 'c':
      read_note(text);
      break;
    case 'n':
      read_names(text);
      break;
    case 'e':
      read_export(text);
      break;
    case 'r':
      read_records(data + 1, size - 1);
      break;
    default:
      break;
  }
  return 0;
}
