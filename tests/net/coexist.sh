#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# agentnic and a program that xdp-loader put on the same interface, under libxdp's dispatcher.
# shellcheck disable=SC2119  # arguments of attach and detach are optional
# shellcheck source=tests/harness/net.sh
. "$(dirname "$0")/../harness/net.sh"
# shellcheck disable=SC2034  # of the harness
OF_ALL=alone # it finds a map by its name

# In the server's network namespace, with this test's bpffs.
neighbour() { nsenter --net=/run/netns/$SERVER xdp-loader "$@"; }
neighbour_comes() { neighbour load -m "${1:-native}" lab0 "$FOREIGN"; }
neighbour_goes() { neighbour unload lab0 --id "$(neighbour status lab0 | awk '/foreign/ { for (i = 1; i <= NF; i++) if ($i ~ /^[0-9]+$/) id = $i; print id; exit }')"; }

# Packets that it has seen; fails when its program is not there.
neighbour_saw() { bpftool -j map dump name foreign_seen | jq '.[0].formatted.value'; }

ours_saw() { count 'by_reason | [.[].packets] | add'; }

# neighbour_runs WORDS...: a packet reaches its program.
neighbour_runs() {
    local theirs
    theirs=$(neighbour_saw)
    ip netns exec $CLIENT ping -q -c 1 $SERVER_IP >/dev/null
    [ "$(neighbour_saw)" -gt "$theirs" ] || fail "the neighbour saw nothing $*"
}

# A packet reaches either program.
both_run() {
    local ours
    ours=$(ours_saw)
    neighbour_runs
    [ "$(ours_saw)" -gt "$ours" ] || fail "agentnic saw nothing"
}

# The neighbour alone is there, as if agentnic had never been.
neighbour_alone() {
    equal "$(pins)" "" "pins"
    equal "$(find /sys/fs/bpf/xdp -mindepth 1 -maxdepth 1 -name 'dispatch-*' | wc -l)" 1 "dispatchers in libxdp's pins"
    neighbour_runs "$@"
}

test_case "dispatcher: a program of xdp-loader that came first runs on, and outlives agentnic" neighbour_first smoke
neighbour_first() {
    needs_dispatcher
    neighbour_comes
    attach --require dispatcher >/dev/null
    both_run
    attach | grep -q 'already attached'
    detach >/dev/null
    neighbour_alone
    neighbour unload lab0 --all
    nothing_left
}

test_case "dispatcher: a program of xdp-loader that comes second runs too, and may go" neighbour_second
neighbour_second() {
    needs_dispatcher
    attach --require dispatcher >/dev/null
    neighbour_comes
    both_run
    equal "$("$LOAD" status --json | jq -r '.instances[0].state')" attached "state"
    neighbour_goes
    equal "$("$LOAD" status --json | jq -r '.instances[0].state')" attached "state without the neighbour"
    neighbour_comes
    detach >/dev/null
    neighbour_alone
    neighbour unload lab0 --all
    nothing_left
}

test_case "dispatcher: traffic takes both paths beside a neighbour" traffic_beside
traffic_beside() {
    needs_dispatcher
    neighbour_comes
    attach >/dev/null
    serve --transport xsk --iface lab0 --wait block
    ask 9001
    answered
    stop_serving
    equal "$(jq .failed <<<"$served")" 0 "failed"
    [ "$(count by_reason.redirect_xsk.packets)" -gt 0 ] || fail "none redirected"
}

test_case "dispatcher: agentnic taken off by xdp-loader is told as gone, and the neighbour stays" taken_off
taken_off() {
    needs_dispatcher
    attach >/dev/null
    neighbour_comes
    neighbour unload lab0 --id "$("$LOAD" status --json | jq '.instances[0].program_id')"
    equal "$("$LOAD" status --json | jq -r '.instances[0].state')" gone "state"
    detach >/dev/null
    neighbour_alone
}

test_case "dispatcher: a neighbour in skb mode decides the mode, and what cannot be had is refused" neighbour_skb
neighbour_skb() {
    needs_dispatcher
    neighbour_comes skb
    expect_error 1 'lab0' attach --mode native
    neighbour_runs
    attach --mode skb --require dispatcher >/dev/null
    both_run
    detach >/dev/null
    neighbour_alone
}

# Whatever the kill left: the neighbour runs, status says what of agentnic is there, and both verbs work.
after_kill() {
    neighbour_runs "after a kill $1"
    local state
    # Status 1 says that it is not sound.
    state=$("$LOAD" status --json | jq -r '.instances[0] | if (.problem // "") == "" then .state // "none" else .problem end') || true
    if neighbour status lab0 | grep -q anic_xdp; then
        [[ $state = attached || $state = "the egress program was forced off"* ]] || fail "after a kill $1, with agentnic in the dispatcher: $state"
    elif [ "$state" = attached ]; then
        fail "status says attached after a kill $1, and agentnic is not in the dispatcher"
    fi
    if [ $(($2 % 2)) = 0 ]; then
        attach >/dev/null || fail "attach after a kill $1"
        both_run
    fi
    detach >/dev/null || fail "detach after a kill $1"
    neighbour_alone "after a kill $1"
}

test_case "dispatcher: kill -9 at each step of an attach beside a neighbour" killed_attach
killed_attach() {
    needs_dispatcher
    neighbour_comes
    at_each_step detach after_kill "$LOAD" attach lab0 --netns $SERVER --policy "$POLICY"
}

test_case "dispatcher: kill -9 at each step of a detach beside a neighbour that came second" killed_detach
ours_then_neighbour() {
    ! neighbour_saw 2>/dev/null || neighbour unload lab0 --all
    attach
    neighbour_comes
}
killed_detach() {
    needs_dispatcher
    at_each_step ours_then_neighbour after_kill "$LOAD" detach lab0 --netns $SERVER
}

main "$@"
