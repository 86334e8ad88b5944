#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Where the kernel has no tcx, the programs at TC are filters of a clsact qdisc: beside those of others.
# shellcheck disable=SC2119  # arguments of attach, detach and conserved are optional
# shellcheck source=tests/harness/net.sh
. "$(dirname "$0")/../harness/net.sh"

needs_no_tcx() {
    command -v tc >/dev/null || skip "tc is not installed"
    ! has_tcx || skip "this kernel has tcx"
}

tc_() { tc -n $SERVER "$@"; }
# How many clsact qdiscs lab0 has, and how many BPF filters of ours in a direction.
clsacts() { tc_ -j qdisc show dev lab0 | jq '[.[] | select(.kind == "clsact")] | length'; }
filters() { tc_ filter show dev lab0 "$1" | grep -c "anic_tc_" || true; }

no_clsact_left() {
    nothing_left
    equal "$(clsacts) $(filters ingress) $(filters egress)" "0 0 0" "clsact qdiscs and filters"
}

test_case "clsact: both programs are filters of it, status says so, they count, and detach takes all away" whole
whole() {
    needs_no_tcx
    attach --mode tc >"$WORK/said"
    grep -q ': tc, clsact' "$WORK/said"
    equal "$(field mode) $(field hook) $(field egress_hook) $(field state)" "tc clsact clsact attached" "status"
    "$LOAD" status | grep -q 'egress clsact'
    equal "$(clsacts) $(filters ingress) $(filters egress)" "1 1 1" "clsact qdiscs and filters"
    ip netns exec $CLIENT ping -q -c 3 -i 0.2 $SERVER_IP >/dev/null
    [ "$(count by_reason.pass_default.packets)" -ge 3 ] || fail "nothing counted in"
    [ "$(count_out by_reason.pass_default.packets)" -ge 3 ] || fail "nothing counted out"
    conserved
    attach --mode tc | grep -q 'already attached'
    equal "$(filters ingress) $(filters egress)" "1 1" "filters after a second attach"
    detach >/dev/null
    no_clsact_left
}

test_case "clsact: an upgrade replaces its filters; under XDP, the egress program alone is one" under_xdp
under_xdp() {
    needs_no_tcx
    local mode filters
    for mode in tc native; do
        filters="1 1"
        [ $mode = tc ] || filters="0 1"
        attach --mode $mode >/dev/null
        equal "$(field mode) $(field egress_hook) $(field state)" "$mode clsact attached" "status"
        equal "$(clsacts) $(filters ingress) $(filters egress)" "1 $filters" "clsact qdiscs and filters"
        "$LOAD" upgrade lab0 --netns $SERVER >/dev/null
        equal "$(field state) $(filters ingress) $(filters egress)" "attached $filters" "after an upgrade"
        ip netns exec $CLIENT ping -q -c 1 $SERVER_IP >/dev/null
        [ "$(count_out by_reason.pass_default.packets)" -ge 1 ] || fail "nothing counted out"
        detach >/dev/null
        no_clsact_left
    done
}

test_case "clsact: a qdisc that was there before stays, and filters of others with it" others_stay
others_stay() {
    needs_no_tcx
    tc_ qdisc add dev lab0 clsact
    attach --mode tc >/dev/null
    detach >/dev/null
    equal "$(clsacts) $(filters ingress) $(filters egress)" "1 0 0" "clsact qdiscs and filters"
    tc_ filter add dev lab0 egress matchall action ok
    tc_ filter add dev lab0 ingress pref 100 matchall action ok
    local mode before
    before=$(tc_ filter show dev lab0 egress)
    for mode in tc native; do
        attach --mode $mode >/dev/null
        ip netns exec $CLIENT ping -q -c 1 $SERVER_IP >/dev/null
        [ "$(count_out by_reason.pass_default.packets)" -ge 1 ] || fail "nothing counted beside another filter"
        detach >/dev/null
        equal "$(clsacts) $(filters ingress) $(filters egress)" "1 0 0" "clsact qdiscs and filters"
        equal "$(tc_ filter show dev lab0 egress)" "$before" "the other filter"
        equal "$(tc_ filter show dev lab0 ingress | grep -c 'pref 100 matchall.*handle')" 1 "the other filter at ingress"
    done
}

