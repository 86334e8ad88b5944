#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Real packets over the lab: which path they take, that they come back whole, and that they are counted.
# shellcheck disable=SC2119  # arguments of detach are optional
# shellcheck source=tests/harness/net.sh
. "$(dirname "$0")/../harness/net.sh"
# shellcheck disable=SC2034  # of the harness
OF_ALL=alone # what they measure others would disturb

test_case "traffic: the xsk service goes to AF_XDP, the kernel service to the kernel" split smoke
split() {
    attach >/dev/null
    xsk_echoes copy
    equal "$(jq .failed <<<"$served")" 0 "failed"
    serve --transport udp --address $SERVER_IP --port 9000 --wait block
    ask 9000
    answered
    stop_serving
    [ "$(count by_reason.redirect_xsk.packets)" -ge "$received" ] || fail "too few redirected"
    [ "$(count by_service.gateway.packets)" -ge "$received" ] || fail "too few counted for the service"
    [ "$(count by_reason.pass_service.packets)" -gt 0 ] || fail "none passed"
}

test_case "traffic: reasons and classes add up to the same" adds_up
adds_up() {
    attach >/dev/null
    serve --transport xsk --iface lab0 --wait block
    ask 9001
    stop_serving
    ip netns exec $CLIENT ping -q -c 3 -i 0.2 $SERVER_IP >/dev/null
    local sums
    sums=$("$LOAD" stats lab0 --netns $SERVER --json | jq -c '.instances[0].in | [([.by_reason[].packets] | add), ([.by_class[].packets] | add)]')
    equal "$(jq '.[0] == .[1] and .[0] > 0' <<<"$sums")" true "sums $sums"
}

test_case "traffic: an xsk service without an owner goes to the kernel, and is counted" no_owner
no_owner() {
    attach >/dev/null
    serve --transport udp --address $SERVER_IP --port 9001 --wait block
    ask 9001
    answered
    stop_serving
    [ "$(count by_reason.pass_no_socket.packets)" -gt 0 ] || fail "not counted"
    equal "$(count by_reason.redirect_xsk.packets)" 0 "redirected"
}

test_case "traffic: an owner killed with -9 frees its queue, and the kernel takes over" owner_killed
owner_killed() {
    attach >/dev/null
    serve --transport xsk --iface lab0 --wait block
    ask 9001
    answered
    kill -KILL "$server_pid"
    wait "$server_pid" 2>/dev/null || true
    serve --transport udp --address $SERVER_IP --port 9001 --wait block
    ask 9001
    answered
    stop_serving
    # And the queue can be owned again.
    serve --transport xsk --iface lab0 --wait block
    ask 9001
    answered
    stop_serving
}

# stalled: frames that took path A because an owner did not keep up.
stalled() { count by_reason.pass_stalled.packets; }
to_sockets() { count by_reason.redirect_xsk.packets; }
# An answer came, whether all did or not.
some_answer() {
    FOR=0.1 ask 9001
    [ "$(jq '.received > 0' <<<"$out")" = true ]
}

# at_work REFUSED: the owner has refused no more; an emulated processor may not have run it for long enough to.
at_work() { [ "$(jq .emulated <<<"$out")" = true ] || equal "$(stalled)" "$1" "frames refused by an owner at work"; }

test_case "traffic: an owner that is stopped loses its traffic to the kernel, and gets it back when it goes on" owner_stopped once
owner_stopped() {
    attach >/dev/null
    serve --transport udp --address $SERVER_IP --port 9001 --wait block
    local kernel=$server_pid
    serve --transport xsk --iface lab0 --wait block
    local owner=$server_pid before
    ask 9001
    answered
    at_work 0
    kill -STOP $owner
    until_true 10 some_answer
    ask 9001
    answered # by the kernel, all of it
    [ "$(stalled)" -gt 0 ] || fail "none was counted: $(count by_reason)"
    before=$(to_sockets)
    ask 9001
    answered
    equal "$(to_sockets)" "$before" "frames that were redirected to a stopped owner"
    kill -CONT $owner
    until_true 10 eval "some_answer && [ \$(to_sockets) -gt $before ]"
    before=$(stalled)
    ask 9001
    answered
    at_work "$before"
    conserved
    stop_serving
    equal "$(jq '.losses.rx_dropped + .losses.rx_ring_full' <<<"$served")" 0 "frames lost after the verdict"
    [ "$(jq .refused_frames <<<"$served")" -gt 0 ] || fail "the owner knows nothing of it: $served"
    server_pid=$kernel
    kill -TERM $kernel
}

