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

# part_has BYTES [FOLDER]: so much of a file has arrived.
part_has() { [ "$(find "${2:-$WORK/served}" -name '.agentnic-part*' -printf '%s\n' | head -n 1)" -ge "$1" ] 2>/dev/null; }

# killed_and_resumed WHERE_SERVER WHERE_CLIENT ADDRESS RATE BYTES "SERVE OPTIONS" PUSH_OPTIONS...: of a push of the one file in
# $WORK/files the client, then the server is killed when so much has arrived; the next push goes on from there.
killed_and_resumed() {
    local -n clients=$2
    local whom pusher on=$1 address=$3 rate=$4 bytes=$5 name
    local -a serve
    read -ra serve <<<"$6"
    name=$(ls "$WORK/files")
    bulk_push=("${clients[@]}" "$BULK" push "$address:9200" "$WORK/files" --secret "$WORK/secret" --json "${@:7}")
    bulk_serve "$on" "$address" "${serve[@]}"
    for whom in client server; do
        rm -rf "$WORK/served/files"
        "${bulk_push[@]}" --rate "$rate" >"$WORK/push" 2>"$WORK/push.err" &
        pusher=$!
        until_true 20 part_has "$bytes"
        if [ $whom = client ]; then
            kill -KILL $pusher
            wait $pusher || true
        else
            kill -KILL "$bulk_pid"
            wait "$bulk_pid" || true
            wait $pusher && fail "push says that all is well"
            grep -q 'the connection is gone' "$WORK/push.err" || fail "push did not say why: $(<"$WORK/push.err")"
            bulk_serve "$on" "$address" "${serve[@]}"
        fi
        [ ! -e "$WORK/served/files/$name" ] || fail "half a file is in its place"
        until_true 20 bulk_pushes_on "$bytes"
        same_files "$WORK/files" "$WORK/served/files"
        equal "$(find "$WORK/served" -name '.agentnic-part*')" "" "parts left"
    done
    bulk_stop
}
# The server of a client that was killed may still have the part.
bulk_pushes_on() {
    try "${bulk_push[@]}"
    [ "$status" = 0 ] && [ "$(jq -s "map(select(.event == \"file\"))[0].resumed_bytes >= $1" <<<"$out")" = true ]
}
