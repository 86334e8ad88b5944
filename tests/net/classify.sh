#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a packet counts as: tenant, service, class and reason, by what real packets carry. docs/policy.md says
# the order; each test sends a few and expects exactly these to be counted.
# shellcheck disable=SC2119  # arguments of attach and conserved are optional
# shellcheck source=tests/harness/net.sh
. "$(dirname "$0")/../harness/net.sh"

# policy JSON: a policy of these keys, in $POLICY.
policy() {
    POLICY=$WORK/policy.json
    jq -n "{version: 1, name: \"test\", services: []} + $1" >"$POLICY"
}

# sends NAMESPACE: what the lines of standard input say; see tests/harness/send.py.
sends() { nsenter --net="/run/netns/$1" python3 "$ROOT/tests/harness/send.py"; }

# counted PATH NUMBER...: each counter of the server's interface has this value, all at the same moment. What a
# kernel reports of its multicast groups is nobody's here, and comes when it likes.
counted() {
    "$LOAD" stats lab0 --netns $SERVER --json >"$WORK/stats"
    while [ $# -gt 0 ]; do
        equal "$(jq ".instances[0].$1 // 0" "$WORK/stats")" "$2" "$1, of $(jq -c '[.instances[0] | .in, .out | .by_tenant]' "$WORK/stats")"
        shift 2
    done
}

# addresses NAMESPACE ADDRESS...: more of them on lab0.
addresses() {
    local host=$1 each
    shift
    for each in "$@"; do
        case $each in
            *:*) ip -n "$host" addr add "$each/64" dev lab0 nodad ;;
            *) ip -n "$host" addr add "$each/24" dev lab0 ;;
        esac
    done
}

TENANTS='{tenants: [
    {name: "wide", prefixes: ["198.18.0.0/16", "2001:db8::/32"], default_class: "bulk"},
    {name: "narrow", prefixes: ["198.18.0.64/26", "2001:db8::40/122"]},
    {name: "exact", prefixes: ["198.18.0.65", "2001:db8::41"], default_class: "retrieval"},
    {name: "here", local: ["198.18.0.3", "2001:db8::3"]},
    {name: "marked", marks: [7, 8], default_class: "bulk"}],
  services: [
    {name: "shared", protocol: "udp", port: 9000, class: "rpc", path: "kernel"},
    {name: "own", tenant: "narrow", protocol: "udp", port: 9000, class: "bulk", path: "kernel"},
    {name: "other", tenant: "narrow", protocol: "udp", port: 9002, class: "bulk", path: "kernel"}]}'

test_case "tenants: by remote prefix, the longest wins, over IPv4 and IPv6; a local address goes first" tenants
tenants() {
    policy "$TENANTS"
    addresses $CLIENT 198.18.0.64 198.18.0.65 2001:db8::40 2001:db8::41
    addresses $SERVER 198.18.0.3 2001:db8::3
    attach >/dev/null
    sends $CLIENT <<'PACKETS'
datagrams --source 198.18.0.1 198.18.0.2 9005
datagrams --source 2001:db8::1 2001:db8::2 9005
datagrams --source 198.18.0.64 --count 3 198.18.0.2 9005
datagrams --source 2001:db8::40 --count 3 2001:db8::2 9005
datagrams --source 198.18.0.65 --count 5 198.18.0.2 9005
datagrams --source 2001:db8::41 --count 5 2001:db8::2 9005
datagrams --source 198.18.0.65 --count 7 198.18.0.3 9005
datagrams --source 2001:db8::41 --count 7 2001:db8::3 9005
PACKETS
    counted in.by_tenant.wide.by_class.bulk.seen_packets 2 in.by_tenant.narrow.by_class.default.seen_packets 6 \
        in.by_tenant.exact.by_class.retrieval.seen_packets 10 in.by_tenant.here.by_class.default.seen_packets 14
    conserved
}

test_case "tenants: a tenant's own service goes before that of any tenant, and is nobody else's" own_service
own_service() {
    policy "$TENANTS"
    addresses $CLIENT 198.18.0.64
    attach >/dev/null
    sends $CLIENT <<'PACKETS'
datagrams 198.18.0.2 9000
datagrams --source 198.18.0.64 --count 3 198.18.0.2 9000
datagrams --count 5 198.18.0.2 9002
datagrams --source 198.18.0.64 --count 7 198.18.0.2 9002
PACKETS
    counted in.by_service.shared.packets 1 in.by_tenant.wide.by_class.rpc.seen_packets 1 \
        in.by_service.own.packets 3 in.by_service.other.packets 7 in.by_tenant.narrow.by_class.bulk.seen_packets 10 \
        in.by_reason.pass_service.packets 11 in.by_tenant.wide.by_class.bulk.by_reason.pass_default.packets 5
    conserved
}

