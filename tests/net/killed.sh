#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Each invariant with all of userspace killed: whoever attached has ended, whoever held the session was ended by SIGKILL, and somebody
# has got hold of its descriptors. What follows is between him and the kernel. R6, L1, L2 and L4: see guardian.sh.
# shellcheck disable=SC2119  # arguments of attach are optional
# shellcheck source=tests/harness/net.sh
. "$(dirname "$0")/../harness/net.sh"

AUDIT=$ROOT/.build/bin/agentnic-audit
CONTROL=1 DEFAULT=2 RPC=3 BULK=5 # enum anic_class
GLOBEX=2
XSK=2 # enum anic_path

# policy MEMBERS: those of its guardian that a test has of its own. The client is acme.
policy() {
    POLICY=$WORK/guarded.json
    jq -n --argjson own "{$1}" '{version: 1, name: "guarded", link_rate: "100Mbit",
        guardian: ({heartbeat: "60s", cool_down: "60s", throttle_step: 100, weight: {minimum: 10, maximum: 500, step: 200},
                    borrow: {maximum: "50Mbit"}, changes: {tenant: 5, total: 5}, oscillation: {window: "60s", flips: 1}} + $own),
        tenants: [{name: "acme", prefixes: ["198.18.0.1/32"], budget: {minimum: "20Mbit", ceiling: "40Mbit"}},
                  {name: "globex", prefixes: ["192.0.2.0/24"], budget: {minimum: "50Mbit"}}],
        services: [{name: "echo", protocol: "udp", port: 9000, class: "rpc", path: "kernel"},
                   {name: "gate", protocol: "udp", port: 9001, class: "default", path: "xsk"},
                   {name: "other", protocol: "udp", port: 9003, class: "rpc", path: "kernel"}],
        control: [{protocol: "udp", port: 9002}]}' >"$POLICY"
}

guardian() { field "guardian.$1"; }
tail_of() { "$AUDIT" tail lab0 --netns $SERVER --json; }

# in_force KEY: of the one change that is in force.
in_force() { guardian "changes | if length == 1 then .[0].in_force_$1 else tojson end"; }

# says LINE...: to the survivor; its answer is $answer.
says() {
    echo "$*" >&"${survivor[1]}"
    read -r -t 60 answer <&"${survivor[0]}" || fail "the survivor said nothing to '$*'"
}

# orphan MEMBERS PROPOSAL...: from here on nothing of agentnic runs but what the kernel does, and the change is in force.
orphan() {
    policy "$1"
    attach >/dev/null
    : >"$WORK/held"
    "$LOAD" propose lab0 --netns $SERVER --tenant acme "${@:2}" --json >"$WORK/held" &
    local pid=$!
    until_true 10 grep -q decided "$WORK/held"
    coproc survivor { exec python3 "$ROOT/tests/harness/survivor.py" $pid; }
    read -r -t 60 answer <&"${survivor[0]}" || fail "there is no survivor ($(<"$WORK/held"))"
    says kill
    wait $pid 2>/dev/null || true
    equal "$(pgrep agentnic || true)" "" "processes of agentnic"
    equal "$(guardian 'changes | length')" 1 "changes in force, of a session whose holder was killed"
}
orphan_with_weight() { orphan "${1:-}" queue_weight_adjust --class rpc --value 150 --for 60s; }

# meets WHAT KIND KEY=VALUE...: a proposal comes to this: "DECIDED INVARIANT APPROVED", of which the last may be missing.
meets() {
    says "${@:2}"
    local found
    found=$(jq -r '"\(.decided) \(.invariant) \(.approved)"' <<<"$answer")
    [[ "$found " == "$1 "* ]] || fail "'${*:2}' came to '$found', not '$1': $answer"
}

# recorded DECIDED INVARIANT [COUNT]: the last record of a decision by it says so; the tick brings what is counted together. Nothing is
# an alarm, and no record is missing.
recorded() {
    until_true 30 is_recorded "$1 $2 ${3:-1}"
    equal "$(guardian 'failsafes | length')" 0 "fail-safes"
    equal "$(tail_of | jq -s -c '[.[].record.seq] == [range(1; length + 1)]')" true "numbers of the records"
}
is_recorded() { [ "$(tail_of | jq -s -r '[.[].record | select(.kind == "decision")] | last | "\(.decided) \(.invariant) \(.count)"')" = "$1" ]; }

# echoes PORT: packets to it are answered; who answers is no part of agentnic.
echoes() {
    serve --transport udp --address $SERVER_IP --port "$1" --wait block
    ask "$1"
    answered
    stop_serving
}

test_case "killed: C1: with all of userspace dead, control traffic passes, and is nobody's to change" c1
c1() {
    orphan_with_weight
    meets "reject C1" queue_weight_adjust cls=$CONTROL value=10
    recorded reject C1
    equal "$(in_force weight)" 150 "weight in force"
    echoes 9002
    [ "$(count by_class.control.packets)" -gt 0 ] || fail "no control packet was counted"
    equal "$(count 'by_reason | [to_entries[] | select(.key | startswith("drop")) | .value.packets] | add // 0')" 0 "packets that were dropped"
}

