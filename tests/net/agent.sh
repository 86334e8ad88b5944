#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# agentnic-agent by the real program: controllers built in and not, whatever they do and however they end.
# shellcheck disable=SC2119  # arguments of attach are optional
# shellcheck source=tests/harness/net.sh
. "$(dirname "$0")/../harness/net.sh"

AGENT=$ROOT/.build/bin/agentnic-agent
AUDIT=$ROOT/.build/bin/agentnic-audit
PROGRAM=$(<"$ROOT/tests/harness/agent.py") # as text: who is confined may not be able to read this folder
HEARTBEAT=1s
[ "${AGENTNIC_PATIENCE:-1}" = 1 ] || HEARTBEAT=20s # an emulated python takes seconds to start

# policy AGENT-TENANTS: the agent tuner governs these, critic governs globex.
policy() {
    POLICY=$WORK/guarded.json
    cat >"$POLICY" <<EOF
{"version": 1, "name": "guarded", "link_rate": "100Mbit", "guardian": {"heartbeat": "$HEARTBEAT", "cool_down": "60s"},
 "classes": {"rpc": {"weight": 100, "slo": "5ms"}},
 "tenants": [{"name": "acme", "prefixes": ["198.18.0.1/32"]}, {"name": "globex", "prefixes": ["192.0.2.0/24"]}],
 "agents": [{"name": "tuner", "tenants": [$1], "kinds": ["queue_weight_adjust"], "classes": ["rpc"]},
            {"name": "critic", "tenants": ["globex"], "kinds": ["queue_weight_adjust"], "classes": ["rpc", "bulk"]}],
 "services": [{"name": "echo", "protocol": "udp", "port": 9000, "class": "rpc", "path": "kernel"}]}
EOF
}

begin() {
    policy '"acme"'
    attach >/dev/null
}

agent() { "$AGENT" lab0 --netns $SERVER --agent "${NAME:-tuner}" "$@"; }
program() { agent --exec python3 -c "$PROGRAM" "$@"; }
said() { grep -q "$1" "$WORK/agent.err"; }
tail_of() { "$AUDIT" tail lab0 --netns $SERVER --json | jq -r ".record | $1"; }
guardian() { field "guardian.$1"; }
failsafes() { guardian 'failsafes | map(.tenant + " " + .invariant) | join(",")'; }
in_failsafe() { [ "$(failsafes)" = "$1" ]; }
no_session() { [ "$(guardian 'sessions | length')" = 0 ]; }

# start WHAT OPTIONS...: a program beside the test; its supervisor is $agent_pid, what it says in $WORK/agent.err.
start() {
    : >"$WORK/agent.err"
    "$AGENT" lab0 --netns $SERVER --agent "${NAME:-tuner}" "${@:2}" --exec python3 -c "$PROGRAM" "$1" 2>"$WORK/agent.err" &
    agent_pid=$!
    until_true 10 heard
}
heard() { [ "$(guardian 'sessions[0].heard_unix_ns // 0')" != 0 ]; }

# part head|tail: the process of the program, which was started first, or of the agent.
part() { pgrep -P "$agent_pid" | "$1" -n 1; }

# ended STATUS: the one beside the test.
ended() {
    local code=0
    wait "$agent_pid" || code=$?
    equal $code "$1" "exit status of the agent ($(<"$WORK/agent.err"))"
}

nothing_left() {
    no_session || fail "a session is left: $(guardian sessions)"
    nothing_left_but_sessions
}
nothing_left_but_sessions() {
    until_true 10 no_cgroup_left
}
# Those of other tests that run meanwhile are held by their supervisors, or are removed by these tests.
no_cgroup_left() {
    local folder
    while read -r folder; do
        ! flock --nonblock "$folder" true 2>/dev/null || return 1
    done < <(find /sys/fs/cgroup -mindepth 2 -maxdepth 4 -path '*agentnic-agents/session-*' -type d 2>/dev/null)
}