test_case "egress: SO_MARK names the tenant, before its addresses" egress_marks
egress_marks() {
    policy "$TENANTS"
    attach >/dev/null
    sends $SERVER <<'PACKETS'
datagrams --mark 7 --count 3 198.18.0.1 9005
datagrams --mark 8 --count 3 2001:db8::1 9005
datagrams --mark 9 198.18.0.1 9005
datagrams 2001:db8::1 9005
PACKETS
    counted out.by_tenant.marked.by_class.bulk.seen_packets 6 out.by_tenant.wide.by_class.bulk.seen_packets 2 \
        in.by_tenant.marked.packets 0
    conserved
}

# within CGROUP COMMAND...: in a process of its own, which is gone when this returns.
within() { (echo 0 >"$1/cgroup.procs" && shift && "$@"); }

test_case "egress: the cgroup of who sends names the tenant, the deepest first, after the mark" egress_cgroups
egress_cgroups() {
    local root top
    root=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/self/mounts)
    if [ -z "$root" ]; then # a guest has none yet
        root=/sys/fs/cgroup
        mount -t cgroup2 none $root 2>"$WORK/mount" || skip "no cgroup2 is mounted, and none can be: $(<"$WORK/mount")"
    fi
    top=$(mktemp -d "$root/agentnic-test.XXXXXX")
    # shellcheck disable=SC2064  # now
    trap "rmdir '$top/a/deep/below' '$top/a/deep' '$top/a' '$top'; rm -rf '$WORK'" EXIT
    mkdir -p "$top/a/deep/below"
    policy "{tenants: [
        {name: \"outer\", cgroups: [\"${top##*/}\"]},
        {name: \"inner\", cgroups: [\"${top##*/}/a/deep\"], default_class: \"bulk\"},
        {name: \"marked\", marks: [7]},
        {name: \"wide\", prefixes: [\"198.18.0.0/16\", \"2001:db8::/32\"]}]}"
    attach >/dev/null
    sends $SERVER <<<'datagrams 198.18.0.1 9005'
    within "$top" sends $SERVER <<<'datagrams --count 2 198.18.0.1 9005'
    within "$top/a" sends $SERVER <<<'datagrams --count 3 2001:db8::1 9005'
    within "$top/a/deep" sends $SERVER <<<'datagrams --count 7 198.18.0.1 9005'
    within "$top/a/deep/below" sends $SERVER <<<$'datagrams --count 11 198.18.0.1 9005\ndatagrams --mark 7 --count 13 198.18.0.1 9005'
    counted out.by_tenant.wide.packets 1 out.by_tenant.outer.packets 5 out.by_tenant.inner.by_class.bulk.seen_packets 18 \
        out.by_tenant.marked.packets 13
    conserved
}

test_case "roles: server is the local port, client the remote one, both either, in both directions" roles
roles() {
    policy '{services: [
        {name: "served", protocol: "udp", port: 9300, class: "rpc", path: "kernel"},
        {name: "called", protocol: "udp", port: 9301, role: "client", class: "retrieval", path: "kernel"},
        {name: "either", protocol: "udp", port: 9302, role: "both", class: "bulk", path: "kernel"}]}'
    attach >/dev/null
    # To the ports and from them.
    sends $CLIENT <<'PACKETS'
datagrams 198.18.0.2 9300
datagrams 2001:db8::2 9301
datagrams 198.18.0.2 9302
datagrams --source-port 9300 --count 3 198.18.0.2 9005
datagrams --source-port 9301 --count 3 2001:db8::2 9005
datagrams --source-port 9302 --count 3 198.18.0.2 9005
PACKETS
    sends $SERVER <<'PACKETS'
datagrams 198.18.0.1 9300
datagrams 2001:db8::1 9301
datagrams 198.18.0.1 9302
datagrams --source-port 9300 --count 3 198.18.0.1 9005
datagrams --source-port 9301 --count 3 2001:db8::1 9005
datagrams --source-port 9302 --count 3 198.18.0.1 9005
PACKETS
    counted in.by_service.served.packets 1 in.by_service.called.packets 3 in.by_service.either.packets 4 \
        out.by_service.served.packets 3 out.by_service.called.packets 1 out.by_service.either.packets 4 \
        in.by_class.retrieval.packets 3 out.by_class.retrieval.packets 1
    conserved
}

test_case "faces: towards a workload, what comes in is from the local end" faces
faces() {
    policy '{faces: "workload", tenants: [
        {name: "outside", prefixes: ["198.18.0.2", "2001:db8::2"]},
        {name: "container", local: ["2001:db8::1"]}],
      services: [
        {name: "served", protocol: "udp", port: 9300, class: "rpc", path: "kernel"},
        {name: "called", protocol: "udp", port: 9301, role: "client", class: "bulk", path: "kernel"}]}'
    attach >/dev/null
    # The client is the workload, behind the interface lab0 of the server.
    sends $CLIENT <<'PACKETS'
