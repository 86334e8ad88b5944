#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The guardian by the real programs: a change that is proposed, held and given back, however who holds it ends; fail-safe
# and alarms; what the audit says of it.
# shellcheck disable=SC2119  # arguments of detach are optional
# shellcheck source=tests/harness/net.sh
. "$(dirname "$0")/../harness/net.sh"

AUDIT=$ROOT/.build/bin/agentnic-audit
CALM='"heartbeat": "60s"'      # a slow machine is no dead session
BEAT=500ms COOL_DOWN=3s
[ "${AGENTNIC_PATIENCE:-1}" = 1 ] || BEAT=5s COOL_DOWN=20s # an emulated process may be kept from running for half a second
QUICK="\"heartbeat\": \"$BEAT\", \"cool_down\": \"$COOL_DOWN\""

# policy GUARDIAN-MEMBERS [NAME]: the client is the tenant acme, with 10 Mbit/s at most; nobody is globex.
policy() {
    POLICY=$WORK/${2:-guarded}.json
    cat >"$POLICY" <<EOF
{"version": 1, "name": "${2:-guarded}", "link_rate": "100Mbit", "guardian": {$1},
 "classes": {"rpc": {"weight": 100}, "retrieval": {"cpus": [0]}},
 "tenants": [{"name": "acme", "prefixes": ["198.18.0.1/32"], "budget": {"ceiling": "10Mbit"}},
             {"name": "globex", "prefixes": ["192.0.2.0/24"]}],
 "agents": [{"name": "tuner", "tenants": ["acme"], "kinds": ["queue_weight_adjust"], "classes": ["rpc"]}],
 "services": [{"name": "echo", "protocol": "udp", "port": 9000, "class": "rpc", "path": "kernel"},
              {"name": "gate", "protocol": "udp", "port": 9001, "class": "default", "path": "xsk"}]}
EOF
}

begin() {
    policy "$1"
    attach >/dev/null
}

propose() { "$LOAD" propose lab0 --netns $SERVER "$@"; }
failsafe() { "$LOAD" failsafe lab0 --netns $SERVER "$@"; }
tail_of() { "$AUDIT" tail lab0 --netns $SERVER "$@"; }
weight() { propose queue_weight_adjust --tenant "${TENANT:-acme}" --class "${CLASS:-rpc}" --value "$@"; }

# hold COMMAND...: proposes beside the test and waits for the decision; its pid is $held, what it says in $WORK/held.
hold() {
    : >"$WORK/held"
    "$LOAD" propose lab0 --netns $SERVER "$@" --json >"$WORK/held" 2>"$WORK/held.err" &
    held=$!
    until_true 10 grep -q decided "$WORK/held"
}
hold_weight() { hold queue_weight_adjust --tenant acme --class rpc --value 150 --for "${1:-60s}" "${@:2}"; }

# ended STATUS WHY: it came to its end so.
ended() {
    local code=0
    wait "$held" || code=$?
    equal $code "$1" "exit status of propose ($(<"$WORK/held") $(<"$WORK/held.err"))"
    [ -z "${2:-}" ] || equal "$(tail -n 1 "$WORK/held" | jq -r .why)" "$2" "why it ended"
}

guardian() { field "guardian.$1"; }
refused_in_failsafe() {
    try weight 150 --for 1s
    equal "$status" 1 "exit status of propose in fail-safe ($err)"
    [[ $out == *"rejected by L4 "* ]] || fail "propose in fail-safe did not name L4: $out"
}
nothing_changed() { [ "$(guardian 'changes | length')" = 0 ]; }
no_session() { [ "$(guardian 'sessions | length')" = 0 ]; }
in_failsafe() { [ "$(guardian 'failsafes | map(select(.in_force)) | length')" = "$1" ]; }
alarmed() { [ "$(guardian 'failsafes | length')" = "$1" ]; }

# The sequence numbers that tail prints, one after the other without a hole, from the first on.
no_hole() {
    local records
    records=$(tail_of --json)
    equal "$(jq -s -c '[.[].record.seq] == [range(1; length + 1)]' <<<"$records")" true "seq of the records: $(jq -s -c '[.[].record.seq]' <<<"$records")"
}

# kinds JQ-FILTER: what the records are that it selects.
kinds() { tail_of --json | jq -s -r "map(.record | select($1) | .kind | select(. != \"read\")) | join(\" \")"; }

# Kills who holds the change, without a chance to give it back.
kill_it() {
    kill -KILL "$held"
    wait "$held" 2>/dev/null || true
}

