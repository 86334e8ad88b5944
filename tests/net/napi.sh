#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# How the kernel polls the interface, by policy. What it has then is asked of it by tests/harness/napi.py, which shares nothing with
# agentnic. With GRO a veth has its NAPIs whether or not a program is on it, so that what detach leaves can be seen.
# shellcheck disable=SC2119  # arguments of attach and detach are optional
# shellcheck source=tests/harness/net.sh
. "$(dirname "$0")/../harness/net.sh"

ALL='defer_hard_irqs: 3, gro_flush_timeout: "200us", irq_suspend_timeout: "20ms"'
AS_ALL='[3,200000,20000000]'
BEFORE='[0,0,0]'
KEYS='[.defer_hard_irqs, .gro_flush_timeout_ns, .irq_suspend_timeout_ns]'

# policy NAME MEMBERS: first-light under this name with these members of its napi; none: without napi.
policy() { jq --arg name "$1" --argjson napi "$(jq -n "${2:+{$2\}}")" '.name = $name | if $napi then .napi = $napi else . end' "$ROOT/policies/first-light.json" >"$WORK/$1.json"; }

update() { "$LOAD" update lab0 --netns $SERVER --policy "$WORK/$1.json"; }

napi() { ip netns exec $SERVER python3 "$ROOT/tests/harness/napi.py" lab0 "$@"; }

# have VALUES WHAT: all NAPIs of the server's end, of which there are some, have these.
have() { equal "$(napi | jq -c "map($KEYS) | unique")" "[$1]" "$2"; }

threaded() { napi | jq -c 'map(.threaded != 0 and has("pid")) | unique'; }

gro() { ip netns exec $SERVER ethtool -K lab0 gro on; }

# Skips, after it was seen that the attach is refused, where NAPIs cannot be set: found out by trying.
needs() {
    policy needs "$1"
    local lacks="this kernel does not let ${1%%:*} of a NAPI be set; hint: Linux 6.1"
    POLICY=$WORK/needs.json try attach --mode native
    if [ "$status" != 3 ]; then
        equal "$status" 0 "attach ($err)"
        detach >/dev/null
        return
    fi
    [[ $err == *"attach to lab0: $lacks"* ]] || fail "refused otherwise: $err"
    nothing_left
    # Known before, too, without privileges.
    chmod 711 "$WORK"
    expect_error 3 "$lacks" ip netns exec $SERVER setpriv --reuid 65534 --clear-groups --bounding-set -all --inh-caps -all \
        "$LOAD" attach lab0 --policy "$WORK/needs.json" --dry-run
    attach --mode native >/dev/null
    expect_error 3 "update lab0: $lacks" update needs
    equal "$(field policy.name) $(field napi)" "first-light null" "what is in force after a refused update"
    detach >/dev/null
    nothing_left
    skip "refused as it must be: $err"
}

talk() {
    serve --transport udp --address $SERVER_IP --port 9000 --wait block
    ask 9000
    answered
    stop_serving
}

test_case "napi: what the policy says is set, traffic passes with it, and detach puts back what was there" sets smoke
sets() {
    needs 'defer_hard_irqs: 1'
    policy all "$ALL"
    gro
    napi defer_hard_irqs=7
    POLICY=$WORK/all.json attach --mode native --dry-run | grep -q 'napi     defer_hard_irqs 3, gro_flush_timeout 200us, irq_suspend_timeout 20ms'
    have '[7,0,0]' "after a dry run"
    POLICY=$WORK/all.json attach --mode native >/dev/null
    have "$AS_ALL" "once attached"
    equal "$(field 'napi | [.defer_hard_irqs, .gro_flush_timeout_ns, .irq_suspend_timeout_ns, .threaded] | tojson')" '[3,200000,20000000,null]' "what status states"
    equal "$(field "napi.napis | map($KEYS) | unique | tojson")" "[$AS_ALL]" "NAPIs of status"
    equal "$(field 'notes | map(select(contains("NAPI"))) | length')" 0 "notes"
    "$LOAD" status lab0 --netns $SERVER | grep -q 'napi      defer_hard_irqs 3, gro_flush_timeout 200us, irq_suspend_timeout 20ms; NAPIs: '
    talk
    POLICY=$WORK/all.json attach --mode native | grep -q 'already attached'
    have "$AS_ALL" "attached twice"
    detach >/dev/null
    have '[7,0,0]' "after detach"
    nothing_left
}

test_case "napi: its own threads poll a busy interface, and go with detach" threads once
threads() {
    needs 'threaded: true'
    policy threads 'threaded: true'
    gro
    equal "$(threaded)" '[false]' "threads before"
    POLICY=$WORK/threads.json attach --mode native >/dev/null
    equal "$(threaded)" '[true]' "threads"
    equal "$(field napi.threaded)" true "status"
    talk
    detach >/dev/null
    equal "$(threaded)" '[false]' "threads after detach"
    nothing_left
}

test_case "napi: update changes it, takes it away, and is refused whole" updates once
updates() {
    needs 'defer_hard_irqs: 1'
    policy all "$ALL"
    policy less 'defer_hard_irqs: 5'
    policy none
    gro
    attach --mode native >/dev/null
    update all >"$WORK/said"
    grep -q 'napi gro_flush_timeout: none -> 200us' "$WORK/said"
    have "$AS_ALL" "by update"
    update all | grep -q 'has this policy already'
    update less | grep -q 'napi defer_hard_irqs: 3 -> 5'
    have '[5,0,0]' "less"
    jq '.tenants = [{name: "t", cgroups: ["no/such/cgroup"]}]' "$WORK/all.json" >"$WORK/bad.json"
    expect_error 2 'no/such/cgroup' update bad
    have '[5,0,0]' "after a refused update"
    update none | grep -q 'napi defer_hard_irqs: 5 -> none'
    have "$BEFORE" "without napi"
    equal "$(field napi)" null "status"
    detach >/dev/null
    nothing_left
}