test_case "traffic: an owner that was killed while it was stopped leaves its queue to the kernel, and to the next one" owner_stopped_and_killed
owner_stopped_and_killed() {
    attach >/dev/null
    serve --transport xsk --iface lab0 --wait block
    ask 9001
    answered
    kill -STOP "$server_pid"
    ask 9001
    kill -KILL "$server_pid"
    wait "$server_pid" 2>/dev/null || true
    serve --transport xsk --iface lab0 --wait block
    ask 9001
    answered
    stop_serving
    equal "$(jq .refused_frames <<<"$served")" 0 "frames refused by the next owner"
}

test_case "traffic: IPv6 comes back over both paths" ipv6
ipv6() {
    attach >/dev/null
    serve --transport xsk --iface lab0 --wait block
    SERVER_IP=$SERVER_IP6 ask 9001
    answered
    stop_serving
    equal "$(jq '.losses.bad_checksums' <<<"$served")" 0 "bad checksums"
    serve --transport udp --address :: --port 9000 --wait block
    SERVER_IP=$SERVER_IP6 ask 9000
    answered
    stop_serving
}

test_case "traffic: partial checksums, as veth makes them with offload on, are completed" partial_checksums
partial_checksums() {
    ip netns exec $CLIENT ethtool -K lab0 tx on
    attach >/dev/null
    serve --transport xsk --iface lab0 --wait block
    ask 9001 --size 333
    answered
    stop_serving
    [ "$(jq .completed_checksums <<<"$served")" -gt 0 ] || fail "none was partial: $served"
}

test_case "traffic: whole checksums, as the lab makes them, stay" whole_checksums
whole_checksums() {
    attach >/dev/null
    serve --transport xsk --iface lab0 --wait block
    ask 9001 --size 1472
    answered
    stop_serving
    equal "$(jq '.completed_checksums, .losses.bad_checksums' <<<"$served" | paste -sd ' ')" "0 0" "completed and bad"
}

test_case "traffic: AF_XDP works in skb mode too" skb_mode
skb_mode() {
    attach --mode skb >/dev/null
    serve --transport xsk --iface lab0 --wait block
    ask 9001
    answered
    stop_serving
    [ "$(count by_reason.redirect_xsk.packets)" -gt 0 ] || fail "none redirected"
}

test_case "traffic: fragments of an xsk service go to the kernel, which reassembles them" fragments
fragments() {
    attach >/dev/null
    serve --transport udp --address $SERVER_IP --port 9001 --wait block
    ask 9001 --size 4000
    answered
    stop_serving
    [ "$(count by_reason.pass_fragment.packets)" -gt 0 ] || fail "not counted"
}

test_case "traffic: ARP and neighbour discovery pass as control" control
control() {
    attach >/dev/null
    ip -n $CLIENT neigh del $SERVER_IP dev lab0
    ip -n $CLIENT neigh del $SERVER_IP6 dev lab0
    ip netns exec $CLIENT ping -q -c 1 $SERVER_IP >/dev/null
    ip netns exec $CLIENT ping -q -c 1 $SERVER_IP6 >/dev/null
    [ "$(count by_class.control.packets)" -ge 2 ] || fail "not counted as control"
}

