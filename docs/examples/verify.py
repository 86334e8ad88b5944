#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Check an audit log of agentnic, or an export of it, without agentnic.

    verify.py log DIR PUBLIC_KEY_FILE         is the log in DIR whole and unchanged?
    verify.py export FILE PUBLIC_KEY_FILE     has a tenant's export all that it says it has?
    verify.py split DIR PUBLIC_KEY_FILE OUT   the last checkpoint, in pieces for openssl:
        openssl pkeyutl -verify -pubin -inkey key.pem -rawin -in body -sigfile signature

Written from the page on the audit log alone. Python has no Ed25519: openssl (3.0 or later), if there is one, checks
the signature of an export's checkpoint, and of a log's last one, which has the hashes of those before. MACs are
not checked: that takes the chain's key. Exit: 0 valid, 1 broken, 2 not used like this, 5 cannot tell.
"""
import base64, hashlib, json, os, re, shutil, struct, subprocess, sys, tempfile
from collections import namedtuple

SEGMENT, LEVEL = 65536, 16              # records in a file; the level in the tree of the root over them
RECORD, HASH = 160, 32                  # bytes
ATTACH, COMMIT, DETACH, EXPORT = 1, 2, 11, 13
HEAD = struct.Struct("<QQ28xBxB")       # number in the chain, number in the tenant's part, tenant, kind
NOTE = re.compile(rb"(([^\n]+)\n(0|[1-9][0-9]{0,18})\n([A-Za-z0-9+/]{43}=)\n(?:previous ([A-Za-z0-9+/]{43}=)\n)?)"
                  rb"\n\xe2\x80\x94 ([^\n]+) ([A-Za-z0-9+/]{91}=)\n")
Key = namedtuple("Key", "origin hash public")
Note = namedtuple("Note", "size root previous body signature whole")

class Broken(Exception):
    """Something is wrong, and where."""

class CannotTell(Exception):
    """Nothing is wrong, but something could be missing."""

def read(*path):
    with open(os.path.join(*path), "rb") as file:
        return file.read()

def sha256(data):
    return hashlib.sha256(data).digest()

def unbase64(text, where):
    """Decode base64 in its one spelling: no spaces, no stray bits."""
    text = text.encode() if isinstance(text, str) else text
    data = base64.b64decode(text)
    if base64.b64encode(data) != text:
        raise Broken(f"{where}: another spelling of base64")
    return data

# Keys and checkpoints

def read_key(path):
    origin, digits, encoded = read(path).removesuffix(b"\n").split(b"+", 2)     # base64 may have a '+' of its own
    key = unbase64(encoded, path)
    if len(key) != 33 or key[0] != 1 or sha256(origin + b"\n" + key)[:4].hex().encode() != digits:
        raise Broken(f"{path}: not the public key of a log")
    return Key(origin, bytes.fromhex(digits.decode()), key[1:])

def read_note(data, at, key, where):
    match = NOTE.match(data, at)
    if not match:
        raise Broken(f"{where}: truncation or changed: not a whole checkpoint")
    body, origin, size, root, previous, signer, signature = match.groups()
    signature = unbase64(signature, where)
    if not origin == signer == key.origin or signature[:4] != key.hash:
        raise Broken(f"{where}: wrong key: signed by another, or of another log")
    return Note(int(size), unbase64(root, where), previous and unbase64(previous, where), body, signature[4:], match[0])

def read_checkpoints(folder, key):
    data, notes, at = read(folder, "checkpoints"), [], 0
    while at < len(data):
        where = f"checkpoint {len(notes) + 1} (checkpoints, byte {at})"
        note = read_note(data, at, key, where)
        if note.previous != (sha256(notes[-1].whole) if notes else None):
            raise Broken(f"{where}: removed checkpoint: it does not follow on the one before")
        if notes and note.size <= notes[-1].size:
            raise Broken(f"{where}: it has no more records than the one before")
        notes.append(note)
        at += len(note.whole)
    return notes

def split(note, key, out):
    """Write the three files that openssl takes."""
    der = bytes.fromhex("302a300506032b6570032100") + key.public
    pem = b"-----BEGIN PUBLIC KEY-----\n" + base64.b64encode(der) + b"\n-----END PUBLIC KEY-----\n"
    for name, data in ("body", note.body), ("signature", note.signature), ("key.pem", pem):
        with open(os.path.join(out, name), "wb") as file:
            file.write(data)

def check_signature(note, key, where):
    openssl = shutil.which("openssl")
    if not openssl:
        print("no openssl here: signatures were not checked", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        split(note, key, folder)
        run = subprocess.run([openssl, *"pkeyutl -verify -pubin -inkey key.pem -rawin -in body -sigfile signature".split()],
                             cwd=folder, stdin=subprocess.DEVNULL, capture_output=True)
    if run.returncode:
        said = (run.stdout + run.stderr).decode(errors="replace").partition("\n")[0]
        raise Broken(f"{where}: changed: the signature is not right (openssl: {said})")

# The tree of RFC 6962

def leaf(record):
    return sha256(b"\0" + record)

def node(left, right):
    return sha256(b"\1" + left + right)

class Tree:
    """The roots of the full subtrees, the largest first: all that it takes to add leaves."""

    def __init__(self):
        self.size, self.nodes, self.segment = 0, [], b""

    def add(self, value):
        left, level = self.size, 0
        while left & 1:
            value, left, level = node(self.nodes.pop(), value), left >> 1, level + 1
            if level == LEVEL:
                self.segment = value                    # the root over the segment that is now full
        self.nodes.append(value)
        self.size += 1

    def root(self):
        value = self.nodes[-1] if self.nodes else sha256(b"")
        for left in self.nodes[-2::-1]:
            value = node(left, value)
        return value

def root_by_path(value, index, size, path):
    """The root to which an audit path leads from a leaf; None if the path is too long or too short."""
    last = size - 1
    for at in range(0, len(path), HASH):
        if not last:
            return None
        if index & 1 or index == last:
            value = node(path[at:at + HASH], value)
            while index and not index & 1:              # the last one has no sibling on this level
                index, last = index >> 1, last >> 1
        else:
            value = node(value, path[at:at + HASH])
        index, last = index >> 1, last >> 1
    return None if last else value

# The log

class Numbers:
    """Numbers in a chain, and in each tenant's part of it."""

    def __init__(self):
        self.last, self.parts = 0, {}                   # last is 0 where only a new chain can follow

    def check(self, number, of_tenant, tenant, kind, where):
        if number == 1 and kind == ATTACH:
            self.parts = {}                             # the chain before may have been cut off
        elif not self.last or number != self.last + 1:
            raise Broken(f"{where}: gap or replay: number {number} in its chain, after {self.last}")
        expected = 1 if tenant and kind == COMMIT and of_tenant == 1 else 0
        if tenant in self.parts:
            expected = self.parts[tenant] + 1
        if of_tenant != expected:
            raise Broken(f"{where}: gap or replay: number {of_tenant} of tenant {tenant}, not {expected}")
        self.last = number
        if expected:
            self.parts[tenant] = expected
        if kind == DETACH and tenant:
            self.parts.pop(tenant, None)
        elif kind == DETACH:
            self.last = 0
            if self.parts:
                raise Broken(f"{where}: gap: the chain ends before the part of tenant {min(self.parts)}")

