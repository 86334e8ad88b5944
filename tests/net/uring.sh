#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Path A over io_uring: an echo server for many connections, and streams received with and without copies.
# shellcheck disable=SC2119  # arguments are optional
# shellcheck source=tests/harness/net.sh
. "$(dirname "$0")/../harness/net.sh"

# receive OPTIONS...: a receiver of streams on port 9100; $mode is what it obtained.
receive() {
    serve --bulk --port 9100 "$@"
    mode=$(head -n 1 "$WORK/serve" | jq -r .obtained)
}

# send ADDRESS BYTES CONNECTIONS: ("": that of IPv4) sends random content, and waits until the receiver has all of it.
send() {
    try "$BENCH" run --netns $CLIENT --transport tcp --bulk --server "${1:-$SERVER_IP}" --port 9100 \
        --bytes "$2" --connections "$3" --json
    equal "$status" 0 "status of the sender ($err)"
    sent=$out
    wait "$server_pid" || fail "the receiver failed: $(<"$WORK/serve.err")"
    received=$(tail -n 1 "$WORK/serve")
}

# The receiver has each stream as it was sent, byte for byte.
same_streams() {
    local what='.streams | map("\(.bytes) \(.sha256)") | sort | join(", ")'
    equal "$(jq -r "$what" <<<"$received")" "$(jq -r "$what" <<<"$sent")" "streams received"
}

no_connections() { [ -z "$(ip netns exec $SERVER ss -Htn sport = :9100)" ]; }

test_case "uring: requests of all sizes come back whole, over both families, on one connection and on many" echoes smoke
echoes() {
    local server size
    for server in $SERVER_IP $SERVER_IP6; do
        serve --transport uring --port 9100 --wait block --address "$server"
        for size in 24 8192 65507; do
            SERVER_IP=$server ask 9100 --transport tcp --size $size
            answered
            SERVER_IP=$server ask 9100 --transport tcp --size $size --connections 32 --outstanding 32
            answered
        done
        until_true 5 no_connections
        stop_serving
        equal "$(jq -c '.workers | map([.accepted, .ended + .reset])' <<<"$served")" '[[99,99]]' "connections"
    done
    expect_error 2 'one each' "$BENCH" run --server $SERVER_IP --transport tcp --connections 2 --outstanding 3
}

test_case "uring: workers that share a port get what comes on their CPUs, and busy polling is theirs or refused" workers
workers() {
    [ "$(nproc)" -ge 2 ] || skip "this takes two CPUs"
    attach >/dev/null # which gives the veth a NAPI
    local polls=(--busy-poll 50)
    if [ "$("$LOAD" probe --json | jq '.features[] | select(.id == "uring_busy_poll").available')" = false ]; then
        expect_error 3 'busy polling by io_uring' "$BENCH" serve --netns $SERVER --transport uring --port 9100 --wait block --busy-poll 50
        polls=()
    fi
    serve --transport uring --port 9100 --wait block --workers 2 "${polls[@]}"
    local cpu
    for cpu in 0 1; do
        FOR=0.05 ask 9100 --transport tcp --cpu $cpu
        answered
    done
    stop_serving
    equal "$(jq -c '.workers | map(.accepted)' <<<"$served")" '[1,1]' "connections of the workers"
}

test_case "uring: several streams are received by their content" streams smoke
streams() {
    receive --transport uring --streams 3
    equal "$mode" "io_uring, multishot receive" "mode"
    send "" 8000003 3
    same_streams
    equal "$(jq .bytes <<<"$received")" 8000003 "bytes"
}

test_case "zcrx: streams are received by their content without a device, or else by multishot receive, which says so" zcrx smoke
zcrx() {
    receive --transport zcrx --streams 4 --address $SERVER_IP6
    send $SERVER_IP6 24000001 4
    same_streams
    case $mode in
        *'without a device')
            # More than the area holds: what was given back was taken again.
            [ "$(jq '.zero_copy.flushes > 0 and .zero_copy.chunks > 4096' <<<"$received")" = true ] ||
                fail "nothing was given back: $received"
            ;;
        'io_uring, multishot receive')
            [[ $(<"$WORK/serve.err") == *'this kernel cannot'* ]] || fail "it did not say so: $(<"$WORK/serve.err")"
            equal "$(jq 'has("why")' <<<"$received")" true "why"
            [ "$(printf '7.3\n%s\n' "$(uname -r)" | sort -V | tail -n 1)" = 7.3 ] || fail "$(uname -r) has it"
            ;;
        *) fail "mode $mode" ;;
    esac
}

test_case "zcrx: a gibibyte on several connections is received by its content" gibibyte
gibibyte() {
    receive --transport zcrx --streams 8
    send "" 1073741824 8
    same_streams
    equal "$(jq .bytes <<<"$received")" 1073741824 "bytes"
}

test_case "zcrx: of a device that lacks what it takes, all of that is named, and nothing is changed or received in another way" refused smoke
refused() {
    expect_error 3 'has no header/data split' \
        "$BENCH" serve --netns $SERVER --transport zcrx --iface lab0 --queue 1 --port 9100
    [[ $err == *'takes no flow rules'* ]] || fail "it did not name flow rules: $err"
    expect_error 2 'nowhere' "$BENCH" serve --netns $SERVER --transport zcrx --iface nowhere
    expect_error 2 '--bulk is of' "$BENCH" serve --netns $SERVER --transport xsk --bulk
}

test_case "uring: a stream that has no end is waited for, and a stop ends that with an error" stopped
stopped() {
    receive --transport uring --streams 2
    try "$BENCH" run --netns $CLIENT --transport tcp --bulk --server $SERVER_IP --port 9100 --bytes 1000 --json
    equal "$status" 0 "status ($err)"
    kill -TERM $server_pid
    local status=0
    wait $server_pid || status=$?
    equal "$status" 1 "status"
    [[ $(<"$WORK/serve.err") == *'stopped after 1 of 2 streams'* ]] || fail "it said: $(<"$WORK/serve.err")"
}

main "$@"
