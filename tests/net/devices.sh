#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The device profiles of the guests of make vmtest, and agentnic on their devices.
# shellcheck disable=SC2119  # arguments of attach and detach are optional
# shellcheck source=tests/harness/net.sh
. "$(dirname "$0")/../harness/net.sh"
# shellcheck source=tests/harness/owners.sh
. "$(dirname "$0")/../harness/owners.sh"

# device_with MAC: its name in the first namespace.
device_with() { ip -j link | jq -r ".[] | select(.address == \"$1\") | .ifname"; }
has_device() { [ -n "$(device_with "$1")" ]; }

# lab_of CLIENT-DEVICE SERVER-DEVICE: these take the place of the lab's veth, with its name and addresses.
# When the test ends, the kernel gives them back to the first namespace; hence the search by MAC address.
lab_of() {
    local device host peer addresses neighbours
    ip -n $SERVER link del lab0
    declare -A address=()
    for device in "$1" "$2"; do
        address[$device]=${DEVICE_MACS[$device]}
        until_true 10 has_device "${address[$device]}" # the kernel may still be taking it out of the last test
        ip link set "$(device_with "${address[$device]}")" down name "$device"
    done
    for device in "$1" "$2"; do
        if [ "$device" = "$1" ]; then
            host=$CLIENT peer=$2 addresses='198.18.0.1 2001:db8::1' neighbours="$SERVER_IP $SERVER_IP6"
        else
            host=$SERVER peer=$1 addresses="$SERVER_IP $SERVER_IP6" neighbours='198.18.0.1 2001:db8::1'
        fi
        ip link set "$device" netns $host name lab0
        ip netns exec $host sysctl -qw net.ipv6.conf.lab0.accept_ra=0 net.ipv6.conf.lab0.accept_dad=0 net.ipv6.conf.lab0.addr_gen_mode=1
        ip -n $host link set lab0 up
        local each
        for each in $addresses; do
            case $each in
                *:*) ip -n $host addr add "$each/64" dev lab0 nodad ;;
                *) ip -n $host addr add "$each/24" dev lab0 ;;
            esac
        done
        for each in $neighbours; do
            ip -n $host neigh replace "$each" lladdr "${address[$peer]}" dev lab0 nud permanent
        done
    done
    capture
}
# As vmtest/profiles.py gives them.
declare -A DEVICE_MACS=([virtio0]=02:00:00:00:01:01 [virtio1]=02:00:00:00:01:02 [mq0]=02:00:00:00:02:01 [mq1]=02:00:00:00:02:02)

# What the driver says of AF_XDP zero-copy: true, false, or null where the kernel has no way to say.
zero_copy() { "$LOAD" probe lab0 --netns $SERVER --json | jq '.interface.zero_copy'; }

test_case "virtio: both paths carry traffic, in copy mode" virtio_copy two-virtio
virtio_copy() {
    lab_of virtio0 virtio1
    attach --require native >/dev/null
    xsk_echoes copy --bind copy
    equal "$(jq .failed <<<"$served")" 0 "failed"
    serve --transport udp --address $SERVER_IP --port 9000 --wait block
    ask 9000
    answered
    stop_serving
    [ "$(count by_reason.redirect_xsk.packets)" -gt 0 ] || fail "none redirected"
    detach >/dev/null
    nothing_left
}

test_case "virtio: zero-copy carries traffic where the driver offers it" virtio_zero_copy two-virtio smoke
virtio_zero_copy() {
    lab_of virtio0 virtio1
    [ "$(zero_copy)" = true ] || skip "virtio_net of this kernel offers no zero-copy"
    attach --require native >/dev/null
    xsk_echoes zerocopy --bind zerocopy
    detach >/dev/null
    nothing_left
}

test_case "virtio: an unprivileged owner has zero-copy on a queue that was set aside for it, and on no other" owned_zero_copy two-virtio smoke
owned_zero_copy() {
    lab_of virtio0 virtio1
    [ "$(zero_copy)" = true ] || skip "virtio_net of this kernel offers no zero-copy"
    owner_policy $OWNER
    "$LOAD" attach lab0 --netns $SERVER --policy "$WORK/owners.json" --require native >/dev/null
    # This NIC has one queue, which nothing but the test sends to.
    start_serve
    status=0
    (as $OWNER agentnic-echo gateway --socket "$socket" --bind zerocopy) 2>"$WORK/err" || status=$?
    equal "$status" 3 "status without a queue that is set aside ($(<"$WORK/err"))"
    kill -TERM $serve_pid
    wait $serve_pid
    start_serve --zero-copy-queues 0 --steered-elsewhere
    own echo $OWNER agentnic-echo --bind zerocopy
    equal "$(head -n 1 "$WORK/echo" | jq -r '.queues[0].obtained')" zerocopy "mode obtained"
    ask 9001
    answered
    disown_it echo $owner_pid
    own echo $OWNER agentnic-echo # the kernel's own choice
    equal "$(head -n 1 "$WORK/echo" | jq -r '.queues[0].obtained')" zerocopy "mode obtained by auto"
    ask 9001
    answered
    disown_it echo $owner_pid
    kill -TERM $serve_pid
    wait $serve_pid
    detach >/dev/null
    nothing_left
}

