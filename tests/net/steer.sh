#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Steering on real packets: flows land on the CPU of their bucket, and move to another one, or to an AF_XDP socket and
# back, under load. Checked by numbers in the packets.
# shellcheck disable=SC2119  # arguments of detach are optional
# shellcheck source=tests/harness/net.sh
. "$(dirname "$0")/../harness/net.sh"
# shellcheck disable=SC2034  # of the harness
OF_ALL=alone # what they measure others would disturb

ORDER=$ROOT/tests/harness/order.py
PATIENCE=${AGENTNIC_PATIENCE:-1}
FLOWS=16
RATE=$((4000 / PATIENCE)) # datagrams a second
PORT=9100

# policy CPUS: every flow of the lab's client is spread over them.
policy() {
    POLICY=$WORK/policy.json
    echo "{\"version\": 1, \"name\": \"steer\", \"services\": [], \"classes\": {\"rpc\": {\"cpus\": [$1]}},
        \"tenants\": [{\"name\": \"a\", \"prefixes\": [\"198.18.0.1/32\"], \"default_class\": \"rpc\"}]}" >"$POLICY"
}

update() { "$LOAD" update lab0 --netns $SERVER --policy "$POLICY" >"$WORK/update"; }

# What is redirected has lost word of its checksum: the sender completes them.
whole_checksums() { ip netns exec $CLIENT ethtool -K lab0 tx off >/dev/null; }

needs_two_cpus() { [ "$(nproc)" -ge 2 ] || skip "one CPU"; }

# begin RATE: numbered datagrams on all flows, from CPU 0.
begin() {
    rm -f "$WORK/receive" "$WORK/send" # with the word "ready" of those before
    ip netns exec $SERVER python3 "$ORDER" receive --flows $FLOWS 198.18.0.1 $PORT >"$WORK/receive" &
    receive_pid=$!
    until_true 10 grep -q ready "$WORK/receive"
    ip netns exec $CLIENT python3 "$ORDER" send --flows $FLOWS --cpu 0 "$1" $SERVER_IP $PORT >"$WORK/send" &
    send_pid=$!
    until_true 10 grep -q ready "$WORK/send"
}

# finish: ends both; $sent, and of what was received $received, $late and $cpus.
finish() {
    kill -TERM "$send_pid"
    wait "$send_pid" || fail "the sender failed"
    sent=$(tail -n 1 "$WORK/send")
    sleep 0.$((2 * PATIENCE))
    kill -TERM "$receive_pid"
    wait "$receive_pid" || fail "the receiver failed"
    local said
    said=$(tail -n 1 "$WORK/receive")
    received=$(jq .received <<<"$said")
    late=$(jq .late <<<"$said")
    cpus=$(jq -c '.cpus | unique' <<<"$said")
    [ "$sent" -gt $((FLOWS * 2)) ] || fail "hardly anything was sent: $sent"
}

# cpu NUMBER FIELD: of stats.
cpu() { "$LOAD" stats lab0 --netns $SERVER --json | jq ".instances[0].cpus[] | select(.cpu == $1).$2"; }

arrived_all() { [ "$(cpu "$1" 'waiting_packets + .lost_packets')" = 0 ]; }

test_case "steer: flows land on the CPU of their bucket" lands smoke
lands() {
    needs_two_cpus
    whole_checksums
    policy 1
    attach --mode native >/dev/null
    begin "$RATE"
    sleep 0.5
    finish
    equal "$received" "$sent" "datagrams received"
    equal "$late" 0 "datagrams out of order"
    equal "$cpus" "[1]" "CPUs"
    [ "$(cpu 1 arrived_packets)" -ge "$sent" ] || fail "not all were steered: $("$LOAD" stats lab0 --netns $SERVER)"
    equal "$(count by_tenant.a.by_class.rpc.by_reason.redirect_cpu.packets)" "$(cpu 1 sent_packets)" "packets redirected"
    conserved
}

test_case "steer: after an update, flows land on both of two CPUs" lands_on_both
lands_on_both() {
    needs_two_cpus
    whole_checksums
    policy 1
    attach --mode native >/dev/null
    policy "1, 0"
    update
    grep -q 'cpus 1 -> 1 0' "$WORK/update" || fail "$(cat "$WORK/update")"
    begin "$RATE"
    sleep 0.5
    finish
    equal "$received" "$sent" "datagrams received"
    equal "$late" 0 "datagrams out of order"
    equal "$cpus" "[0,1]" "CPUs"
}

test_case "steer: flows move from CPU to CPU under load without a loss, and in order" moves
moves() {
    needs_two_cpus
    whole_checksums
    policy 1
    attach --mode native >/dev/null
    begin "$RATE"
    local spread
    for spread in "0" "1" "" "0, 1" "1, 0" "1" "" "1"; do
        sleep 0.$((PATIENCE < 10 ? PATIENCE : 9))
        policy "$spread"
        update
    done
    sleep 0.2
    finish
    equal "$received" "$sent" "datagrams received"
    [ "$late" -le "$(cpu 1 buckets_moved_early)" ] || fail "$late datagrams out of order: $("$LOAD" stats lab0 --netns $SERVER)"
    [ "$(cpu 1 buckets_moved)" -ge $FLOWS ] || fail "hardly a bucket moved: $("$LOAD" stats lab0 --netns $SERVER)"
    until_true 10 arrived_all 1
    conserved
}

