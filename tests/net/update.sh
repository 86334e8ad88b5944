#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What changes under a running instance: its policy, by update, and its programs, by upgrade.
# shellcheck disable=SC2119  # arguments of attach, detach and conserved are optional
# shellcheck source=tests/harness/net.sh
. "$(dirname "$0")/../harness/net.sh"

# policy NAME CLASS: first-light under another name, with the service agent-rpc in this class.
policy() { jq --arg name "$1" --arg class "$2" '.name = $name | .services[0].class = $class' "$POLICY" >"$WORK/$1.json"; }

update() { "$LOAD" update lab0 --netns $SERVER --policy "$@"; }

# A few packets to the service agent-rpc.
talk() {
    serve --transport udp --address $SERVER_IP --port 9000 --wait block
    ask 9000
    answered
    stop_serving
}

test_case "update: the new policy is in force, counters are kept, and the difference is told" updates once
updates() {
    policy second bulk
    attach >/dev/null
    talk
    local before
    before=$(count 'by_service["agent-rpc"].packets')
    [ "$before" -gt 0 ] || fail "nothing was counted"
    equal "$(count by_class.bulk.packets)" 0 "packets of class bulk"
    update "$WORK/second.json" >"$WORK/said"
    grep -q 'updated lab0 in netns agentnic-server: generation 1 -> 2, policy second' "$WORK/said"
    grep -q 'service agent-rpc: class rpc -> bulk' "$WORK/said"
    equal "$(field policy.name) $(field generation)" "second 2" "policy and generation"
    equal "$(count 'by_service["agent-rpc"].packets')" "$before" "what was counted before"
    talk
    [ "$(count by_class.bulk.packets)" -gt 0 ] || fail "the new class is not in force for flows that were there before"
    [ "$(count 'by_service["agent-rpc"].packets')" -gt "$before" ] || fail "the service lost its id"
    conserved
}

test_case "update: the same policy changes nothing, --dry-run neither" changes_nothing
changes_nothing() {
    policy second bulk
    attach >/dev/null
    update "$POLICY" | grep -q 'has this policy already'
    update "$WORK/second.json" --dry-run | grep -q 'would update lab0 in netns agentnic-server: generation 1 -> 2'
    equal "$(update "$WORK/second.json" --dry-run --json | jq -c '[.schema, .dry_run, .already, .generation]')" '["agentnic.update/1",true,false,2]' "dry run"
    equal "$(field policy.name) $(field generation)" "first-light 1" "policy and generation"
}

test_case "update: what cannot be put in force leaves the old policy in force" refused
refused() {
    attach >/dev/null
    jq '.tenants = [{name: "t", cgroups: ["no/such/cgroup"]}]' "$POLICY" >"$WORK/cgroup.json"
    expect_error 2 'no/such/cgroup' update "$WORK/cgroup.json"
    jq '(.services[] | select(.path == "xsk")).owner = "no-such-user"' "$POLICY" >"$WORK/owner.json"
    expect_error 2 'there is no user no-such-user' update "$WORK/owner.json"
    echo '{' >"$WORK/bad.json"
    expect_error 2 'line ' update "$WORK/bad.json"
    equal "$(field policy.name) $(field generation)" "first-light 1" "policy and generation"
    detach >/dev/null
    expect_error 1 'agentnic is not attached to it' update "$POLICY"
    expect_error 2 'find interface lab9' "$LOAD" update lab9 --netns $SERVER --policy "$POLICY"
}

test_case "update: a name that goes takes its counters along, a new one begins at 0" fresh_ids
fresh_ids() {
    attach >/dev/null
    talk
    [ "$(count 'by_service["agent-rpc"].packets')" -gt 0 ] || fail "nothing was counted"
    jq '.services |= .[1:]' "$POLICY" >"$WORK/without.json"
    update "$WORK/without.json" >/dev/null
    jq '.services[0].name = "newcomer"' "$POLICY" >"$WORK/newcomer.json"
    update "$WORK/newcomer.json" >/dev/null
    equal "$(count by_service.newcomer.packets)" 0 "packets of the newcomer"
    talk
    [ "$(count by_service.newcomer.packets)" -gt 0 ] || fail "the newcomer is not counted"
    conserved
}

# One of both is in force, whole, and the next update works.
after_killed_update() {
    local name
    name=$(field policy.name)
    [ "$name" = first-light ] || [ "$name" = second ] || fail "policy $name in force after a kill $1"
    equal "$(field state)" attached "state after a kill $1"
    update "$WORK/second.json" >/dev/null || fail "update after a kill $1"
    equal "$(field policy.name)" second "policy after a kill $1"
    update "$POLICY" >/dev/null || fail "update back after a kill $1"
}

