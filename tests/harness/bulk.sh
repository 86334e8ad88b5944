# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # used by the files that source this; of net.sh
# SPDX-License-Identifier: Apache-2.0
#
# agentnic-bulk in the net tests: after net.sh. A server of $WORK/served at port 9200, and what moves there and back.
BULK=$ROOT/.build/bin/agentnic-bulk

bulk_begin() {
    mkdir -p "$WORK/served" "$WORK/files"
    rm -f "$WORK/secret"
    head -c 32 /dev/urandom | base64 >"$WORK/secret"
    chmod 0400 "$WORK/secret"
}

# make_files BYTES...: a file of random content for each, named after it.
make_files() {
    local size
    for size in "$@"; do head -c "$size" /dev/urandom >"$WORK/files/$size"; done
}

# Where a program runs: an array with the command that goes before it, by its name.
ON_SERVER=(ip netns exec "$SERVER")
ON_CLIENT=(ip netns exec "$CLIENT")
HERE=(env)

# bulk_serve WHERE ADDRESS OPTIONS...: starts the server; $bulk_pid is it.
bulk_serve() {
    local -n where=$1
    : >"$WORK/bulk"
    "${where[@]}" "$BULK" serve --root "$WORK/served" --listen "$2:9200" --secret "$WORK/secret" --json "${@:3}" >"$WORK/bulk" 2>"$WORK/bulk.err" &
    bulk_pid=$!
    until_true 10 bulk_is_ready
}
bulk_is_ready() {
    grep -q '"event":"ready"' "$WORK/bulk" && return
    kill -0 "$bulk_pid" 2>/dev/null || fail "the server failed: $(<"$WORK/bulk.err")"
    false
}
bulk_stop() {
    kill -TERM "$bulk_pid"
    wait "$bulk_pid" || fail "the server failed: $(<"$WORK/bulk.err")"
}

# bulk WHERE push|pull ARGUMENTS...: a session that is to go well; its last line is $ended.
bulk() {
    local -n where=$1
    try "${where[@]}" "$BULK" "${@:2}" --secret "$WORK/secret" --json
    equal "$status" 0 "status of $2 ($err)"
    ended=$(tail -n 1 <<<"$out")
}

same_files() { diff -r "$1" "$2" >"$WORK/diff" || fail "$2 is not $1: $(<"$WORK/diff")"; }

# part_has BYTES: so much of a file has arrived.
part_has() { [ "$(find "$WORK/served" -name '.agentnic-part*' -printf '%s\n' | head -n 1)" -ge "$1" ] 2>/dev/null; }