test_case "steer: an upgrade under load loses nothing" upgrades
upgrades() {
    needs_two_cpus
    whole_checksums
    policy 1
    attach --mode native >/dev/null
    begin "$RATE"
    "$LOAD" upgrade lab0 --netns $SERVER >/dev/null
    "$LOAD" upgrade lab0 --netns $SERVER >/dev/null
    sleep 0.2
    finish
    equal "$received" "$sent" "datagrams received"
    equal "$cpus" "[1]" "CPUs"
}

test_case "steer: what a CPU's queue does not hold is lost, found out and counted" overflow
overflow() {
    needs_two_cpus
    [ "$PATIENCE" = 1 ] || skip "an emulated processor does not fill a queue"
    policy 1
    attach --mode native >/dev/null
    # A real-time task keeps the CPU from those who would empty its queue.
    timeout 0.8 taskset -c 1 chrt -f 50 sh -c 'while :; do :; done' &
    local hog=$!
    sleep 0.05
    ip netns exec $CLIENT python3 "$ORDER" burst --cpu 0 20000 $SERVER_IP $PORT >"$WORK/send"
    wait "$hog" || true
    until_true 10 lost_some
    equal "$(cpu 1 'sent_packets - .arrived_packets - .lost_packets')" 0 "packets that nobody knows of"
    conserved
}
lost_some() { [ "$(cpu 1 'lost_packets > 0 and .waiting_packets == 0')" = true ]; }

test_case "steer: a service moves between AF_XDP and the kernel under load without a loss" path_switch
path_switch() {
    whole_checksums
    POLICY=$WORK/policy.json
    local path on_b='{"version": 1, "name": "switch",
        "services": [{"name": "gateway", "protocol": "udp", "port": 9001, "class": "rpc", "path": "xsk"}]}'
    echo "$on_b" >"$POLICY"
    attach --mode native >/dev/null
    serve --transport xsk --iface lab0 --wait block
    local xsk_pid=$server_pid
    serve --transport udp --wait block --port 9001
    ip netns exec $CLIENT python3 "$ORDER" ask $((1000 / PATIENCE)) $SERVER_IP 9001 >"$WORK/ask" &
    local ask_pid=$! switches=0
    until_true 10 grep -q ready "$WORK/ask"
    for path in kernel xsk kernel xsk; do
        sleep 0.3
        jq ".services[0].path = \"$path\"" <<<"$on_b" >"$POLICY"
        update
        switches=$((switches + 1))
    done
    sleep 0.3
    kill -TERM "$ask_pid"
    wait "$ask_pid" || fail "the client failed"
    local said
    said=$(tail -n 1 "$WORK/ask")
    equal "$(jq .received <<<"$said")" "$(jq .sent <<<"$said")" "answers ($said)"
    # Two programs answer, each in order: only answers of one moment can change places.
    [ "$(jq .late <<<"$said")" -le $((switches * 4)) ] || fail "answers out of order beyond the moments of the switch: $said"
    [ "$(count by_service.gateway.packets)" -gt 0 ] || fail "nothing was counted"
    [ "$(count by_reason.redirect_xsk.packets)" -gt 0 ] || fail "nothing went to AF_XDP"
    [ "$(count by_reason.pass_service.packets)" -gt 0 ] || fail "nothing went to the kernel"
    kill -TERM "$xsk_pid" "$server_pid"
}

test_case "steer: where it cannot be, flows stay where they come, and that is said" says_so
says_so() {
    needs_two_cpus
    policy 1
    local mode
    for mode in skb tc; do
        attach --mode $mode >"$WORK/attach"
        grep -q 'cpus are not followed' "$WORK/attach" || fail "attach, mode $mode: $(cat "$WORK/attach")"
        [ "$(field 'notes[] | select(test("cpus are not followed"))' | wc -l)" = 1 ] || fail "status, mode $mode: $("$LOAD" status)"
        begin "$RATE"
        sleep 0.2
        finish
        equal "$received" "$sent" "datagrams received, mode $mode"
        equal "$(count by_reason.redirect_cpu.packets)" 0 "packets redirected, mode $mode"
        policy "1, 0"
        update
        grep -q 'cpus are not followed' "$WORK/update" || fail "update, mode $mode: $(cat "$WORK/update")"
        policy 1
        detach >/dev/null
    done
    "$LOAD" attach lab0 --netns $SERVER --policy "$POLICY" >"$WORK/attach"
    [ "$(field mode)" != tc ] || fail "auto took TC: $(cat "$WORK/attach")"
    [ "$(field 'notes[] | select(test("tx off"))' | wc -l)" = 1 ] || fail "on a veth: $("$LOAD" status)"
}

test_case "steer: a CPU that is not online is refused, by attach and by update" offline
offline() {
    policy 4000
    expect_error 3 'spread lane (none)/rpc over CPU 4000, which is not online; hint: CPUs online: ' attach
    equal "$(pins)" "" "pins"
    policy 0
    attach >/dev/null
    policy 4000
    expect_error 3 'CPU 4000, which is not online' update
}

test_case "steer: detach leaves no queue behind" leaves_nothing
leaves_nothing() {
    policy 0
    attach --mode native >/dev/null
    local id
    id=$(bpftool -j map show pinned "$(pins | grep cpumap)" | jq .id)
    detach >/dev/null
    until_true 10 no_map "$id"
}
no_map() { ! bpftool map show id "$1" >/dev/null 2>&1; }

main "$@"
