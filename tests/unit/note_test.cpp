// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch_test_macros.hpp>

#include <string>

#include "audit/chain_key.hpp"
#include "audit/note.hpp"
#include "log_maker.hpp"

using namespace agentnic;
using audit::NoteFault;

namespace {

audit::Checkpoint some_checkpoint() {
  audit::Checkpoint checkpoint{.size = 70'000, .root = {}, .previous = audit::Hash{}};
  checkpoint.root[3] = 7;
  return checkpoint;
}

}  // namespace

TEST_CASE("note: keys are written as they are read") {
  const audit::SigningKey key = audit::SigningKey::make(kOrigin).value();
  const audit::SigningKey again = audit::SigningKey::parse(key.text()).value();
  CHECK(again.text() == key.text());
  CHECK(again.verifier().key == key.verifier().key);
  const audit::VerifierKey verifier =
      audit::parse_verifier_key(audit::verifier_key_text(key.verifier())).value();
  CHECK(verifier.origin == kOrigin);
  CHECK(verifier.key == key.verifier().key);
}

TEST_CASE("note: a key of Go's package is read, and its signature checked") {
  // The example of golang.org/x/mod/sumdb/note.
  const auto key = audit::SigningKey::parse(
      "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz");
  REQUIRE(key);
  CHECK(audit::verifier_key_text(key->verifier()) ==
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW\n");
  const std::string text =
      "If you think cryptography is the answer to your problem,\n"
      "then you don't know what your problem is.\n";
  const auto signature = key->sign(text);
  std::string bytes = "\xc7\x4f\x20\xa3";
  bytes.append(reinterpret_cast<const char*>(signature.data()), signature.size());
  CHECK(audit::base64({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()}) ==
        "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=");
}

TEST_CASE("note: what is no key is bad input") {
  const audit::SigningKey key = audit::SigningKey::make(kOrigin).value();
  const std::string secret = key.text();
  const std::string open = audit::verifier_key_text(key.verifier());
  for (const std::string& text :
       {std::string(), std::string("+"), std::string("a+b"), open, secret.substr(0, 40)})
    CHECK(audit::SigningKey::parse(text).error().exit == Exit::BadInput);
  CHECK(audit::parse_verifier_key(secret).error().what.find("the secret one") != std::string::npos);
  for (std::size_t i = 0; i < open.size(); ++i) {
    std::string other = open;
    other[i] = other[i] == 'x' ? 'y' : 'x';
    if (other == open) continue;
    const auto parsed = audit::parse_verifier_key(other);
    if (i + 1 < open.size()) CHECK(!parsed);  // its end alone is not in the hash
  }
}

TEST_CASE("note: a checkpoint is opened by its key alone") {
  const audit::SigningKey key = audit::SigningKey::make(kOrigin).value();
  const std::string note = audit::sign_checkpoint(some_checkpoint(), key);
  const auto opened = audit::open_note(note + "and more", key.verifier());
  REQUIRE(opened);
  CHECK(opened->length == note.size());
  CHECK(opened->checkpoint.size == 70'000);
  CHECK(opened->checkpoint.root == some_checkpoint().root);
  CHECK(opened->checkpoint.previous == some_checkpoint().previous);
  const audit::SigningKey other = audit::SigningKey::make(kOrigin).value();
  CHECK(audit::open_note(note, other.verifier()).error().kind == NoteFault::Kind::OtherKey);
  const audit::SigningKey elsewhere = audit::SigningKey::make("elsewhere").value();
  CHECK(audit::open_note(note, elsewhere.verifier()).error().kind == NoteFault::Kind::OtherKey);
}

TEST_CASE("note: no bit of a checkpoint can be changed, and none of its bytes left out") {
  const audit::SigningKey key = audit::SigningKey::make(kOrigin).value();
  const std::string note = audit::sign_checkpoint(some_checkpoint(), key);
  for (std::size_t bit = 0; bit < note.size() * 8; ++bit) {
    std::string other = note;
    other[bit / 8] = static_cast<char>(other[bit / 8] ^ (1 << (bit % 8)));
    INFO("bit " << bit);
    CHECK(!audit::open_note(other, key.verifier()));
  }
  for (std::size_t byte = 0; byte < note.size(); ++byte) {
    std::string other = note;
    other.erase(byte, 1);
    CHECK(!audit::open_note(other, key.verifier()));
    CHECK(audit::open_note(note.substr(0, byte), key.verifier()).error().kind == NoteFault::Kind::Incomplete);
  }
}

TEST_CASE("chain key: it is read as it is written, and goes forward alone") {
  const audit::ChainKey first = audit::make_chain_key().value();
  const audit::ChainKey read = audit::parse_chain_key(audit::chain_key_text(first)).value();
  CHECK(read.secret == first.secret);
  CHECK(read.number == 1);
  CHECK(first.of(3)->secret == first.next().next().secret);
  CHECK(first.of(1)->first() == first.first());
  CHECK(first.next().first() != first.first());
  CHECK(!first.next().of(1));
  for (const char* text :
       {"", "agentnic-chain-key/1\n", "agentnic-chain-key/1\n0\n00\n", "agentnic-chain-key/2\n1\n"})
    CHECK(audit::parse_chain_key(text).error().exit == Exit::BadInput);
  CHECK(!audit::parse_chain_key(audit::chain_key_text(first) + "\n"));
}