datagrams --source-port 9300 198.18.0.2 9005
datagrams --count 3 198.18.0.2 9301
datagrams --count 5 2001:db8::2 9300
PACKETS
    sends $SERVER <<<'datagrams --count 7 198.18.0.1 9300'
    counted in.by_service.served.packets 1 in.by_service.called.packets 3 out.by_service.served.packets 7 \
        in.by_tenant.outside.packets 4 in.by_tenant.container.packets 5 out.by_tenant.outside.by_class.rpc.seen_packets 7
    conserved
}

test_case "DSCP: gives the class of what is no service's; else the tenant's default class" dscp
dscp() {
    policy '{dscp: [{value: 46, class: "rpc"}, {value: 8, class: "bulk"}],
      tenants: [{name: "wide", prefixes: ["198.18.0.0/16", "2001:db8::/32"], default_class: "retrieval"}],
      services: [{name: "served", protocol: "udp", port: 9000, class: "bulk", path: "kernel"}]}'
    attach >/dev/null
    ip netns exec $CLIENT ping -q -c 2 -i 0.2 -Q 0xb8 $SERVER_IP >/dev/null
    ip netns exec $CLIENT ping -q -c 2 -i 0.2 -Q 0xb8 $SERVER_IP6 >/dev/null
    ip netns exec $CLIENT ping -q -c 1 $SERVER_IP >/dev/null
    sends $CLIENT <<'PACKETS'
datagrams --tos 0x20 --count 5 198.18.0.2 9005
datagrams --tos 0x20 --count 5 2001:db8::2 9005
datagrams --tos 0xb8 --count 7 198.18.0.2 9000
PACKETS
    counted in.by_tenant.wide.by_class.rpc.by_reason.pass_dscp.packets 4 in.by_tenant.wide.by_class.bulk.by_reason.pass_dscp.packets 10 \
        in.by_tenant.wide.by_class.retrieval.by_reason.pass_default.packets 1 in.by_service.served.packets 7 \
        in.by_reason.pass_service.packets 7 out.by_tenant.wide.by_class.rpc.by_reason.pass_dscp.packets 4
    conserved
}

CONTROL='{control_alarm: 100, tenants: [{name: "wide", prefixes: ["198.18.0.0/16", "2001:db8::/32"]}],
  control: [{protocol: "udp", port: 9400}], management: [{protocol: "udp", port: 9401, role: "client"}]}'

test_case "control: ports of control and management are class control of no tenant, in both directions" control
control() {
    policy "$CONTROL"
    attach >/dev/null
    sends $CLIENT <<'PACKETS'
datagrams 198.18.0.2 9400
datagrams --count 3 --source-port 9401 2001:db8::2 9005
datagrams --count 5 198.18.0.2 9401
PACKETS
    counted 'in.by_tenant["(none)"].by_class.control.by_reason.pass_control.packets' 4 in.by_tenant.wide.packets 5 control_alarms.seconds 0
    conserved
    detach >/dev/null
    attach >/dev/null
    sends $SERVER <<'PACKETS'
datagrams --source-port 9400 198.18.0.1 9005
datagrams --count 3 2001:db8::1 9401
datagrams --count 5 198.18.0.1 9400
PACKETS
    counted 'out.by_tenant["(none)"].by_class.control.by_reason.pass_control.packets' 4 out.by_tenant.wide.packets 5
    conserved
}