test_case "traffic: TCP passes whole, in every mode" tcp
tcp() {
    local mode
    head -c 8000000 /dev/urandom >"$WORK/sent"
    for mode in native skb tc; do
        attach --mode $mode >/dev/null
        rm -f "$WORK/received"
        ip netns exec $SERVER python3 -c 'import socket, sys
s = socket.create_server(("198.18.0.2", 9200))
open(sys.argv[2], "w").close()
c, _ = s.accept()
with open(sys.argv[1], "wb") as f:
    while d := c.recv(65536): f.write(d)' "$WORK/received" "$WORK/listening" &
        local receiver=$!
        until_true 10 test -e "$WORK/listening"
        ip netns exec $CLIENT python3 -c 'import socket, sys
c = socket.create_connection(("198.18.0.2", 9200))
c.sendall(open(sys.argv[1], "rb").read())' "$WORK/sent"
        wait $receiver
        cmp "$WORK/sent" "$WORK/received"
        [ "$(count 'by_service["state-sync"].bytes')" -gt 8000000 ] || fail "not counted in mode $mode"
        rm "$WORK/listening"
        detach >/dev/null
    done
}

test_case "serve: zero-copy that veth has not is refused with 3" no_zero_copy
no_zero_copy() {
    attach >/dev/null
    expect_error 3 'zero-copy was refused' "$BENCH" serve --netns $SERVER --transport xsk --iface lab0 --bind zerocopy
    [[ $err == *'--bind copy'* ]] || fail "no hint: $err"
}

test_case "serve: what is in the way of an AF_XDP socket is named" serve_errors
serve_errors() {
    expect_error 1 'agentnic is not attached to it' "$BENCH" serve --netns $SERVER --transport xsk --iface lab0
    attach --mode tc >/dev/null
    expect_error 3 'attached at TC' "$BENCH" serve --netns $SERVER --transport xsk --iface lab0
    detach >/dev/null
    attach >/dev/null
    expect_error 1 'is there such a queue?' "$BENCH" serve --netns $SERVER --transport xsk --iface lab0 --queue 7
    serve --transport xsk --iface lab0 --wait block
    expect_error 1 'another AF_XDP socket owns this queue' "$BENCH" serve --netns $SERVER --transport xsk --iface lab0
    stop_serving
    expect_error 2 'needs --iface' "$BENCH" serve --netns $SERVER --transport xsk
    expect_error 2 'find interface lab9' "$BENCH" serve --netns $SERVER --transport xsk --iface lab9
    expect_error 1 'bind a UDP socket to 203.0.113.9:9000' "$BENCH" serve --netns $SERVER --address 203.0.113.9
    expect_error 2 'is not an IPv4 or IPv6 address' "$BENCH" serve --netns $SERVER --address localhost
}

test_case "run: an open loop offers its rate, and counts from the intended send" open_loop
open_loop() {
    serve --transport udp --address $SERVER_IP --port 9000 --wait block
    FOR=1 ask 9000 --loop open --rate 2000
    stop_serving
    equal "$(jq -r .latency_from <<<"$out")" "intended send" "latency from"
    # Whether it kept time depends on the machine; that it accounts for every request does not.
    equal "$(jq '.sent + .unsent + .missed' <<<"$out")" 2000 "requests of 2000 a second in a second"
    [ "$(jq .received <<<"$out")" -ge 1900 ] || fail "$(jq -c 'del(.histogram_ns)' <<<"$out")"
}

test_case "run: a rate that the generator cannot keep makes the run invalid" too_fast
too_fast() {
    serve --transport udp --address $SERVER_IP --port 9000 --wait spin
    WAIT=spin ask 9000 --loop open --rate 50000000
    stop_serving
    equal "$status" 1 "status"
    equal "$(jq .valid <<<"$out")" false "valid"
    [[ $(jq -r .invalid_because <<<"$out") == *'the generator was the limit'* ]] || fail "$(jq .invalid_because <<<"$out")"
}

test_case "run: nobody answers, and it says so" nobody_answers
nobody_answers() {
    ask 9009
    equal "$status" 1 "status"
    equal "$(jq -r .invalid_because <<<"$out")" "no answer came" "reason"
}

test_case "stats: --watch prints a JSON line each time, until Ctrl-C" watch
watch() {
    attach >/dev/null
    "$LOAD" stats --watch --interval 0.1 --json >"$WORK/watched" &
    local pid=$!
    sleep 0.7
    kill -TERM $pid
    wait $pid
    [ "$(jq -c .schema "$WORK/watched" | grep -c agentnic.stats/2)" -ge 3 ] || fail "$(<"$WORK/watched")"
}

main "$@"
