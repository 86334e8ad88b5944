#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Path A: TCP and UDP over kernel sockets, with workers, busy polling and bulk.
# shellcheck disable=SC2119  # arguments are optional
# shellcheck source=tests/harness/net.sh
. "$(dirname "$0")/../harness/net.sh"

# serve_tcp OPTIONS...: a TCP server on port 9100.
serve_tcp() { serve --transport tcp --port 9100 --wait block "$@"; }
ask_tcp() { ask 9100 --transport tcp "$@"; }

test_case "tcp: requests of all sizes come back whole, over both families, one at a time and many" echoes smoke
echoes() {
    local server size
    for server in $SERVER_IP $SERVER_IP6; do
        serve_tcp --address "$server"
        for size in 24 64 8192 65507; do
            SERVER_IP=$server ask_tcp --size $size
            answered
            SERVER_IP=$server ask_tcp --size $size --outstanding 16
            answered
        done
        stop_serving
        equal "$(jq -c '.workers | map(.accepted)' <<<"$served")" '[8]' "connections"
    done
}

test_case "tcp: of several workers each gets the connections that come on its CPU" workers
workers() {
    [ "$(nproc)" -ge 2 ] || skip "this takes two CPUs"
    serve_tcp --workers 2
    local cpu
    for cpu in 0 1; do # on a veth, a packet is received on the CPU that sends it
        for _ in 1 2 3; do
            FOR=0.05 ask_tcp --cpu $cpu
            answered
        done
    done
    stop_serving
    equal "$(jq -c '.workers | map(.accepted)' <<<"$served")" '[3,3]' "connections of the workers"
}

test_case "tcp: a stream is received to its last byte, and both ends tell its rate" bulk
bulk() {
    serve --transport tcp --bulk --port 9100
    try "$BENCH" run --netns $CLIENT --transport tcp --bulk --server $SERVER_IP --port 9100 --duration 0.3 --json
    equal "$status" 0 "status ($err)"
    wait $server_pid
    equal "$(tail -n 1 "$WORK/serve" | jq .bytes)" "$(jq .bytes <<<"$out")" "bytes received, and sent"
    [ "$(jq '.bytes > 0 and .gbps > 0' <<<"$out")" = true ] || fail "nothing was sent: $out"
    expect_error 2 'of --transport tcp' "$BENCH" run --server $SERVER_IP --bulk
    expect_error 1 'connect to' "$BENCH" run --netns $CLIENT --transport tcp --server $SERVER_IP --port 9199
}

test_case "udp: busy polling answers while XDP gives the device its NAPI, and needs privileges" busy_poll
busy_poll() {
    attach >/dev/null
    serve --busy-poll 100 --wait block
    ask 9000 --busy-poll 100
    answered
    stop_serving
    local nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all)
    expect_error 1 'CAP_NET_ADMIN' ip netns exec $CLIENT "${nobody[@]}" "$BENCH" run --server $SERVER_IP --busy-poll 100
}

main "$@"