test_case "control_alarm: a second with more control packets than it is counted, and all of them pass" control_alarm
control_alarm() {
    policy "$CONTROL"
    attach >/dev/null
    sends $CLIENT <<<'datagrams --count 20 198.18.0.2 9400'
    counted control_alarms.seconds 0
    sleep 1
    sends $CLIENT <<<'datagrams --count 3000 198.18.0.2 9400'
    counted in.by_reason.pass_control.packets 3020
    [ "$(jq '.instances[0].control_alarms | .seconds >= 1 and .seconds < 60 and .last_monotonic_s > 0' "$WORK/stats")" = true ] ||
        fail "$(jq -c '.instances[0].control_alarms' "$WORK/stats")"
    "$LOAD" stats lab0 --netns $SERVER | grep -q 'ALARM: control traffic was above'
}

# Frames to a service on port 9000, to nobody on 4791, and later fragments, in $WORK/frames; and the policy.
frames() {
    policy '{tenants: [{name: "wide", prefixes: ["198.18.0.0/16", "2001:db8::/32"], default_class: "retrieval"}],
      services: [{name: "served", protocol: "udp", port: 9000, role: "both", class: "rpc", path: "kernel"}]}'
    cat >"$WORK/frames" <<'FRAMES'
frames ip4 udp:9000
frames vlan:5 ip4 udp:9000
frames vlan:5 ip6 udp:9000
frames qinq:6 vlan:5 ip4 udp:9000
frames qinq:6 vlan:5 ip6 udp:9000
frames vlan:6 vlan:5 ip6 udp:9000
frames ip6 udp:9000
frames ip6 hop udp:9000
frames ip6 destination udp:9000
frames ip6 hop destination destination udp:9000
frames ip6 first udp:9000
frames qinq:6 vlan:5 ip6 hop first udp:9000
frames vlan:0 ip6 destination first destination udp:9000
frames ip6 later udp:9000
frames ip6 hop later udp:9000
frames vlan:5 ip6 hop later udp:9000
frames ip4 udp:4791
frames qinq:6 vlan:5 ip6 udp:4791
frames ip6 hop udp:4791
FRAMES
}

# frames_counted DIRECTION: all of them, as what they are.
frames_counted() {
    counted "$1.by_service.served.packets" 13 "$1.by_reason.pass_fragment.packets" 3 "$1.by_reason.pass_roce.packets" 3 \
        "$1.by_tenant.wide.by_class.bulk.by_reason.pass_roce.packets" 3 "$1.by_tenant.wide.by_class.retrieval.by_reason.pass_fragment.packets" 3
    conserved
}

test_case "frames: VLAN tags, IPv6 extension headers and fragments are seen through, and RoCEv2 is bulk" carried
carried() {
    frames
    attach --mode native >/dev/null
    sends $CLIENT <"$WORK/frames"
    frames_counted in
}

test_case "frames: they are seen through in the other modes and at egress as under native XDP" carried_elsewhere
carried_elsewhere() {
    frames
    local mode
    for mode in skb tc; do
        attach --mode $mode >/dev/null
        sends $CLIENT <"$WORK/frames"
        frames_counted in
        detach >/dev/null
    done
    attach >/dev/null
    sed 's/^frames/& --from-server/' "$WORK/frames" | sends $SERVER
    frames_counted out
}

test_case "frames: what cannot be parsed is counted as that, and the rest goes on" garbage
garbage() {
    local mode length unparsed
    {
        for length in 14 15 33 41; do echo "frames ip4 udp:9000 cut:$length"; done
        for length in 18 40 53 61; do echo "frames ip6 udp:9000 cut:$length"; done
        for length in 15 17 37; do echo "frames vlan:5 ip4 udp:9000 cut:$length"; done
        echo "frames ip6 hop udp:9000 cut:56"
        echo "frames ip6 hop hop hop hop hop hop hop udp:9000"
        echo "frames vlan:1 vlan:2 vlan:3 ip4 udp:9000"
        echo "frames hex:$(printf '00%.0s' {1..60})"
        echo "frames hex:$(printf 'ff%.0s' {1..1400})"
        echo "frames hex:44$(printf '41%.0s' {1..40})"
        echo "frames vlan:5 hex:4f$(printf '41%.0s' {1..40})"
    } >"$WORK/frames"
    for mode in native skb tc; do
        attach --mode $mode >/dev/null
        sends $CLIENT <"$WORK/frames"
        ip netns exec $CLIENT ping -q -c 1 $SERVER_IP >/dev/null
        unparsed=$(wc -l <"$WORK/frames")
        # At TC the kernel has taken one tag off already, or has dropped what ends in it.
        [ $mode != tc ] || unparsed=$((unparsed - 3))
        counted in.by_reason.pass_unparsed.packets "$unparsed"
        conserved
        detach >/dev/null
    done
}

