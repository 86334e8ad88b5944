#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a network does beside agentnic, and goes on doing: jumbo frames, path MTU discovery, links that go down,
# offloads, and clients that know nothing of it.
# shellcheck disable=SC2119  # arguments of attach and conserved are optional
# shellcheck source=tests/harness/net.sh
. "$(dirname "$0")/../harness/net.sh"

FAR_IP=198.19.0.2
FAR_IP6=2001:db8:1::2

# mtu BYTES: of both ends of the lab.
mtu() {
    ip -n $CLIENT link set lab0 mtu "$1"
    ip -n $SERVER link set lab0 mtu "$1"
}

RECEIVE='import socket, sys
s = socket.create_server((sys.argv[1], 9200), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
open(sys.argv[3], "w").close()
c, _ = s.accept()
with open(sys.argv[2], "wb") as f:
    while d := c.recv(65536): f.write(d)'
SEND='import socket, sys
with socket.create_connection((sys.argv[1], 9200)) as c: c.sendall(open(sys.argv[2], "rb").read())'

# transfer NAMESPACE ADDRESS BYTES: over TCP from the client to there, and it arrives as it was sent.
transfer() {
    head -c "$3" /dev/urandom >"$WORK/sent"
    rm -f "$WORK/received" "$WORK/listening"
    ip netns exec "$1" python3 -c "$RECEIVE" "$2" "$WORK/received" "$WORK/listening" &
    local receiver=$!
    until_true 10 test -e "$WORK/listening"
    ip netns exec $CLIENT timeout $((20 * ${AGENTNIC_PATIENCE:-1})) python3 -c "$SEND" "$2" "$WORK/sent"
    wait $receiver
    cmp "$WORK/sent" "$WORK/received"
}

# holds JQ: of the counters of the server's interface, or with NETNS of another's.
holds() {
    "$LOAD" stats lab0 --netns "${NETNS:-$SERVER}" --json >"$WORK/stats"
    [ "$(jq ".instances[0] | $1" "$WORK/stats")" = true ] ||
        fail "not so: $1, of $(jq -c '.instances[0] | [.in, .out] | map({by_service, by_tenant})' "$WORK/stats")"
}

# sends: from the client, what the lines of standard input say; see tests/harness/send.py.
sends() { nsenter --net=/run/netns/$CLIENT python3 "$ROOT/tests/harness/send.py"; }

test_case "jumbo: frames of several buffers pass native XDP whole, and all their bytes are counted" jumbo smoke
jumbo() {
    mtu 9000
    attach --require native >/dev/null
    # Header, IP and UDP: 42 bytes, 62 over IPv6.
    sends <<'PACKETS'
datagrams --size 8900 --count 3 198.18.0.2 9000
datagrams --size 8900 --count 3 2001:db8::2 9000
PACKETS
    holds '.in.by_service["agent-rpc"] | .packets == 6 and .bytes == 3 * 8942 + 3 * 8962'
    transfer $SERVER $SERVER_IP 4000000
    holds '.in.by_service["state-sync"] | .bytes > 4000000 and .bytes < 4400000 and .bytes / .packets > 2000'
    serve --transport udp --address $SERVER_IP --port 9000 --wait block
    ask 9000 --size 8000
    answered
    stop_serving
    conserved
}

test_case "jumbo: a frame of an xsk service that no slot of its ring holds goes to the kernel" too_long
too_long() {
    mtu 9000
    attach --require native >/dev/null
    serve --transport udp --address $SERVER_IP --port 9001 --wait block
    ask 9001 --size 4000
    answered
    # The longest that it may be is 1792 bytes: 42 of headers.
    sends <<'PACKETS'
datagrams --size 1750 198.18.0.2 9001
datagrams --size 1751 198.18.0.2 9001
PACKETS
    stop_serving
    holds '(.in.by_service.gateway.packets - .in.by_reason.pass_too_long.packets) == 1 and .in.by_reason.pass_no_socket.packets == 1 and .in.by_reason.pass_too_long.packets > 1'
    conserved
    # And with an owner: AF_XDP has the short ones, the kernel the long ones.
    serve --transport xsk --iface lab0 --wait block
    ask 9001
    answered
    sends <<<'datagrams --size 4000 --count 5 198.18.0.2 9001'
    stop_serving
    equal "$(jq .failed <<<"$served")" 0 "failed"
    holds '.in.by_reason.redirect_xsk.packets > 0'
}

# A third namespace behind the server, over a link of less than the lab carries; nobody but the server knows.
far_away() {
    ip netns add far
    ip -n $SERVER link add far0 type veth peer name far0 netns far
    ip -n $SERVER addr add 198.19.0.1/24 dev far0
    ip -n $SERVER addr add 2001:db8:1::1/64 dev far0 nodad
    ip -n far addr add $FAR_IP/24 dev far0
    ip -n far addr add $FAR_IP6/64 dev far0 nodad
    ip -n $SERVER link set far0 mtu 1300 up
    ip -n far link set far0 up
    ip -n far link set lo up
    ip -n far route add default via 198.19.0.1
    ip -n far route add default via 2001:db8:1::1
    ip -n $CLIENT route add 198.19.0.0/24 via $SERVER_IP
    ip -n $CLIENT route add 2001:db8:1::/64 via $SERVER_IP6
    ip netns exec $SERVER sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
}

test_case "path MTU: what a router says of a smaller link comes through as control, and TCP gets there whole" path_mtu
path_mtu() {
    far_away
    local mode address
    for mode in native tc; do
        "$LOAD" attach lab0 --netns $CLIENT --policy "$POLICY" --mode $mode >/dev/null
        for address in $FAR_IP $FAR_IP6; do
            try ip netns exec $CLIENT ping -n -c 1 -W 2 -M 'do' -s 1400 "$address"
            [[ "$out$err" =~ (Frag needed|too big) ]] || fail "no word of the MTU: $out $err"
        done
        NETNS=$CLIENT holds '.in.by_reason.pass_control.packets >= 2'
        ip -n $CLIENT route flush cache
        ip -n $CLIENT -6 route flush cache
        transfer far $FAR_IP 300000
        transfer far $FAR_IP6 300000
        NETNS=$CLIENT holds '.in.by_reason.pass_control.packets >= 4'
        conserved $CLIENT
        "$LOAD" detach lab0 --netns $CLIENT >/dev/null
        ip -n $CLIENT route flush cache
        ip -n $CLIENT -6 route flush cache
    done
}

# stream SERVICE OPTIONS...: what iperf3 sends, counted for this service.
stream() {
    local service=$1 before port=9200
    shift
    [ "$service" != agent-rpc ] || port=9000
    before=$(count "by_service[\"$service\"].bytes")
    : >"$WORK/iperf3"
    timeout $((20 * ${AGENTNIC_PATIENCE:-1})) ip netns exec $SERVER iperf3 -s -1 -p $port --forceflush >"$WORK/iperf3" 2>&1 &
    local server=$!
    until_true 10 grep -q 'Server listening' "$WORK/iperf3"
    try timeout $((10 * ${AGENTNIC_PATIENCE:-1})) ip netns exec $CLIENT iperf3 -p $port --json "$@"
    equal "$status" 0 "iperf3 $* ($out $err)"
    wait $server || fail "the server of iperf3 $*: $(<"$WORK/iperf3")"
    [ "$(($(count "by_service[\"$service\"].bytes") - before))" -gt "$(jq '(.end.sum_received // .end.sum).bytes * 9 / 10 | floor' <<<"$out")" ] ||
        fail "iperf3 $*: fewer bytes counted for $service than came: $(jq -c '.end.sum_received // .end.sum' <<<"$out")"
}