test_case "clsact: a filter that came after agentnic keeps the qdisc when agentnic goes" later_one
later_one() {
    needs_no_tcx
    attach --mode tc >/dev/null
    tc_ filter add dev lab0 ingress pref 7 matchall action ok
    detach >/dev/null
    equal "$(clsacts) $(filters ingress) $(filters egress)" "1 0 0" "clsact qdiscs and filters"
    equal "$(tc_ filter show dev lab0 ingress | grep -c 'pref 7 matchall.*handle')" 1 "the other filter"
}

test_case "clsact: an ingress qdisc in its place is told, and nothing is attached or lost" ingress_qdisc
ingress_qdisc() {
    needs_no_tcx
    tc_ qdisc add dev lab0 ingress
    tc_ filter add dev lab0 ingress pref 7 matchall action ok
    local mode before
    before=$(tc_ filter show dev lab0 ingress)
    for mode in tc native; do
        expect_error 1 'ingress qdisc' attach --mode $mode
        equal "$(tc_ filter show dev lab0 ingress)" "$before" "filters at ingress"
        nothing_left
    done
}

test_case "clsact: a filter of agentnic that somebody removes is noticed, and the next attach puts it back" removed_filter
removed_filter() {
    needs_no_tcx
    local direction mode
    for mode in tc native; do
        for direction in egress ingress; do
            [ "$mode $direction" != "native ingress" ] || continue
            attach --mode $mode >/dev/null
            tc_ filter del dev lab0 $direction
            equal "$(field state)" gone "state in mode $mode without the filter at $direction"
            attach --mode $mode | grep -q '^attached to lab0'
            equal "$(field state) $(filters egress)" "attached 1" "state and filters after another attach"
            # The qdisc, and all that was in it.
            tc_ qdisc del dev lab0 clsact
            equal "$(field state)" gone "state in mode $mode without the qdisc"
            detach >/dev/null
            no_clsact_left
        done
    done
}

# Wholly there or not at all, the other filter stays, and both verbs work.
after_kill() {
    local state
    state=$("$LOAD" status --json | jq -r '.instances[0].state // "none"') || true # status 1 says that it is not sound
    [ "$state" != attached ] || equal "$(filters ingress) $(filters egress)" "1 1" "filters after a kill $1"
    if [ $(($2 % 2)) = 0 ]; then
        attach --mode tc >/dev/null || fail "attach after a kill $1"
        equal "$(field state) $(filters ingress) $(filters egress)" "attached 1 1" "state and filters after a kill $1 and an attach"
    fi
    detach >/dev/null || fail "detach after a kill $1"
    if [ -n "${BESIDE:-}" ]; then
        nothing_left
        equal "$(clsacts) $(filters ingress) $(filters egress)" "1 0 0" "clsact qdiscs and filters after a kill $1"
        equal "$(tc_ filter show dev lab0 ingress | grep -c 'pref 100 matchall.*handle')" 1 "the other filter after a kill $1"
    else
        no_clsact_left
    fi
}

test_case "clsact: kill -9 at each step of an attach, and the next one works" killed_attach
killed_attach() {
    needs_no_tcx
    at_each_step detach after_kill "$LOAD" attach lab0 --netns $SERVER --policy "$POLICY" --mode tc
}

test_case "clsact: kill -9 at each step of a detach, and the next one works" killed_detach
attach_tc() { attach --mode tc; }
killed_detach() {
    needs_no_tcx
    at_each_step attach_tc after_kill "$LOAD" detach lab0 --netns $SERVER
}

test_case "clsact: kill -9 at each step of an attach and a detach beside another filter, which stays" killed_beside
killed_beside() {
    needs_no_tcx
    BESIDE=1
    tc_ qdisc add dev lab0 clsact
    tc_ filter add dev lab0 ingress pref 100 matchall action ok
    AGENTNIC_STRIDE=$((${AGENTNIC_STRIDE:-1} * 4)) at_each_step detach after_kill "$LOAD" attach lab0 --netns $SERVER --policy "$POLICY" --mode tc
    AGENTNIC_STRIDE=$((${AGENTNIC_STRIDE:-1} * 4)) at_each_step attach_tc after_kill "$LOAD" detach lab0 --netns $SERVER
}

main "$@"