test_case "kill -9: at each step of an update, one policy or the other is in force" killed_update
killed_update() {
    policy second bulk
    attach >/dev/null
    AGENTNIC_STRIDE=$((${AGENTNIC_STRIDE:-1} * 3)) at_each_step "update $POLICY" after_killed_update "$LOAD" update lab0 --netns $SERVER --policy "$WORK/second.json"
}

# Both programs run, of this build or of the one before, and an upgrade works.
after_killed_upgrade() {
    equal "$(field state)" attached "state after a kill $1"
    ip netns exec $CLIENT ping -q -c 1 $SERVER_IP >/dev/null || fail "no answer after a kill $1"
    "$LOAD" upgrade lab0 --netns $SERVER >/dev/null || fail "upgrade after a kill $1"
}

test_case "kill -9: at each step of an upgrade, programs run on" killed_upgrade
killed_upgrade() {
    attach >/dev/null
    at_each_step true after_killed_upgrade "$LOAD" upgrade lab0 --netns $SERVER
    detach >/dev/null
    nothing_left
}

test_case "update: two operators at once do not meet" two_operators
two_operators() {
    policy second bulk
    policy third retrieval
    attach >/dev/null
    local round first
    for round in 1 2 3 4 5; do
        update "$WORK/second.json" >/dev/null &
        first=$!
        update "$WORK/third.json" >/dev/null &
        wait $first || fail "the first of two updates failed in round $round"
        wait $! || fail "the second of two updates failed in round $round"
    done
    # Each of both changes something, but for one that comes twice in a row.
    [ "$(field generation)" -gt 5 ] || fail "generation $(field generation)"
    [[ $(field policy.name) = second || $(field policy.name) = third ]] || fail "policy $(field policy.name)"
}

test_case "update: no packet is lost by agentnic over 100 updates under load" hundred_updates alone
hundred_updates() {
    policy second bulk
    attach >/dev/null
    serve --transport udp --address $SERVER_IP --port 9000 --wait block
    FOR=12 ask 9000 --loop open --rate 5000 &
    local load=$! i sent_before
    sent_before=$(ip -n $CLIENT -j -s link show dev lab0 | jq '.[0].stats64.tx.packets')
    for i in $(seq 50); do
        update "$WORK/second.json" >/dev/null
        update "$POLICY" >/dev/null
        kill -0 $load 2>/dev/null || break
    done
    [ "$i" -gt 5 ] || fail "only $i pairs of updates while the load ran"
    wait $load || true
    stop_serving
    local sent seen
    conserved
    sent=$(ip -n $CLIENT -j -s link show dev lab0 | jq '.[0].stats64.tx.packets')
    seen=$(count 'by_tenant | [.[].seen_packets] | add')
    # Nothing but this load and what came before the attach has left the client.
    [ "$seen" -ge $((sent - sent_before)) ] || fail "sent $sent less $sent_before, seen $seen"
    equal "$(jq .losses.bad_checksums <<<"$served" 2>/dev/null || echo null)" null "bad checksums"
}

test_case "upgrade: other programs under the same pins, counters and policy kept" upgrades
upgrades() {
    local mode before id
    for mode in native skb tc; do
        attach --mode $mode >/dev/null
        talk
        before=$(count 'by_service["agent-rpc"].packets')
        id=$(field program_id)
        "$LOAD" upgrade lab0 --netns $SERVER | grep -q "upgraded lab0 in netns agentnic-server: program $id -> "
        [ "$(field program_id)" != "$id" ] || fail "the same program in mode $mode"
        equal "$(field state) $(field mode) $(field policy.name) $(field generation)" "attached $mode first-light 1" "status in mode $mode"
        [ "$(count 'by_service["agent-rpc"].packets')" -ge "$before" ] || fail "counters are gone in mode $mode"
        talk
        [ "$(count 'by_service["agent-rpc"].packets')" -gt "$before" ] || fail "the new program does not count in mode $mode"
        update "$POLICY" >/dev/null
        detach >/dev/null
        nothing_left
    done
}

test_case "upgrade: another ABI is refused with both versions, and the old programs run on" upgrade_refused
upgrade_refused() {
    attach >/dev/null
    local meta rest id ours
    id=$(field program_id)
    ours=$(field abi)
    meta=$(pins | grep anic_meta)
    mapfile -t rest < <(bpftool -j map lookup pinned "$meta" key hex 00 00 00 00 | jq -r '.value[1:][] | ltrimstr("0x")')
    bpftool map update pinned "$meta" key hex 00 00 00 00 value hex 63 "${rest[@]}"
    expect_error 3 'pinned with ABI 99' "$LOAD" upgrade lab0 --netns $SERVER
    expect_error 3 'pinned with ABI 99' "$LOAD" update lab0 --netns $SERVER --policy "$POLICY"
    bpftool map update pinned "$meta" key hex 00 00 00 00 value hex 0"$ours" "${rest[@]}"
    equal "$(field program_id) $(field state)" "$id attached" "program and state"
}

main "$@"