test_case "napi: what somebody else has set since is said, and left" others once
others() {
    needs 'defer_hard_irqs: 1'
    policy all "$ALL"
    gro
    POLICY=$WORK/all.json attach --mode native >/dev/null
    napi gro_flush_timeout_ns=50000
    field 'notes[]' | grep -q '^gro_flush_timeout of lab0 (NAPI [0-9]*, 50us.*) was changed by somebody else$' || fail "notes of status: $(field notes)"
    try detach
    [[ $err == *'gro_flush_timeout of lab0 (NAPI '*', 50us'*') was changed by somebody else, and is left'* ]] || fail "notes of detach: $err"
    have '[0,50000,0]' "after detach"
    nothing_left
}

reset() {
    ip -n $SERVER link set lab0 down
    ip -n $SERVER link set lab0 up
}

test_case "napi: NAPIs that come later are told, and set by attaching again; an interface that is gone is no error" later once
later() {
    needs 'defer_hard_irqs: 1'
    policy all "$ALL"
    gro
    POLICY=$WORK/all.json attach --mode native >/dev/null
    have "$AS_ALL" "once attached"
    reset
    [ "$(napi | jq '.[0].defer_hard_irqs')" = 0 ] || fail "NAPIs keep what was set over a reset: $(napi)"
    field 'notes[]' | grep -q 'NAPIs of lab0 that came since the others were set: ' || fail "notes of status: $(field notes)"
    POLICY=$WORK/all.json attach --mode native | grep -q 'NAPIs of lab0 that came since were set: '
    have "$AS_ALL" "attached again"
    reset
    detach >/dev/null
    have "$BEFORE" "after a reset and a detach" # some of what was set stays in the kernel over a reset
    nothing_left
    ip -n $SERVER link set lab0 down
    expect_error 1 'set the NAPIs of lab0: it is down, and has none; hint: ip link set dev lab0 up' \
        "$LOAD" attach lab0 --netns $SERVER --policy "$WORK/all.json" --mode native
    nothing_left
    ip -n $SERVER link set lab0 up
    POLICY=$WORK/all.json attach --mode native >/dev/null
    ip -n $SERVER link del lab0
    "$LOAD" detach --all | grep -q 'detached from lab0'
    equal "$(pins)" "" "pins"
}

test_case "napi: a veth without NAPIs is refused with its mode" without once
without() {
    needs 'defer_hard_irqs: 1'
    policy all "$ALL"
    local mode
    for mode in skb tc; do
        POLICY=$WORK/all.json expect_error 3 "set the NAPIs of lab0: it has none (driver veth, mode $mode); hint: a veth has them with --mode native" attach --mode $mode
        nothing_left
        attach --mode $mode >/dev/null
        expect_error 3 "it has none (driver veth, mode $mode)" update all
        equal "$(field policy.name) $(field generation)" "first-light 1" "policy and generation in mode $mode"
        detach >/dev/null
        nothing_left
    done
}

after_killed_attach() {
    detach >/dev/null || fail "detach after a kill $1"
    have "$BEFORE" "detached after a kill $1"
    nothing_left
    # And the next attach does not need it.
    [ $(($2 % 8)) = 0 ] || return 0
    POLICY=$WORK/all.json attach --mode native >/dev/null || fail "attach after a kill $1"
    have "$AS_ALL" "attached after a kill $1"
    detach >/dev/null
}

test_case "kill -9: at each step of an attach that sets NAPIs, detach puts back what was there" killed_attach
killed_attach() {
    needs 'defer_hard_irqs: 1'
    policy all "$ALL"
    gro
    KILL_AT="sendto,sendmsg unlink,unlinkat,rmdir" at_each_step true after_killed_attach \
        "$LOAD" attach lab0 --netns $SERVER --policy "$WORK/all.json" --mode native
    detach >/dev/null
    AGENTNIC_STRIDE=$((${AGENTNIC_STRIDE:-1} * 3)) KILL_AT=bpf at_each_step true after_killed_attach \
        "$LOAD" attach lab0 --netns $SERVER --policy "$WORK/all.json" --mode native
}

attached_with_all() {
    update all
    have "$AS_ALL" "before a kill"
}

# Whatever is in force, the next update brings it to what it should be.
after_killed_update() {
    update less >/dev/null || fail "update after a kill $1"
    have '[5,0,0]' "after a kill $1"
}

test_case "kill -9: at each step of an update of NAPIs, the next update goes on, and detach puts back what was there" killed_update
killed_update() {
    needs 'defer_hard_irqs: 1'
    policy all "$ALL"
    policy less 'defer_hard_irqs: 5'
    gro
    attach --mode native >/dev/null
    AGENTNIC_STRIDE=$((${AGENTNIC_STRIDE:-1} * 3)) at_each_step attached_with_all after_killed_update \
        "$LOAD" update lab0 --netns $SERVER --policy "$WORK/less.json"
    detach >/dev/null
    have "$BEFORE" "after detach"
    nothing_left
}

attached_whole() { POLICY=$WORK/all.json attach --mode native; }

after_killed_detach() {
    detach >/dev/null || fail "detach after a kill $1"
    have "$BEFORE" "detached after a kill $1"
    nothing_left
}

test_case "kill -9: at each step of a detach, the next one puts back what was there" killed_detach
killed_detach() {
    needs 'defer_hard_irqs: 1'
    policy all "$ALL"
    gro
    at_each_step attached_whole after_killed_detach "$LOAD" detach lab0 --netns $SERVER
}

main "$@"