test_case "guardian: a change applies, status shows it, and it is given back when its time is over" applies
applies() {
    begin "$CALM"
    hold_weight 60s --reason 'more for rpc'
    equal "$(head -n 1 "$WORK/held" | jq -c '[.schema, .decided, .observed_weight, .requested_weight, .approved_weight, .invariant]')" \
        '["agentnic.propose/1","approve",100,150,150,null]' "the decision"
    equal "$(guardian 'changes | map([.tenant, .change, .class, .stated_weight, .in_force_weight]) | tojson')" \
        '[["acme","queue_weight_adjust","rpc",100,150]]' "changes in force"
    equal "$(guardian 'sessions | map([.tenants, .approved]) | tojson')" '[[["acme"],1]]' "sessions"
    "$LOAD" status | grep -q 'change    tenant acme: queue_weight_adjust rpc 100 -> 150 by session 1, until '
    kill -INT "$held"
    ended 0 stopped
    hold_weight 1s
    ended 0 time_over
    nothing_changed || fail "it is still in force: $(guardian changes)"
    no_session || fail "the session is still open"
    equal "$("$LOAD" status >/dev/null && echo 0)" 0 "exit status of status"
    equal "$(kinds true)" "attach commit commit commit open decision revert close open decision revert close" "records"
    no_hole
}