def check_log(folder, key):
    notes = read_checkpoints(folder, key)               # before the records: the log may be growing
    signed = notes[-1].size if notes else 0
    if notes:
        check_signature(notes[-1], key, f"checkpoint {len(notes)}")
    numbers, tree, ahead = Numbers(), Tree(), list(enumerate(notes, 1))[::-1]

    def check_root():
        if ahead and ahead[-1][1].size == tree.size:
            i, note = ahead.pop()
            if note.root != tree.root():
                raise Broken(f"re-sealing: the first {tree.size} records agree with their hashes, not with checkpoint {i}")

    check_root()
    names = sorted(os.listdir(os.path.join(folder, "records")))
    for segment, name in enumerate(names):
        if name != f"{segment:08}":
            raise Broken(f"gap: records/{name}, and no records/{segment:08}")
        hashes, records = read(folder, "hashes", name), read(folder, "records", name)
        count = min(len(records) // RECORD, SEGMENT)
        for i in range(count):
            where = f"record {tree.size} (records/{name}, byte {i * RECORD})"
            record = records[i * RECORD:(i + 1) * RECORD]
            value, kept = leaf(record), hashes[i * HASH:(i + 1) * HASH]
            if kept != value and (kept or tree.size < signed):      # what is not signed may still be written
                raise Broken(f"{where}: changed: it, or its hash (hashes/{name}, byte {i * HASH})")
            numbers.check(*HEAD.unpack_from(record), where)
            tree.add(value)
            check_root()
        last, over = segment == len(names) - 1, hashes[SEGMENT * HASH:]
        if len(records) != count * RECORD or not last and count != SEGMENT:
            raise Broken(f"record {tree.size} (records/{name}, byte {count * RECORD}): truncation: it is not whole")
        if count == SEGMENT and over != tree.segment and (over or not last):
            raise Broken(f"hashes/{name}, byte {SEGMENT * HASH}: changed: the root over the segment")
    if tree.size < signed:
        raise Broken(f"truncation: there are {tree.size} records, and {signed} are signed for")
    if tree.size and not notes:
        raise CannotTell(f"{tree.size} records under no checkpoint")
    return f"valid: {tree.size} records, {signed} of them under {len(notes)} checkpoints"

# An export

def check_export(path, key):
    with open(path, "rb") as lines:
        first = json.loads(next(lines, b"{}"))
        if first.get("schema") != "agentnic.export/1":
            raise Broken(f"{path}: not an export")
        tenant, data = first["tenant"], first["checkpoint"].encode()
        note = read_note(data, 0, key, f"{path}, line 1")
        if note.whole != data:
            raise Broken(f"{path}, line 1: changed: more than a checkpoint")
        check_signature(note, key, f"{path}, line 1")

        count, before, part, complete, unsure = 0, -1, None, False, None
        for count, line in enumerate(lines, 1):
            where = f"{path}, line {count + 1}"
            try:
                index, record, hashes = map(json.loads(line).__getitem__, ("index", "record", "path"))
                where += f" (record {index:d})"
            except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
                raise Broken(f"{where}: not a record") from None
            record, hashes = unbase64(record, where), unbase64(hashes, where)
            if type(index) is not int or not before < index < note.size or len(record) != RECORD or len(hashes) % HASH:
                raise Broken(f"{where}: not a record, or not in the order of the log")
            if root_by_path(leaf(record), index, note.size, hashes) != note.root:
                raise Broken(f"{where}: changed: its path does not lead to the checkpoint")
            number, of_tenant, identity, kind = HEAD.unpack_from(record)
            if of_tenant == 1:
                if kind != COMMIT or not identity or record[88:128].split(b"\0")[0] != tenant.encode():
                    raise Broken(f"{where}: no part of this tenant begins like that")
                if part and not complete:
                    unsure = unsure or f"the part before line {count + 1} has neither its end nor an export as the last"
            elif not part or (of_tenant - 1, identity, number - index) != part:     # one chain: both go up together
                raise Broken(f"{where}: gap: number {of_tenant} of its part does not follow on the record before")
            before, complete = index, kind in (DETACH, EXPORT)
            part = None if kind == DETACH else (of_tenant, identity, number - index)
    if unsure or not complete:
        raise CannotTell(unsure or "the last records could have been left out: neither an end nor an export is the last")
    return f"valid: {count} records of tenant {tenant if tenant.isprintable() else ascii(tenant)}"

def main(command="", *args):
    if (command, len(args)) not in (("log", 2), ("export", 2), ("split", 3)):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        key = read_key(args[1])
        if command == "split":
            os.makedirs(args[2], exist_ok=True)
            split(read_checkpoints(args[0], key)[-1], key, args[2])
        else:
            print(check_log(args[0], key) if command == "log" else check_export(args[0], key))
        return 0
    except CannotTell as what:
        print(f"cannot tell: {what}")
        return 5
    except Broken as what:
        print(what)
    except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as what:
        print(f"not in the form that it should have: {what!r}")
    return 1

if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