test_case "clients: iperf3 and sockperf run through an attached interface as they are, in every mode" clients
clients() {
    command -v iperf3 >/dev/null || skip "iperf3 is not installed"
    command -v sockperf >/dev/null || skip "sockperf is not installed"
    local mode before sent server
    for mode in native skb tc; do
        attach --mode $mode >/dev/null
        stream state-sync -4 -n 20M -c $SERVER_IP
        stream state-sync -6 -n 20M -c $SERVER_IP6
        stream agent-rpc -u -n 500K -b 20M -l 1000 -c $SERVER_IP
        stream agent-rpc -u -n 500K -b 20M -l 1000 -c $SERVER_IP6
        before=$(count 'by_service["agent-rpc"].packets')
        : >"$WORK/sockperf"
        ip netns exec $SERVER sockperf server -i $SERVER_IP -p 9000 >"$WORK/sockperf" 2>&1 &
        server=$!
        until_true 10 grep -q 'UDP' "$WORK/sockperf"
        try timeout $((10 * ${AGENTNIC_PATIENCE:-1})) ip netns exec $CLIENT sockperf ping-pong -i $SERVER_IP -p 9000 -t 1 -m 100
        kill -KILL $server # a TERM it may overhear
        wait $server 2>/dev/null || true
        equal "$status" 0 "sockperf ($out $err)"
        sent=$(grep -o 'SentMessages=[0-9]*' <<<"$out" | head -n 1 | cut -d= -f2)
        [ "$sent" -gt 0 ] || fail "no message: $out"
        [ "$(($(count 'by_service["agent-rpc"].packets') - before))" -ge "$sent" ] || fail "fewer counted than sent in mode $mode"
        conserved
        detach >/dev/null
    done
}