test_case "agent: the built-in controller holds a session, proposes nothing, and closes it" static
static() {
    begin
    try agent --ticks 20
    equal "$status" 0 "exit status ($err)"
    equal "$(tail_of 'select(.kind == "open") | .agent')" tuner "agent of the session"
    equal "$(tail_of 'select(.kind == "close") | .kind')" close "the end of the session"
    equal "$(tail_of 'select(.kind == "decision") | .kind')" "" "decisions"
    equal "$(failsafes)" "" "fail-safes"
    nothing_left
}

test_case "agent: a program's proposal applies, is answered and recorded, and given back when it is stopped" applies smoke
applies() {
    begin
    start propose
    until_true 10 said "decision 7 approve None"
    equal "$(guardian 'changes[0].in_force_weight')" 150 "weight in force"
    kill -TERM $agent_pid
    ended 0
    equal "$(tail_of 'select(.kind == "decision") | .reason')" "a test" "reason in the audit"
    equal "$(tail_of 'select(.kind == "revert") | .approved_weight')" 100 "weight given back"
    equal "$(failsafes)" "" "fail-safes"
    nothing_left
}

test_case "agent: the example of the documentation runs" example
example() {
    begin
    try agent --ticks 20 --exec python3 -c "$(<"$ROOT/docs/examples/agent.py")"
    equal "$status" 0 "exit status ($err)"
    equal "$err" "" "what it said"
}

# faulty WHAT TEXT OPTIONS...: it ends with this error, and its tenant is in fail-safe by L1.
faulty() {
    begin
    try agent "${@:3}" --exec python3 -c "$PROGRAM" "$1"
    equal "$status" 1 "exit status of $1 ($err)"
    [[ $err == *"$2"* ]] || fail "$1: did not say '$2': $err"
    until_true 30 in_failsafe "acme L1"
    nothing_left
}

test_case "agent: a program that is silent is ended, and its tenant in fail-safe" silent
silent() { faulty silent "did not answer for $HEARTBEAT"; }

test_case "agent: a program that is stopped is ended, and its tenant in fail-safe" stopped
stopped() {
    begin
    start good
    kill -STOP "$(part head)"
    ended 1
    said "did not answer for $HEARTBEAT" || fail "what it said: $(<"$WORK/agent.err")"
    until_true 30 in_failsafe "acme L1"
    nothing_left
}

test_case "agent: a program that sends garbage is told so, and ended" garbage
garbage() { faulty garbage "16 lines that are no answer"; }

test_case "agent: half a line and the end is an error" half
half() { faulty half "in the middle of a line"; }

test_case "agent: a line without end is an error, and not kept" long
long() { faulty long "a line longer than 65536 bytes"; }

test_case "agent: a program that floods with old answers is ended" flood
flood() { faulty flood "16 lines that are no answer"; }

test_case "agent: a program that does not read, and writes, is ended" deaf
deaf() { faulty deaf "16 lines that are no answer"; }

test_case "agent: a program that answers, and does not read, is ended before all memory is full of what it is to read" unread
unread() { faulty unread "does not read" --interval 1ms; }

test_case "agent: more proposals than fit are refused, all of them" many
many() { faulty many "/proposals/64: more than 64 proposals"; }

test_case "agent: a program that fails is reported with its status" dies
dies() { faulty dies "the program ended with status 3"; }

test_case "agent: a program that ends well closes its session, without alarm" ends_well
ends_well() {
    begin
    try program ends
    equal "$status" 0 "exit status ($err)"
    equal "$(failsafes)" "" "fail-safes"
    equal "$(tail_of 'select(.kind == "close") | .kind')" close "the end of the session"
    nothing_left
}