test_case "guardian: each kind of change applies, with the values that status, propose and the audit show" each_kind
each_kind() {
    policy "$CALM, \"borrow\": {\"maximum\": \"5Mbit\"}"
    jq '.classes.retrieval.cpus = [0, 1]' "$POLICY" >"$WORK/two.json"
    [ "$(nproc)" -ge 2 ] && POLICY=$WORK/two.json
    attach >/dev/null
    shows() { # KIND STATED IN-FORCE OPTIONS...
        hold "$1" --tenant acme "${@:4}" --for 60s
        equal "$(guardian "changes | map([.change, (to_entries[] | select(.key | test(\"^(stated|in_force)_\")) | .value)]) | tojson")" \
            "[[\"$1\",$2,$3]]" "what status shows of $1"
        kill -INT "$held"
        ended 0 stopped
        equal "$(tail -n 1 "$WORK/held" | jq -c 'to_entries[] | select(.key | test("^given_back_to_")) | .value')" "$2" "what $1 was given back to"
        nothing_changed || fail "$1 is still in force"
    }
    shows queue_weight_adjust 100 150 --class rpc --value 150
    shows bulk_path_throttle 10000000 6000000 --value 6Mbit
    shows flow_class_escalate '"rpc"' '"bulk"' --service echo --value bulk
    shows path_switch '"xsk"' '"kernel"' --class default --value kernel
    shows quota_borrow 0 4000000 --value 4Mbit
    [ "$(nproc)" -lt 2 ] || shows queue_rebalance 0 1 --class retrieval --bucket 6 --cpu 1
    no_hole
}

test_case "guardian: Ctrl-C and SIGTERM give the change back and close the session" stops
stops() {
    begin "$CALM"
    local signal
    for signal in INT TERM; do
        hold_weight
        kill "-$signal" "$held"
        ended 0 stopped
        nothing_changed || fail "it is still in force after SIG$signal"
        no_session || fail "the session is open after SIG$signal"
    done
    alarmed 0 || fail "there is an alarm"
    no_hole
}

test_case "guardian: L1: with who holds it killed, fail-safe begins after the heartbeat, and status says so" killed smoke
killed() {
    begin "\"heartbeat\": \"$BEAT\", \"cool_down\": \"60s\"" # a slow machine is to see all of it
    hold_weight
    kill_it
    until_true 30 in_failsafe 1
    refused_in_failsafe
    try "$LOAD" status
    equal "$status" 4 "exit status of status"
    [[ $out == "FAIL-SAFE: "*"tenant acme since "*"L1"*"agentnic-load failsafe lab0 ack --tenant acme --netns $SERVER"* ]] || fail "status does not say it: $out"
    nothing_changed || fail "the change is still in force"
    no_session || fail "the session is still open"
    equal "$(guardian 'failsafes[0].changes | map([.change, .in_force_weight]) | tojson')" '[["queue_weight_adjust",150]]' "the change in the dump"
    try failsafe ack --tenant acme --reason seen
    equal "$status" 0 "exit status of failsafe ack ($err)"
    equal "$(guardian 'failsafes[0] | [.in_force, .alarm] | tojson')" '[true,false]' "after the alarm was acknowledged"
    try failsafe exit --tenant acme
    equal "$status" 0 "exit status of failsafe exit ($err)"
    alarmed 0 || fail "it is still there: $(guardian failsafes)"
    "$LOAD" status >/dev/null || fail "status still says that something is wrong"
    weight 150 --for 100ms >/dev/null || fail "no change is possible afterwards"
    equal "$(kinds '.session == 1 or .kind == "failsafe"')" "open decision failsafe revert close failsafe" "records of the session"
    no_hole
}

test_case "guardian: L4: with all of userspace dead, the cool-down ends by itself, and the alarm stays" cools_down
cools_down() {
    begin "$QUICK"
    hold_weight
    kill_it
    until_true 30 in_failsafe 1
    refused_in_failsafe
    until_true 30 in_failsafe 0
    alarmed 1 || fail "the alarm has gone"
    try "$LOAD" status
    equal "$status" 4 "exit status of status"
    [[ $out == "ALARM: "*"was in fail-safe at "* ]] || fail "status does not say it: $out"
    weight 150 --for 100ms >/dev/null || fail "no change is possible after the cool-down"
    failsafe ack --tenant acme | grep -q 'tenant acme has its alarm acknowledged'
    failsafe ack --tenant acme | grep -q 'tenant acme had no alarm'
    "$LOAD" status >/dev/null || fail "the alarm is still there"
    no_hole
}

test_case "guardian: R6: with all of userspace dead, an escalation ends with its time" escalation_ends
escalation_ends() {
    begin "$CALM"
    hold flow_class_escalate --tenant acme --service echo --value bulk --for 2s
    equal "$(guardian 'changes | map([.service, .in_force_class]) | tojson')" '[["echo","bulk"]]' "changes in force"
    kill_it
    until_true 30 nothing_changed
    equal "$(kinds '.invariant == "R6"')" revert "records of R6"
    alarmed 0 || fail "the session was ended by something else"
    no_hole
}

test_case "guardian: L2: with all of userspace dead, what rejections led to stays" rejected_often
rejected_often() {
    begin "$CALM, \"rejections\": 1"
    CLASS=bulk try weight 150 --agent tuner --for 1s
    equal "$status" 1 "exit status of propose"
    in_failsafe 1 || fail "there is no fail-safe: $out $err"
    equal "$(guardian 'failsafes | map([.tenant, .invariant]) | tojson')" '[["acme","L2"]]' "fail-safe"
    no_hole
}

test_case "guardian: a rejection exits with 1 and names the invariant" rejected
rejected() {
    begin "$CALM"
    rejected_by() {
        try propose "${@:2}" --for 1s
        equal "$status" 1 "exit status of '${*:2}' ($out $err)"
        [[ $out == *"rejected by $1 "* ]] || fail "'${*:2}' did not name $1: $out"
    }
    rejected_by C1 queue_weight_adjust --tenant acme --class control --value 1
    rejected_by C2 path_switch --tenant acme --class rpc --value xsk
    rejected_by I3 queue_weight_adjust --tenant globex --class rpc --value 1 --agent tuner
    rejected_by form quota_borrow --tenant globex --value 1Mbit
    failsafe enter --reason test >/dev/null
    rejected_by L4 queue_weight_adjust --tenant acme --class rpc --value 1
    nothing_changed || fail "something changed"
    failsafe exit >/dev/null
    weight 999 --for 100ms >"$WORK/rewritten"
    grep -q 'rewritten to 200 by R1' "$WORK/rewritten" || fail "$(<"$WORK/rewritten")"
    no_hole
}

test_case "guardian: a tenant is governed by one at a time, another one beside" one_at_a_time
one_at_a_time() {
    begin "$CALM"
    hold_weight
    expect_error 1 'another session governs one of its tenants' weight 120 --for 1s
    TENANT=globex weight 120 --for 100ms >/dev/null || fail "no change of another tenant is possible"
    kill -INT "$held"
    ended 0 stopped
    weight 120 --for 100ms >/dev/null || fail "the tenant is not free again"
    no_hole
}

test_case "guardian: what cannot be meant exits with 2 and asks for nothing" bad_input
bad_input() {
    begin "$CALM"
    local before
    before=$(guardian audit.seq)
    expect_error 2 'is not a weight' weight much --for 1s
    expect_error 2 'has no tenant "nobody"' propose queue_weight_adjust --tenant nobody --class rpc --value 1 --for 1s
    expect_error 2 'has no service "nothing"' propose flow_class_escalate --tenant acme --service nothing --value bulk --for 1s
    expect_error 2 'has no agent "nobody"' weight 1 --agent nobody --for 1s
    expect_error 2 'is not a class' propose queue_weight_adjust --tenant acme --class fast --value 1 --for 1s
    expect_error 2 '--class is required' propose queue_weight_adjust --tenant acme --value 1 --for 1s
    expect_error 2 'it has no --service' weight 1 --service echo --for 1s
    expect_error 2 'is not a path' propose path_switch --tenant acme --class rpc --value fast --for 1s
    expect_error 2 'the reason has 41 bytes' weight 1 --for 1s --reason 12345678901234567890123456789012345678901
    expect_error 2 '--reason is required' failsafe enter
    expect_error 2 'has no tenant "nobody"' failsafe enter --tenant nobody --reason test
    expect_error 2 'find interface lab9' "$LOAD" failsafe lab9 exit --netns $SERVER
    equal "$(guardian audit.seq)" "$before" "records"
    weight 150 --for 1s --dry-run | grep -q 'would ask for tenant acme: queue_weight_adjust rpc: 150, for 1s; nothing was asked'
    equal "$(guardian audit.seq)" "$before" "records after a dry run"
    detach >/dev/null
    expect_error 1 'agentnic is not attached to it' weight 1 --for 1s
    expect_error 1 'agentnic is not attached to it' failsafe exit
    expect_error 1 'agentnic is not attached to it' tail_of
}

test_case "guardian: another policy that comes in force gives the change back, and who held it hears of it" updated
updated() {
    begin '"heartbeat": "3s"'
    hold_weight
    policy '"heartbeat": "2s"' another
    "$LOAD" update lab0 --netns $SERVER --policy "$POLICY" >/dev/null
    nothing_changed || fail "it is still in force"
    ended 1 reverted
    alarmed 0 || fail "there is an alarm"
    equal "$(kinds '.session == 1 or .kind == "commit"')" "commit commit commit open decision revert commit close" "records"
    no_hole
}

test_case "guardian: a session that hardly ever had to be heard of outlives a policy with a short heartbeat" updated_heartbeat
updated_heartbeat() {
    begin '"heartbeat": "60s"'
    hold queue_weight_adjust --tenant acme --class rpc --value 100 --for 60s # as it is stated: nothing is to be given back
    sleep 3
    policy '"heartbeat": "2s"' another
    "$LOAD" update lab0 --netns $SERVER --policy "$POLICY" >/dev/null
    sleep 4
    alarmed 0 || fail "there is an alarm: $(guardian failsafes)"
    kill -INT "$held"
    ended 0 stopped
}

test_case "guardian: A3: the chain goes on with the programs of an upgrade, and a detach is its last record" last_record
last_record() {
    begin "$CALM"
    "$AUDIT" tail lab0 --netns $SERVER --follow --json >"$WORK/follow" &
    local follower=$!
    weight 150 --for 100ms >/dev/null
    "$LOAD" upgrade lab0 --netns $SERVER >/dev/null
    weight 150 --for 100ms >/dev/null
    failsafe enter --reason 'the new programs' >/dev/null
    detach >/dev/null
    until_true 10 grep -q '"kind":"detach"' "$WORK/follow"
    kill -INT $follower
    wait $follower || true
    equal "$(jq -s -c '[.[].record.seq] == [range(1; length + 1)]' "$WORK/follow")" true "numbers of the records"
    equal "$(jq -s -r '[.[].record | select(.kind == "decision" or .kind == "failsafe").kind] | join(" ")' "$WORK/follow")" "decision decision failsafe" "what was decided"
    equal "$(tail -n 1 "$WORK/follow" | jq -r '.record | "\(.kind) \(.invariant)"')" "detach A3" "the last record"
}

test_case "guardian: a detach under a change that is held leaves nothing, and who held it hears of it" detached
detached() {
    begin "$QUICK"
    hold_weight
    detach >/dev/null
    nothing_left
    ended 1 void
    grep -q . "$WORK/held.err" && fail "an error beside: $(<"$WORK/held.err")"
    attach >/dev/null
    nothing_changed || fail "the change is in force again"
    no_session || fail "there is a session"
    equal "$(kinds true)" "attach commit commit commit" "records"
}

test_case "guardian: an operator puts all under the fallback profile, twice without harm, and ends it" by_operator
by_operator() {
    begin "$CALM, \"cool_down\": \"100ms\""
    hold_weight
    failsafe enter --reason maintenance | grep -q 'the instance is in fail-safe until you end it'
    failsafe enter --reason maintenance | grep -q 'was in fail-safe by an operator already'
    nothing_changed || fail "it is still in force"
    equal "$(guardian 'failsafes | map([.tenant, .kind, .reason, .in_force, .until_unix_ns]) | tojson')" '[[null,"operator","maintenance",true,null]]' "fail-safe"
    serve --transport udp --address $SERVER_IP --port 9000 --wait block
    ask 9000
    answered
    stop_serving
    sleep 0.3
    in_failsafe 1 || fail "it ended by itself"
    failsafe exit | grep -q 'the instance has left fail-safe'
    failsafe exit --json | jq -e '.already == true' >/dev/null
    "$LOAD" status >/dev/null || fail "status still says that something is wrong"
    kill -INT "$held"
    wait "$held" || true
    no_hole
}

test_case "guardian: tail prints sentences and JSON, --take takes them, and the numbers go on" takes
takes() {
    begin "$CALM"
    weight 150 --for 100ms --reason 'to see it' >/dev/null
    tail_of >"$WORK/sentences"
    equal "$(wc -l <"$WORK/sentences")" 9 "sentences, the last of which is that they were read"
    [[ $(tail -n 1 "$WORK/sentences") == *"user 0 read"* ]] || fail "the read: $(tail -n 1 "$WORK/sentences")"
    grep -q '^#1 .* the audit begins: attached at ' "$WORK/sentences"
    grep -q '^#6 .* tenant acme: session 1 asked queue_weight_adjust rpc 100 -> 150.*"to see it".*: approved, until ' "$WORK/sentences" || fail "$(<"$WORK/sentences")"
    equal "$(tail_of --json | jq -r .record.sentence | head -n 9)" "$(<"$WORK/sentences")" "sentences in JSON"
    no_hole
    equal "$(tail_of --take | wc -l)" 12 "records taken, with three more reads"
    equal "$(guardian audit.ring_unread_bytes)" 0 "bytes left"
    equal "$(tail_of | wc -l)" 1 "records left, but for that of this read"
    weight 150 --for 100ms >/dev/null
    equal "$(tail_of --json | jq -s -c 'map(.record.seq)')" "[13,14,15,16,17,18]" "numbers that follow"
    "$AUDIT" tail lab0 --netns $SERVER --follow --json >"$WORK/follow" &
    local follower=$!
    until_true 5 grep -q '"seq":19' "$WORK/follow"
    weight 150 --for 100ms >/dev/null
    until_true 5 grep -q '"seq":23' "$WORK/follow"
    kill -INT $follower
    wait $follower || fail "tail --follow failed"
    equal "$(jq -s -c 'map(.record.seq) == [range(13; 24)]' "$WORK/follow")" true "numbers that were followed"
}

test_case "guardian: detach says how many records nobody took, unless a recorder has the ring" untaken
untaken() {
    begin "$CALM"
    try detach
    equal "$status" 0 "exit status"
    equal "$err" "7 records of the audit were taken by nobody and are gone with it; hint: agentnic-audit record" "what it said"
    attach >/dev/null
    tail_of --take >/dev/null
    try detach --json
    equal "$err" "3 records of the audit were taken by nobody and are gone with it; hint: agentnic-audit record" "what it said of the end alone"
    equal "$(jq -c '.detached | map([.interface, .untaken_records])' <<<"$out")" '[["lab0",3]]' "what it said in JSON"
    attach >/dev/null
    (exec 9<"$(pin_dir)" && flock --exclusive 9 && exec sleep 60) &
    local recorder=$!
    until_true 5 held_by_recorder
    try detach --json
    kill $recorder
    equal "$err" "" "what it said beside a recorder"
    equal "$(jq .detached[0].untaken_records <<<"$out")" 0 "records that are lost beside a recorder"
    try detach
    equal "$err" "" "what it said where nothing is"
}
pin_dir() { dirname "$(pins | grep '/anic_audit$')"; }
held_by_recorder() { ! flock --shared --nonblock "$(pin_dir)" true; }

test_case "guardian: without root each command says what it lacks, and nobody sees the pins" without_root
without_root() {
    begin "$CALM"
    nobody() { setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs "$@"; }
    # Where nobody may go.
    cp "$LOAD" "$AUDIT" "$WORK" && chmod -R a+rX "$WORK"
    expect_error 1 'root' nobody "$WORK/agentnic-load" propose lab0 queue_weight_adjust --tenant acme --class rpc --value 150 --for 1s
    expect_error 1 'root' nobody "$WORK/agentnic-load" failsafe lab0 exit
    expect_error 1 'root' nobody "$WORK/agentnic-audit" tail lab0
    local pin
    pin=$(pins | grep anic_modes)
    [ -n "$pin" ] || fail "there is no pin anic_modes"
    ! nobody bpftool map show pinned "$pin" >/dev/null 2>&1 || fail "anybody can open $pin"
    bpftool map update pinned "$pin" key 0 0 0 0 value hex "$(printf '00 %.0s' $(seq 512))" 2>/dev/null && fail "root wrote to anic_modes"
    nothing_changed || fail "something changed"
}

main "$@"