test_case "link: traffic goes on after it was down, and after its MTU changed and changed back" link_changes
link_changes() {
    local mode bytes
    for mode in native skb tc; do
        attach --mode $mode >/dev/null
        for bytes in 1400 9000 1500; do
            mtu $bytes
            ip -n $SERVER link set lab0 down
            ip -n $SERVER link set lab0 up
            until_true 10 ip netns exec $CLIENT ping -q -c 1 -W 1 -M 'do' -s $((bytes - 28)) $SERVER_IP >/dev/null
            equal "$(field state) $(field mode)" "attached $mode" "state with an MTU of $bytes"
            count by_reason.pass_default.bytes >"$WORK/before"
            ip netns exec $CLIENT ping -q -c 1 -W 1 -M 'do' -s $((bytes - 28)) $SERVER_IP >/dev/null
            [ "$(count by_reason.pass_default.bytes)" -ge $(($(<"$WORK/before") + bytes)) ] || fail "not counted with an MTU of $bytes"
        done
        transfer $SERVER $SERVER_IP 1000000
        conserved
        detach >/dev/null
    done
}

rx_vlan() { ip netns exec $SERVER ethtool -k lab0 | awk '$1 == "rx-vlan-offload:" { print $2 }'; }

test_case "VLAN receive offload: XDP modes turn it off and say so, detach turns it on again, TC leaves it" vlan_offload
vlan_offload() {
    equal "$(rx_vlan)" on "offload of a veth"
    local mode
    for mode in native skb; do
        attach --mode $mode >"$WORK/said"
        grep -q 'VLAN receive offload is turned off' "$WORK/said"
        equal "$(rx_vlan) $(field vlan_offload_turned_off)" "off true" "offload in mode $mode"
        "$LOAD" status | grep -q 'VLAN receive offload is off'
        attach >/dev/null
        detach >/dev/null
        equal "$(rx_vlan)" on "offload after detach in mode $mode"
    done
    attach --mode tc >"$WORK/said"
    equal "$(rx_vlan) $(field vlan_offload_turned_off)" "on false" "offload in mode tc"
    ! grep 'receive offload' "$WORK/said" || fail "mode tc has no need to turn it off"
    detach >/dev/null
    # Off before, off after.
    ip netns exec $SERVER ethtool -K lab0 rxvlan off
    attach >"$WORK/said"
    ! grep 'receive offload' "$WORK/said" || fail "it was off before"
    detach >/dev/null
    equal "$(rx_vlan)" off "offload that somebody else turned off"
}

test_case "VLAN receive offload: an attach that fails turns it on again" vlan_offload_failed
vlan_offload_failed() {
    expect_error 3 'required skb' attach --mode native --require skb
    equal "$(rx_vlan)" on "offload"
    nothing_left
}

# However far it came: detach leaves the offload as it was before.
offload_after_kill() {
    if [ $(($2 % 2)) = 0 ]; then
        attach >/dev/null || fail "attach after a kill $1"
        equal "$(rx_vlan)" off "offload after a kill $1 and an attach"
    fi
    detach >/dev/null || fail "detach after a kill $1"
    equal "$(rx_vlan)" on "offload after a kill $1 and a detach"
    equal "$(pins)" "" "pins after a kill $1"
}

test_case "kill -9: around each ioctl of an attach and of a detach, and VLAN receive offload comes back" offload_killed
offload_killed() {
    KILL_AT=ioctl at_each_step detach offload_after_kill "$LOAD" attach lab0 --netns $SERVER --policy "$POLICY"
    KILL_AT=ioctl at_each_step attach offload_after_kill "$LOAD" detach lab0 --netns $SERVER
    # What comes after the ioctl, and before the instance is whole.
    KILL_AT=bpf AGENTNIC_STRIDE=$((${AGENTNIC_STRIDE:-1} * 6)) at_each_step detach offload_after_kill "$LOAD" attach lab0 --netns $SERVER --policy "$POLICY"
}

test_case "warnings: what native XDP on a veth costs is said before, by --dry-run too, and not for TC" tso_warning
tso_warning() {
    local words='turns TSO off at its peer' mode
    attach --mode native >"$WORK/said" 2>&1
    grep -q "$words" "$WORK/said"
    # Before what it did.
    [ "$(grep -n "$words" "$WORK/said" | cut -d: -f1)" -lt "$(grep -n '^attached to' "$WORK/said" | cut -d: -f1)" ] || fail "$(<"$WORK/said")"
    detach >/dev/null
    attach --mode native --dry-run 2>&1 | grep -q "$words"
    equal "$(attach --mode native --dry-run --json 2>"$WORK/err" | jq "[.warnings[] | select(contains(\"$words\"))] | length")" 1 "warnings in JSON"
    for mode in skb tc; do
        attach --mode $mode >"$WORK/said" 2>&1
        attach --mode $mode --dry-run >>"$WORK/said" 2>&1
        equal "$(grep -c "$words" "$WORK/said")" 0 "warnings in mode $mode"
        detach >/dev/null
    done
}

main "$@"