test_case "killed: C2: with all of userspace dead, packets take path A where it is in force, and where no socket is" c2
c2() {
    orphan "" path_switch --class default --value kernel --for 8s
    meets "reject I3" path_switch cls=$DEFAULT value=$XSK
    recorded reject I3
    echoes 9001
    [ "$(count by_reason.pass_lane.packets)" -gt 0 ] || fail "no packet took path A by its lane: $(count by_reason)"
    until_true 30 given_back
    equal "$(count by_reason.pass_no_socket.packets)" 0 "packets that met no socket"
    echoes 9001
    [ "$(count by_reason.pass_no_socket.packets)" -gt 0 ] || fail "no packet took path A for want of a socket: $(count by_reason)"
}
given_back() { [ "$(guardian 'changes | length')" = 0 ]; }

test_case "killed: I1: with all of userspace dead, nobody borrows what others are guaranteed" i1
i1() {
    orphan "" quota_borrow --value 5Mbit --for 60s
    meets "reject I1" quota_borrow value=10000001
    recorded reject I1
    equal "$(in_force bps)" 5000000 "bit/s that are borrowed"
    meets "approve  10000000" quota_borrow value=10000000 duration=60
}

test_case "killed: I2: with all of userspace dead, bulk keeps what its tenant is guaranteed" i2
i2() {
    orphan "" bulk_path_throttle --value 30Mbit --for 60s
    meets "rewrite I2 20000000" bulk_path_throttle value=1
    recorded rewrite I2
    equal "$(in_force bps)" 20000000 "bit/s of bulk"
}

test_case "killed: I3: with all of userspace dead, a session touches what it was granted, and nothing else" i3
i3() {
    orphan_with_weight
    meets "reject I3" queue_weight_adjust tenant=$GLOBEX cls=$RPC value=150
    meets "reject I3" bulk_path_throttle value=30000000
    meets "reject I3" queue_weight_adjust cls=$BULK value=150
    recorded reject I3
    equal "$(in_force weight)" 150 "weight in force"
}

test_case "killed: R1: with all of userspace dead, a change is at most a step" r1
r1() {
    orphan_with_weight
    meets "rewrite R1 350" queue_weight_adjust cls=$RPC value=500
    recorded rewrite R1
}

test_case "killed: R2: with all of userspace dead, values stay in their range" r2
r2() {
    orphan_with_weight
    meets "rewrite R2 10" queue_weight_adjust cls=$RPC value=1
    recorded rewrite R2
}

test_case "killed: R3: with all of userspace dead, changes a second are capped" r3
r3() {
    orphan_with_weight
    meets "reject R3" queue_weight_adjust cls=$RPC value=151 times=30 up=1
    until_true 30 is_recorded "reject R3 1"
    local weight
    weight=$(in_force weight)
    if [ "$weight" -le 150 ] || [ "$weight" -gt 155 ]; then fail "of 30 changes by 1 at once $((weight - 150)) were made"; fi
}

test_case "killed: R4: with all of userspace dead, so many changes of a tenant are in force, and no more" r4
r4() {
    orphan '"actions": 1' flow_class_escalate --service echo --value bulk --for 60s
    meets "reject R4" flow_class_escalate service=3 value=$BULK
    recorded reject R4
    equal "$(guardian 'changes | map(.service) | tojson')" '["echo"]' "services that are escalated"
}

test_case "killed: R5: with all of userspace dead, a value does not go back and forth" r5
r5() {
    orphan_with_weight
    meets "approve  120" queue_weight_adjust cls=$RPC value=120
    meets "reject R5 120" queue_weight_adjust cls=$RPC value=150
    recorded reject R5
    equal "$(in_force weight)" 120 "weight in force"
}

test_case "killed: A1: with all of userspace dead, nothing is changed whose record has no room" a1
a1() {
    orphan_with_weight '"changes": {"tenant": 10000000, "total": 10000000}, "oscillation": {"window": "1us"}, "rejections": 1000000'
    local drains=0 before
    until [[ ${answer:-} == *A1* ]]; do
        says queue_weight_adjust cls=$RPC value=$((100 + drains % 2)) times=64 up=2
        drains=$((drains + 1))
        [ $drains -lt 200 ] || fail "the ring is never full: $answer"
    done
    before=$(in_force weight)
    meets "reject A1" queue_weight_adjust cls=$RPC value=$((before + 10))
    equal "$(in_force weight)" "$before" "weight in force, once there is no room"
    "$AUDIT" tail lab0 --netns $SERVER --take >/dev/null
    until_true 30 loss_is_said
    meets "approve  $((before + 10))" queue_weight_adjust cls=$RPC value=$((before + 10))
}
loss_is_said() { [ "$(tail_of | jq -s 'map(select(.record.kind == "lost")) | length')" = 1 ]; } # of the rejections, which had no room either

test_case "killed: A2: with all of userspace dead, rejections are recorded, those that are the same as one" a2
a2() {
    orphan_with_weight
    meets "reject C1" queue_weight_adjust cls=$CONTROL value=10 times=9
    recorded reject C1 9
}

test_case "killed: A3: with all of userspace dead, the audit goes on, by the tick alone" a3
a3() {
    orphan "" flow_class_escalate --service echo --value bulk --for 3s
    eval "exec ${survivor[1]}>&-" # and now nobody is left
    until_true 30 ended_by_itself
    equal "$(tail_of | jq -s -c '[.[].record.seq] == [range(1; length + 1)]')" true "numbers of the records"
}
ended_by_itself() { [ "$(tail_of | jq -s -r 'map(select(.record.kind != "read")) | last | .record | "\(.kind) \(.invariant)"')" = "revert R6" ]; }

main "$@"