test_case "virtio: zero-copy is refused with 3 where the driver does not offer it" virtio_no_zero_copy two-virtio
virtio_no_zero_copy() {
    lab_of virtio0 virtio1
    [ "$(zero_copy)" != true ] || skip "virtio_net of this kernel offers zero-copy"
    attach --require native >/dev/null
    expect_error 3 'zero-copy was refused' "$BENCH" serve --netns $SERVER --transport xsk --iface lab0 --bind zerocopy
}

test_case "virtio: NAPIs of a NIC are set by the policy, keep it over a reset, and get back what they had" virtio_napi two-virtio once
virtio_napi() {
    lab_of virtio0 virtio1
    jq '.napi = {defer_hard_irqs: 3, gro_flush_timeout: "200us"}' "$POLICY" >"$WORK/napi.json"
    napi() { ip netns exec $SERVER python3 "$ROOT/tests/harness/napi.py" lab0 | jq -c 'map([.defer_hard_irqs, .gro_flush_timeout_ns]) | unique'; }
    local before
    before=$(napi)
    POLICY=$WORK/napi.json try attach --mode tc
    if [ "$status" = 3 ] && [[ $err == *"this kernel does not let defer_hard_irqs of a NAPI be set"* ]]; then
        nothing_left
        skip "refused as it must be: $err"
    fi
    equal "$status" 0 "attach ($err)"
    equal "$(napi)" '[[3,200000]]' "NAPIs once attached"
    serve --transport udp --address $SERVER_IP --port 9000 --wait block
    ask 9000
    answered
    stop_serving
    ip -n $SERVER link set lab0 down
    ip -n $SERVER link set lab0 up
    equal "$(napi)" '[[3,200000]]' "NAPIs after a reset"
    equal "$(field 'notes | map(select(contains("NAPI"))) | length')" 0 "notes after a reset"
    detach >/dev/null
    equal "$(napi)" "$before" "NAPIs after detach"
    nothing_left
}

test_case "multi-queue: each queue has its own owner, and frames of many flows reach both" both_queues multi-queue smoke
both_queues() {
    lab_of mq0 mq1
    attach --require native >/dev/null
    equal "$("$LOAD" status --json | jq '.instances[0].queues')" 2 "queues"
    serve --transport xsk --iface lab0 --queue 0 --wait block
    local first=$server_pid
    "$BENCH" serve --netns $SERVER --json --transport xsk --iface lab0 --queue 1 --wait block >"$WORK/second" 2>"$WORK/second.err" &
    local second=$!
    until_true 10 grep -q ready "$WORK/second"
    # 32 flows, each from a port of its own: that all fall on one queue happens once in 2^31 times.
    ip netns exec $CLIENT python3 -c 'import select, socket, sys
flows = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(32)]
for flow in flows:
    flow.connect((sys.argv[1], 9001))
    flow.send(b"which queue?")
waiting = set(flows)
while waiting and (answered := select.select(waiting, [], [], float(sys.argv[2]))[0]):
    for flow in answered:
        assert flow.recv(64) == b"which queue?"
    waiting.difference_update(answered)
print(len(waiting))' $SERVER_IP $((10 * ${AGENTNIC_PATIENCE:-1})) >"$WORK/unanswered"
    local redirected
    redirected=$(count by_reason.redirect_xsk.packets)
    kill -TERM $first $second
    wait $first $second
    equal "$(cat "$WORK/unanswered")" 0 "flows without an answer ($redirected redirected; $(tail -qn 1 "$WORK/serve" "$WORK/second"))"
    local one two
    one=$(tail -n 1 "$WORK/serve" | jq .echoed)
    two=$(tail -n 1 "$WORK/second" | jq .echoed)
    if [ "$one" = 0 ] || [ "$two" = 0 ]; then fail "queue 0 echoed $one, queue 1 echoed $two"; fi
    [ "$redirected" -ge $((one + two)) ] || fail "echoed $one + $two, but only $redirected were redirected"
}

test_case "rdma: soft-RoCE is looped back on one device (ibv_rc_pingpong)" rdma_pingpong rdma smoke
rdma_pingpong() {
    ibv_devinfo -d rxe0 | grep -q PORT_ACTIVE
    local index pong=(ibv_rc_pingpong -d rxe0 -n 100 -g)
    index=$(rdma_gid rxe0 198.18.1.1)
    "${pong[@]}" "$index" >"$WORK/pong" &
    local server=$!
    until_true 10 listening 18515
    "${pong[@]}" "$index" 198.18.1.1 | grep -q '100 iters'
    wait $server
}
listening() { ss -Htln "sport = :$1" | grep -q .; }

# rdma_gid DEVICE IPV4: the index of the RoCEv2 GID of an address.
rdma_gid() {
    local folder=/sys/class/infiniband/$1/ports/1 entry address bytes
    IFS=. read -r -a bytes <<<"$2"
    address=$(printf '%02x%02x:%02x%02x' "${bytes[@]}")
    for entry in "$folder"/gids/*; do
        if [[ $(<"$entry") == *":ffff:$address" && $(<"$folder/gid_attrs/types/${entry##*/}") == 'RoCE v2' ]]; then
            echo "${entry##*/}"
            return
        fi
    done
    fail "$1 has no RoCEv2 GID for $2"
}

main "$@"