test_case "agent: what a program says on its standard error is passed on, cannot paint a terminal, and never holds it up" chatty
chatty() {
    begin
    try agent --ticks 10 --exec python3 -c "$PROGRAM" chatty
    equal "$status" 0 "exit status ($err)"
    [[ $err == *'the program says "\u001b[31mred'* ]] || fail "it was not passed on: $err"
    [[ $err != *$'\e'* ]] || fail "an escape sequence came through"
    try agent --ticks 10 --exec python3 -c "$PROGRAM" wordy # more than its pipe holds, before one answer
    equal "$status" 0 "exit status of a wordy one ($err)"
    [[ $err =~ "the program said "[0-9]{5}" bytes more" ]] || fail "it was not said how much was left out: $err"
    [ ${#err} -lt 9000 ] || fail "${#err} bytes were passed on"
}

test_case "agent: from inside there are no sockets, no files to write, no pins, no BPF, no other processes, no root" world smoke
world() {
    begin
    try program world
    equal "$status" 0 "exit status ($err)"
    local line what
    for what in socket pair root "change a lane" load "open a pin" drain "get by id" trace namespace mount outlive; do
        [[ $err == *"\"$what: Operation not permitted\""* ]] || fail "not refused: $what: $err"
    done
    for line in "file: Read-only file system" "device: No such file or directory" "pins: No such file or directory" "devices full,null,random,urandom,zero" \
        "user 65534" "processes 1" "network lo" "variables HOME,LANG,PATH" "descriptors 3"; do
        [[ $err == *"\"$line\""* ]] || fail "not '$line': $err"
    done
}

test_case "agent: with --allow-network and --env a program has sockets and a variable, and no more" networked
networked() {
    begin
    python3 -c 'import socket, sys; server = socket.create_server(("127.0.0.1", 0)); print(server.getsockname()[1], flush=True); server.accept()' >"$WORK/port" &
    until_true 10 test -s "$WORK/port"
    PORT=$(<"$WORK/port") TOKEN=secret try agent --allow-network --env TOKEN --env PORT --exec python3 -c "$PROGRAM" world
    equal "$status" 0 "exit status ($err)"
    local line
    for line in "socket: done" "connect: done" "variables HOME,LANG,PATH,PORT,TOKEN" "file: Read-only file system" "pins: Permission denied" \
        "open a pin: Operation not permitted" "root: Operation not permitted"; do
        [[ $err == *"\"$line\""* ]] || fail "not '$line': $err"
    done
}

test_case "agent: what a program starts does not outlive it" forks
forks() {
    begin
    try program forks
    equal "$status" 0 "exit status ($err)"
    nothing_left
}

test_case "agent: killed with all that it started, it leaves fail-safe to the guardian and no process" supervisor_killed once
supervisor_killed() {
    begin
    start propose
    until_true 10 said "decision 7 approve None"
    equal "$(pgrep -P $agent_pid | wc -l)" 2 "processes of an agent"
    local pids
    mapfile -t pids < <(pgrep -P $agent_pid)
    kill -KILL $agent_pid
    wait $agent_pid || true
    until_true 10 all_gone "${pids[@]}"
    until_true 30 in_failsafe "acme L1"
    equal "$(guardian 'changes | length')" 0 "changes in force"
    try agent --ticks 2 # and the next one starts, and clears what was left
    equal "$status" 0 "exit status of the next one ($err)"
    nothing_left
}
all_gone() {
    local pid
    for pid in "$@"; do
        [ ! -d "/proc/$pid" ] || return 1
    done
}

test_case "agent: killed inside, either process or both, it is reported, and its tenant in fail-safe" inside_killed
inside_killed() {
    begin
    inside_is_killed "the program was killed by signal 9" head -n 1 # the program was started first
    on_we_go
    inside_is_killed "the agent was killed by signal 9" tail -n 1
    on_we_go # a third time it would be the instance's
    NAME=critic TENANT=globex inside_is_killed "the agent was killed by signal 9" cat
}
on_we_go() { "$LOAD" failsafe lab0 --netns $SERVER exit --tenant acme --reason "on we go" >/dev/null; }

# inside_is_killed TEXT CHOOSE...: those that this chooses.
inside_is_killed() {
    start good
    pgrep -P $agent_pid | "${@:2}" | xargs kill -KILL
    ended 1
    said "$1" || fail "not '$1': $(<"$WORK/agent.err")"
    until_true 30 in_failsafe "${TENANT:-acme} L1"
    nothing_left
}

test_case "agent: killed while it starts, it leaves no process" killed_early
killed_early() {
    begin
    local names=(tuner critic) step # each has its tenant: a session that never began stays for a minute
    for step in 1 2; do
        try strace -qq -o /dev/null -e trace=clone3 -e inject=clone3:signal=KILL:when=$step \
            "$AGENT" lab0 --netns $SERVER --agent "${names[step - 1]}" --exec python3 -c "$PROGRAM" silent
        equal "$status" 137 "status of who was killed at its start of process $step ($err)"
        until_true 10 no_agent
    done
    nothing_left_but_sessions
}
no_agent() { ! pgrep -f -- "$AGENT lab0|python3 -c" >/dev/null; }

test_case "agent: asked to stop before it waits for anything, it stops" stopped_early
stopped_early() {
    begin
    try timeout 60 strace -qq -o /dev/null -e trace=setitimer -e inject=setitimer:signal=TERM:when=1 "$AGENT" lab0 --netns $SERVER --agent tuner
    equal "$status" 0 "exit status ($err)"
    equal "$(failsafes)" "" "fail-safes"
    nothing_left
}

test_case "agent: one that cannot be confined closes its session, for it had not begun" unconfined
unconfined() {
    begin
    try strace -f -qq -o /dev/null -e trace=mount_setattr -e inject=mount_setattr:error=EPERM "$AGENT" lab0 --netns $SERVER --agent tuner --ticks 1
    equal "$status" 1 "exit status ($err)"
    [[ $err == *"it had not begun, and its session was closed"* ]] || fail "what it said: $err"
    nothing_left
    try agent --ticks 2
    equal "$status" 0 "exit status of the next one ($err)"
    equal "$(failsafes)" "" "fail-safes"
}

test_case "agent: what takes longer to end than the heartbeat has time for is no good end" ends_late
ends_late() {
    begin
    local linger=0.7 # more than half the heartbeat
    [ "$HEARTBEAT" = 1s ] || linger=5
    LINGER=$linger try agent --env LINGER --exec python3 -c "$PROGRAM" lingers
    equal "$status" 1 "exit status of a program that lingers ($err)"
    [[ $err == *"the program was killed by signal 9"* ]] || fail "what it said: $err"
    until_true 30 in_failsafe "acme L1"
    on_we_go
    start good
    kill -STOP "$(part tail)"
    until_true 30 in_failsafe "acme L1"
    kill -TERM $agent_pid
    sleep 0.3 # so that the agent has it when it goes on
    kill -CONT "$(part tail)"
    ended 1
    said "was ended by the guardian; hint: agentnic-audit tail says why" || fail "what it said: $(<"$WORK/agent.err")"
    nothing_left
}

test_case "agent: with standard streams that are closed it runs as with others, and confined it does not have those of its supervisor" streams
streams() {
    begin
    try closed --ticks 3 --exec python3 -c "$PROGRAM" good
    equal "$status" 0 "exit status ($err)"
    "$AGENT" lab0 --netns $SERVER --agent tuner <"$POLICY" &
    agent_pid=$!
    until_true 10 heard
    equal "$(readlink "/proc/$(part tail)/fd/0")" /dev/null "standard input of the agent"
    kill -TERM $agent_pid
    : >"$WORK/agent.err"
    ended 0
}
closed() { agent "$@" <&- >&-; }

test_case "agent: two at once govern their own tenants, and do not see each other's" two
two() {
    begin
    start propose_always
    NAME=critic try agent --ticks 10 --exec python3 -c "$PROGRAM" others
    equal "$status" 0 "exit status of the second ($err)"
    [[ $err == *'"tenants globex classes bulk,rpc"'* ]] || fail "the second saw something else: $err"
    [[ $err == *'"decision 7 '* ]] || fail "the second got no decision: $err"
    try agent --ticks 2
    equal "$status" 1 "a second for the same tenant"
    [[ $err == *"another session governs one of its tenants"* ]] || fail "a second for the same tenant: $err"
    kill -TERM $agent_pid
    ended 0
    nothing_left
}

test_case "agent: what an update takes from it is gone from its sight, and refused by I3" update_removes
update_removes() {
    policy '"acme", "globex"'
    attach >/dev/null
    start insist
    until_true 10 said "decision 8 approve"
    policy '"acme"'
    "$LOAD" update lab0 --netns $SERVER --policy "$POLICY" >/dev/null
    until_true 10 said "decision 8 reject I3"
    : >"$WORK/agent.err"
    until_true 10 said "decision 7 approve" # it goes on with what it has left
    until_true 10 globex_is_free
    kill -TERM $agent_pid
    ended 0
}
# Another agent can have it: the session governs it no more.
globex_is_free() { NAME=critic agent --ticks 1 2>/dev/null; }

test_case "agent: an update that removes it ends it, without alarm" update_ends
update_ends() {
    begin
    start good
    jq '.agents |= map(select(.name != "tuner"))' "$POLICY" >"$WORK/without.json"
    "$LOAD" update lab0 --netns $SERVER --policy "$WORK/without.json" >/dev/null
    ended 1
    said "session 1 was ended by the guardian" || fail "what it said: $(<"$WORK/agent.err")"
    said "the guardian had ended its session" || fail "its supervisor did not say so: $(<"$WORK/agent.err")"
    equal "$(failsafes)" "" "fail-safes"
    nothing_left
}

# recorded WHAT: what a program was told and said until it was stopped, with a proposal among it, in $TAPE.
recorded() {
    begin
    TAPE=$WORK/tape
    start "$1" --record "$TAPE"
    until_true 10 said "decision 7 approve None"
    kill -TERM $agent_pid
    ended 0
}
types() { jq -r .type "$1" | uniq | head -"$2" | paste -sd ' '; }
# replay OPTIONS...: of $TAPE.
# shellcheck disable=SC2120 # it gets them by way of `try`
replay() { "$AGENT" --replay "$TAPE" "$@"; }

test_case "agent: a recording replays, without a kernel, to the same proposals, with the same decisions" replays
replays() {
    recorded propose
    "$LOAD" detach lab0 --netns $SERVER
    equal "$(types "$TAPE" 4)" "recording hello observation answer" "lines of the recording"
    equal "$(jq -r 'select(.type == "decision") | .decided' "$TAPE")" approve "decisions in it"
    equal "$(stat -c %a "$TAPE")" 600 "mode of the recording"
    try replay --record "$WORK/copy" --exec python3 -c "$PROGRAM" propose
    equal "$status" 0 "exit status ($out $err)"
    [[ $out == *" observations, 1 proposals: all as recorded" ]] || fail "the result: $out"
    [[ $err == *'"decision 7 approve None"'* ]] || fail "no decision was passed on: $err"
    # The last observation may have had no answer when it was stopped.
    cmp "$WORK/copy" <(head -c "$(stat -c %s "$WORK/copy")" "$TAPE") || fail "the recording of the replay is another"
    nothing_left
}

test_case "agent: a replay that differs says where, and what was said then and now" differs
differs() {
    recorded propose
    try replay --record "$WORK/other" --exec python3 -c "$PROGRAM" good
    equal "$status" 1 "exit status ($err)"
    [[ $out == *"0 proposals: 1 answers are not those of the recording"*"tick 3"*'"value":150'* ]] || fail "the result: $out"
    [[ $err != *"decision"* ]] || fail "it was told a decision on what it did not ask: $err"
    try replay --json --exec python3 -c "$PROGRAM" good
    equal "$status" 1 "exit status ($err)"
    equal "$(jq -c '[.schema, .different, .first.tick, .first.recorded[0].value, .first.replayed]' <<<"$out")" \
        '["agentnic.replay/1",1,3,150,[]]' "the result as JSON"
    TAPE=$WORK/other
    try replay --exec python3 -c "$PROGRAM" good
    equal "$status" 0 "exit status of the replay's own recording ($out $err)"
}

test_case "agent: a recording of the built-in controller replays by itself, and for who has no privileges" replays_static
replays_static() {
    begin
    TAPE=$WORK/tape
    try agent --ticks 20 --record "$TAPE"
    equal "$status" 0 "exit status ($err)"
    try replay
    equal "$status" 0 "exit status ($err)"
    equal "$out" "20 observations, 0 proposals: all as recorded" "the result"
    chmod 755 "$WORK" && chmod 644 "$TAPE"
    local nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all)
    try "${nobody[@]}" "$AGENT" --replay "$TAPE"
    equal "$status" 0 "exit status without privileges ($err)"
    try "${nobody[@]}" "$AGENT" --replay "$TAPE" --exec python3 -c "$PROGRAM" dies
    equal "$status" 1 "exit status of a program without privileges ($err)"
    [[ $err == *"the program ended with status 3 before the recording did"* ]] || fail "what it said: $err"
    try "${nobody[@]}" "$AGENT" --replay "$TAPE" --exec python3 -c "$PROGRAM" good
    equal "$out" "20 observations, 0 proposals: all as recorded" "the result of a program without privileges ($err)"
}

test_case "agent: a recording that is cut is replayed to there; a broken one is told with its line" broken_recordings
broken_recordings() {
    begin
    TAPE=$WORK/tape
    agent --ticks 20 --record "$TAPE"
    expect_error 2 "record to \"$TAPE\": File exists; hint: move it away" agent --ticks 1 --record "$TAPE"
    equal "$(replay)" "20 observations, 0 proposals: all as recorded" "the result after that"
    cp "$TAPE" "$WORK/whole"
    truncate -s -9 "$TAPE"
    try replay
    equal "$status" 0 "exit status of a cut one ($err)"
    equal "$out" "19 observations, 0 proposals: all as recorded" "the result of a cut one"
    [[ $err == *"ends in the middle of a line"* ]] || fail "it did not say that it is cut: $err"
    sed '7s/"tick":/"tock":/' "$WORK/whole" >"$TAPE"
    expect_error 2 'line 7 of the recording: /: the key "tick" is missing' replay
    sed '1s/null/1/; 1s/"static"/1/' "$WORK/whole" >"$TAPE"
    expect_error 2 'line 1 of the recording: /controller: a string belongs here' replay
    head -1 "$WORK/whole" >"$TAPE"
    expect_error 2 "the recording ends after 1 lines" replay
    head -c 2000000 /dev/zero >"$TAPE"
    expect_error 2 "line 1 of the recording: longer than 1048576 bytes" replay
    sed '1s/"static"/null/' "$WORK/whole" >"$TAPE"
    expect_error 2 "the recording is that of a program; hint: --exec" replay
    TAPE=$WORK/nowhere expect_error 2 "No such file or directory" replay
    expect_error 2 "excludes" replay lab0
    expect_error 2 "no interface is named" "$AGENT" --ticks 1
}

test_case "agent: when the disk is full, the recording ends and the agent goes on" full_disk
full_disk() {
    begin
    mkdir "$WORK/full"
    mount -t tmpfs -o size=64k none "$WORK/full"
    TAPE=$WORK/full/tape
    try agent --ticks 300 --record "$TAPE"
    equal "$status" 0 "exit status ($err)"
    equal "$(grep -c "the recording ends here: write to it: No space left on device" <<<"$err")" 1 "how often it was said"
    try replay
    equal "$status" 0 "exit status of the replay ($err)"
    [[ $out == *"all as recorded" ]] || fail "the result: $out"
    umount "$WORK/full"
}

# systemd as a guest has no other: it boots the unit and nothing else. On a machine that somebody uses it would begin
# to clean up.
test_case "agent: its unit runs it in the unit's cgroup, with its limits, and stops it well" unit plain once
unit() {
    begin
    local name=agentnic-agent@lab0.service units=/run/systemd/system
    mkdir -p $units/$name.d /etc/agentnic
    cp "$ROOT/userspace/units/agentnic-agent@.service" $units/
    printf '%s\n' '[Unit]' DefaultDependencies=no '[Service]' ExecStart= "ExecStart=$AGENT %i \$OPTIONS" >$units/$name.d/test.conf
    echo "OPTIONS=--netns $SERVER --agent tuner --processes 20 --exec python3 $ROOT/tests/harness/agent.py propose" >/etc/agentnic/agent-lab0
    container='test' unshare --pid --fork --kill-child --mount-proc /lib/systemd/systemd --system --unit=$name --log-target=console >"$WORK/systemd" 2>&1 &
    local systemd=$!
    until_true 30 has_change
    local inside
    inside=$(find /sys/fs/cgroup -path "*/$name/agentnic-agents/session-*" -name pids.max)
    equal "$(cat "$inside")" 20 "processes that it may have, in '$inside' ($(<"$WORK/systemd"))"
    equal "$(cat "${inside%pids.max}memory.max")" $((512 << 20)) "memory that it may have"
    equal "$(wc -l <"${inside%pids.max}cgroup.procs")" 2 "processes in its cgroup"
    in_namespace_of $systemd systemctl stop $name || fail "the unit does not stop: $(<"$WORK/systemd")"
    equal "$(in_namespace_of $systemd systemctl show --property=Result --value $name)" success "how the unit ended ($(<"$WORK/systemd"))"
    equal "$(failsafes)" "" "fail-safes"
    no_session || fail "a session is left: $(guardian sessions)"
    kill -KILL $systemd
}
has_change() { [ "$(guardian 'changes | length')" = 1 ]; }

test_case "agent: what cannot be run is told before anything is begun" refused
refused() {
    expect_error 1 "agentnic is not attached to it" agent --ticks 1
    begin
    expect_error 2 'no agent "vandal"' env NAME=vandal "$AGENT" lab0 --netns $SERVER --agent vandal
    expect_error 2 "has 2 agents; hint: --agent" "$AGENT" lab0 --netns $SERVER
    expect_error 2 "user root is root" agent --user root
    expect_error 2 "there is no user nemo" agent --user nemo
    expect_error 2 "no program is named" agent --exec
    expect_error 2 "--env \"NOT_SET\": it is not set" agent --env NOT_SET --exec true
    expect_error 2 "--controller" agent --controller magic
    expect_error 2 "an interval of 15s is more than half the policy's heartbeat of $HEARTBEAT; hint: --interval" agent --interval 15s
    equal "$(tail_of 'select(.kind == "open") | .kind')" "" "sessions that were opened"
}

test_case "agent: a program that is not there is told, and leaves fail-safe" not_there
not_there() {
    begin
    try agent --exec /no/such/program
    equal "$status" 1 "exit status ($err)"
    [[ $err == *"cannot start /no/such/program: No such file or directory"* ]] || fail "it did not say what is not there: $err"
    until_true 30 in_failsafe "acme L1"
    nothing_left
}

test_case "agent: a dry run prints what an agent would be told, and opens nothing" dry
dry() {
    policy '"acme"'
    jq '.classes.rpc.cpus = [1, 0]' "$POLICY" >"$WORK/spread.json"
    POLICY=$WORK/spread.json
    attach >/dev/null
    try agent --dry-run
    equal "$status" 0 "exit status ($err)"
    equal "$(jq -c '[.type, .agent, .tenants, .kinds, .classes]' <<<"$out")" '["hello","tuner",["acme"],["queue_weight_adjust"],["rpc"]]' "hello"
    equal "$(jq -c .spreads <<<"$out")" '[{"tenant":"acme","class":"rpc","cpus":[1,0]}]' "CPUs of its class"
    equal "$(tail_of 'select(.kind == "open") | .kind')" "" "sessions that were opened"
}

main "$@"