test_case "ICMP: errors are control, in both directions, and echoes are not" icmp
icmp() {
    policy '{tenants: [{name: "wide", prefixes: ["198.18.0.0/16", "2001:db8::/32"]}]}'
    attach >/dev/null
    sends $CLIENT <<'FRAMES'
frames ip4 icmp:3
frames ip4 icmp:11
frames ip4 icmp:12
frames vlan:5 ip4 icmp:3
frames ip6 icmp:1
frames ip6 icmp:2
frames ip6 hop icmp:3
frames ip6 icmp:4
frames ip4 icmp:13
frames ip6 icmp:100
FRAMES
    counted in.by_reason.pass_control.packets 8 in.by_tenant.wide.packets 2
    # And real ones: nobody has these ports.
    sends $CLIENT <<<$'datagrams 198.18.0.2 9005\ndatagrams 2001:db8::2 9005'
    sends $SERVER <<<$'datagrams 198.18.0.1 9005\ndatagrams 2001:db8::1 9005'
    ip netns exec $CLIENT ping -q -c 1 $SERVER_IP >/dev/null
    [ "$(count_out by_reason.pass_control.packets)" -ge 2 ] || fail "errors that went out are not control"
    counted in.by_reason.pass_control.packets 10 in.by_tenant.wide.packets 5
    conserved
}

# fragmented ADDRESS: a request of three fragments to a service of path A, and its answer, came back whole.
fragmented() {
    serve --transport udp --address "$1" --port 9000 --wait block
    SERVER_IP=$1 ask 9000 --size 4000
    answered
    stop_serving
    conserved
    local direction first
    for direction in in out; do
        counted
        first=$(jq ".instances[0].$direction.by_service[\"agent-rpc\"].packets" "$WORK/stats")
        [ "$first" -gt 0 ] || fail "no first fragment was counted $direction"
        counted "$direction.by_reason.pass_fragment.packets" $((first * 2)) "$direction.by_reason.pass_service.packets" "$first"
    done
}

test_case "fragments: a service on path A reassembles them; the first counts for it, later ones as fragments" fragments
fragments() {
    local mode address
    for mode in native skb tc; do
        for address in $SERVER_IP $SERVER_IP6; do
            attach --mode $mode >/dev/null
            fragmented "$address"
            detach >/dev/null
        done
    done
}

test_case "update: flows that were there move to another tenant at once, as new ones do" update_moves
update_moves() {
    policy '{tenants: [{name: "old", prefixes: ["198.18.0.1"]}, {name: "new", prefixes: ["203.0.113.0/24"]}],
      services: [{name: "served", protocol: "udp", port: 9000, class: "rpc", path: "kernel"}]}'
    jq '.name = "second" | .tenants[0].prefixes = ["203.0.113.0/24"] | .tenants[1].prefixes = ["198.18.0.1"]' "$POLICY" >"$WORK/second.json"
    attach >/dev/null
    serve --transport udp --address $SERVER_IP --port 9000 --wait block
    FOR=6 ask 9000 &
    local load=$! old
    until_true 10 flows_of old 0
    "$LOAD" update lab0 --netns $SERVER --policy "$WORK/second.json" >/dev/null
    old=$(count by_tenant.old.packets)
    kill -0 $load 2>/dev/null || skip "the update took longer than the load ran"
    until_true 10 flows_of new 0
    sends $CLIENT <<<'datagrams --count 3 198.18.0.2 9005'
    wait $load || true
    stop_serving
    counted in.by_tenant.old.packets "$old" in.by_tenant.new.by_class.default.seen_packets 3
    [ "$(jq '.instances[0].out.by_tenant | .old.packets > 0 and .new.packets > 0' "$WORK/stats")" = true ] || fail "egress did not move"
    conserved
}
flows_of() { [ "$(count "by_tenant.$1.by_class.rpc.seen_packets // 0")" -gt "$2" ]; }

main "$@"
