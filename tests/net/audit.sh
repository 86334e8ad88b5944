#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The audit log by the real programs: recorded under load, killed, on a full disk; verified by others; read by those who may.
# shellcheck disable=SC2119  # arguments of detach are optional
# shellcheck source=tests/harness/net.sh
. "$(dirname "$0")/../harness/net.sh"

AUDIT=$ROOT/.build/bin/agentnic-audit
AGENT=$ROOT/.build/bin/agentnic-agent
PYTHON=/usr/bin/python3
WRITER=61001 OPERATORS=61002 TENANT=61003 STRANGER=61004 # no user of this machine

# The client is the tenant acme, which may have as many changes as it likes; nobody is globex.
policy() {
    POLICY=$WORK/audited.json
    cat >"$POLICY" <<EOF
{"version": 1, "name": "audited", "link_rate": "100Mbit", "classes": {"rpc": {"weight": 100}},
 "guardian": {"heartbeat": "60s", "oscillation": {"window": "1us", "flips": 1000}, "weight": {"step": 1000},
              "changes": {"tenant": 10000000, "total": 10000000}},
 "tenants": [{"name": "acme", "prefixes": ["198.18.0.1/32"]}, {"name": "globex", "prefixes": ["192.0.2.0/24"]}],
 "agents": [{"name": "tuner", "tenants": ["acme"], "kinds": ["queue_weight_adjust"], "classes": ["rpc"]}],
 "services": [{"name": "echo", "protocol": "udp", "port": 9000, "class": "rpc", "path": "kernel"}]}
EOF
}

# Keys, an attached interface, and a folder that others may pass through.
begin() {
    policy
    chmod 0711 "$WORK"
    KEYS=$WORK/keys LOG=$WORK/log
    "$AUDIT" keygen "$KEYS" --origin audit.example.net/test/lab0 >/dev/null
    cp "$KEYS/chain.key" "$WORK/auditor.key"
    attach --chain-key "$KEYS/chain.key" >/dev/null
}

# Starts a recorder; its pid is $recorder, what it says in $WORK/recorder and recorder.err.
record() {
    : >"$WORK/recorder"
    "$AUDIT" record lab0 --netns $SERVER --log "$LOG" --key "$KEYS/log.key" --user $WRITER --group $OPERATORS --json "$@" >"$WORK/recorder" 2>"$WORK/recorder.err" &
    recorder=$!
    until_true 20 began
}
began() { grep -q begin "$WORK/recorder" || ! kill -0 "$recorder" 2>/dev/null; }

# Asks it to end; it exits with 0.
stop_recording() {
    kill -TERM "$recorder"
    wait "$recorder" || fail "the recorder failed: $(<"$WORK/recorder.err")"
}

# decide TICKS: 64 decisions each, by an agent.
decide() {
    "$AGENT" lab0 --netns $SERVER --agent tuner --interval 2ms --ticks "$1" --exec $PYTHON -c "$(<"$ROOT/tests/harness/decide.py")" >/dev/null
}
propose() {
    "$LOAD" propose lab0 --netns $SERVER queue_weight_adjust --tenant "$1" --class rpc --value 150 --for 10ms --reason "of $1" >"$WORK/proposed" ||
        fail "propose said: $(<"$WORK/proposed")"
}
# All that is in the ring is the recorder's.
taken() { [ "$(field guardian.audit.ring_unread_bytes)" = 0 ]; }

verify() { "$AUDIT" verify "$LOG" --public-key "$KEYS/log.pub" --json "$@"; }
# valid OPTIONS...: the log is, and $found is what was said of it.
valid() {
    local code=0
    found=$(verify "$@") || code=$?
    equal "$code" 0 "verify ($(jq -c . <<<"$found") $(<"$WORK/recorder.err"))"
}
# as UID GID COMMAND...: as somebody else.
as() { setpriv --reuid "$1" --regid "$2" --clear-groups --no-new-privs "${@:3}"; }
python_verify() { $PYTHON "$ROOT/docs/examples/verify.py" "$@"; }
logged() { jq -s -c "map(.record | $1)" < <("$AUDIT" tail --log "$LOG" --json 2>/dev/null); }

test_case "audit: what was decided is in the log, which the program, a script made from the page and openssl verify" keeps once
keeps() {
    begin
    record
    local ticks=${AGENTNIC_TICKS:-100}
    decide "$ticks"
    until_true 60 taken # without room for its record, what is asked for is rejected
    propose globex
    detach >/dev/null
    wait "$recorder" || fail "the recorder failed: $(<"$WORK/recorder.err")"
    equal "$(tail -n 1 "$WORK/recorder" | jq -c '[.event, .detached]')" '["end",true]' "its last word"
    valid
    equal "$(jq -c '[.verdict, .mode, .live, .chains, .chains_without_end, .records == .sealed_records]' <<<"$found")" '["valid","public",false,1,0,true]' "public verification"
    valid --chain-key "$WORK/auditor.key"
    equal "$(jq '.keyed_records == .records' <<<"$found")" true "MACs of all records"
    equal "$(logged .seq)" "$(jq -c '[range(1; .records + 1)]' <<<"$found")" "numbers of the records"
    equal "$(logged 'select(.kind == "decision" and .tenant == "acme") | .count' | jq add)" $((ticks * 64)) "decisions on the agent's proposals"
    python_verify log "$LOG" "$KEYS/log.pub" >"$WORK/script" || fail "the script: $(<"$WORK/script")"
    [[ $(<"$WORK/script") == "valid: $(jq .records <<<"$found") records"* ]] || fail "the script said: $(<"$WORK/script")"
    command -v openssl >/dev/null || skip "no openssl here; all else was verified"
    mkdir "$WORK/split"
    python_verify split "$LOG" "$KEYS/log.pub" "$WORK/split"
    openssl pkeyutl -verify -pubin -inkey "$WORK/split/key.pem" -rawin -in "$WORK/split/body" -sigfile "$WORK/split/signature" >"$WORK/openssl" || fail "openssl: $(<"$WORK/openssl")"
    nothing_left
}

test_case "audit: killed again and again under load, a recorder loses and repeats nothing" killed
killed() {
    begin
    # By the line: what is killed may have said nothing yet.
    decide "${AGENTNIC_TICKS:-600}" &
    local agent=$! kills=0 most=${AGENTNIC_KILLS:-12}
    while [ $kills -lt "$most" ]; do
        record --checkpoint-seconds 1 --checkpoint-records 5000 --sync-ms $((RANDOM % 100 + 1))
        sleep "0.$((RANDOM % 900 + 100))"
        kill -KILL "$recorder"
        wait "$recorder" 2>/dev/null || true
        ! grep -v '^agentnic-audit: .* were cut off$' "$WORK/recorder.err" || fail "it had something to say"
        kills=$((kills + 1))
        if ! kill -0 $agent 2>/dev/null; then
            decide "${AGENTNIC_TICKS:-600}" &
            agent=$!
        fi
    done
    record
    wait $agent || fail "the agent failed"
    detach >/dev/null
    wait "$recorder" || fail "the recorder failed: $(<"$WORK/recorder.err")"
    valid --chain-key "$WORK/auditor.key"
    equal "$(jq -c '[.chains, .chains_without_end, .keyed_records == .records, .records == .sealed_records]' <<<"$found")" '[1,0,true,true]' "the log"
    echo "$kills kills, $(jq .records <<<"$found") records"
}

test_case "audit: on a full disk records wait in the ring, and nothing is lost when there is room again" full_disk
full_disk() {
    begin
    mkdir -m 0711 "$WORK/small"
    mount -t tmpfs -o size=1m,mode=0711 tmpfs "$WORK/small"
    LOG=$WORK/small/log
    head -c 600k /dev/zero >"$WORK/small/ballast"
    record
    decide 200
    until_true 10 grep -q 'No space left on device; records stay in the kernel' "$WORK/recorder.err"
    decide 200
    equal "$(wc -l <"$WORK/recorder.err")" 1 "how often it said so"
    kill -0 "$recorder" || fail "it ended: $(<"$WORK/recorder.err")"
    # Also for one that is killed meanwhile, and starts on a full disk.
    kill -KILL "$recorder"
    wait "$recorder" 2>/dev/null || true
    mount -o remount,size=20m "$WORK/small"
    record
    decide 50
    stop_recording
    valid --chain-key "$WORK/auditor.key"
    equal "$(jq '.records == .sealed_records' <<<"$found")" true "sealed"
    [ "$(logged 'select(.kind == "lost") | .lost_records.decision' | jq 'add // 0')" -gt 0 ] || fail "nothing was refused for want of room"
    umount "$WORK/small"
}

test_case "audit: there is one recorder of a log and of an interface, and nobody takes records beside it" alone_here
alone_here() {
    begin
    record
    expect_error 1 "a recorder takes them" "$AUDIT" record lab0 --netns $SERVER --log "$WORK/other" --key "$KEYS/log.key" --user $WRITER
    expect_error 1 "a recorder takes them" "$AUDIT" tail lab0 --netns $SERVER --take
    ip netns add other
    ip -n other link add lab0 type veth peer name lab1
    ip -n other link set lab0 up
    "$LOAD" attach lab0 --netns other --policy "$POLICY" --mode skb >/dev/null
    expect_error 1 "another recorder is at work" "$AUDIT" record lab0 --netns other --log "$LOG" --key "$KEYS/log.key" --user $WRITER --group $OPERATORS
    "$LOAD" detach lab0 --netns other 2>/dev/null
    stop_recording
    valid
}

test_case "audit: the recorder has no privileges, and gives checkpoints to a file and a program" powerless
powerless() {
    begin
    cat >"$WORK/witness" <<EOF
#!/bin/sh
cat >>$WORK/seen/notes
id -u >$WORK/seen/uid
EOF
    chmod 0755 "$WORK/witness"
    install -d -m 0755 -o $WRITER "$WORK/seen"
    record --checkpoint-seconds 1 --checkpoint-file "$WORK/seen/newest" --checkpoint-command "$WORK/witness"
    equal "$(awk '$1 ~ /^(Uid|Gid):$/ { print $2, $3, $4, $5 }' "/proc/$recorder/status" | paste -sd ' ')" "$WRITER $WRITER $WRITER $WRITER $OPERATORS $OPERATORS $OPERATORS $OPERATORS" "user and group"
    equal "$(awk '$1 ~ /^Cap/ { print $2 }' "/proc/$recorder/status" | sort -u)" 0000000000000000 "capabilities"
    equal "$(awk '$1 == "NoNewPrivs:" { print $2 }' "/proc/$recorder/status")" 1 "no_new_privs"
    equal "$(awk '$1 == "Groups:" { print NF }' "/proc/$recorder/status")" 1 "other groups"
    decide 20
    until_true 10 test -s "$WORK/seen/newest"
    propose globex
    stop_recording
    equal "$(cat "$WORK/seen/uid")" $WRITER "user of the witness"
    verify --against "$WORK/seen/newest" --against "$WORK/seen/notes" >/dev/null || fail "checkpoints from elsewhere: $(verify --against "$WORK/seen/notes")"
    equal "$(tail -n 5 "$WORK/seen/notes")" "$(tail -n 5 "$LOG/checkpoints")" "the last checkpoint of the witness"
    # A log that somebody wrote anew from the same records does not agree with what the witness has seen.
    sed -i '2s/.*/3/' "$WORK/seen/newest"
    verify --against "$WORK/seen/newest" >"$WORK/verdict" && fail "a checkpoint that was changed was taken"
    equal "$(jq -r .fault.attack "$WORK/verdict")" changed "what it looks like"
}

test_case "audit: operators read the log, tenants their exports, verifiers what they are given, others nothing" who_reads
who_reads() {
    begin
    install -d -m 0750 -g $TENANT "$WORK/acme"
    record
    propose acme
    propose globex
    "$AUDIT" export --log "$LOG" --tenant acme --to "$WORK/acme" >/dev/null
    local operator=(as "$STRANGER" "$OPERATORS") tenant=(as "$STRANGER" "$TENANT") stranger=(as "$STRANGER" "$STRANGER")
    "${operator[@]}" "$AUDIT" tail --log "$LOG" >"$WORK/out"
    grep -q 'tenant globex: session 2 asked' "$WORK/out" || fail "an operator does not see the records: $(<"$WORK/out")"
    cp "$KEYS/log.pub" "$WORK/log.pub"
    "${operator[@]}" "$AUDIT" verify "$LOG" --public-key "$WORK/log.pub" >/dev/null || fail "an operator cannot verify"
    local file
    for file in "$LOG"/* "$LOG"/records/* "$LOG"/hashes/*; do
        ! "${operator[@]}" test -w "$file" || [ -S "$file" ] || fail "an operator may write to $file"
    done
    for file in "$LOG" "$LOG"/* "$LOG"/records/* "$KEYS"/*.key "$WORK/auditor.key"; do
        ! "${stranger[@]}" test -r "$file" || fail "a stranger reads $file"
        ! "${tenant[@]}" test -r "$file" || fail "a tenant reads $file"
    done
    ! "${operator[@]}" test -r "$KEYS/log.key" || fail "an operator reads the signing key"
    expect_error 1 "Permission denied" "${stranger[@]}" "$AUDIT" tail --log "$LOG"
    expect_error 1 "Permission denied" "${tenant[@]}" "$AUDIT" tail --log "$LOG"
    "${tenant[@]}" "$AUDIT" verify --export "$WORK/acme/acme.export" --public-key "$WORK/log.pub" >/dev/null || fail "a tenant cannot verify its export"
    ! "${stranger[@]}" test -r "$WORK/acme/acme.export" || fail "a stranger reads an export"
    ! grep -q globex "$WORK/acme/acme.export" || fail "an export names another tenant"
    expect_error 2 "others than its owner may write" "$AUDIT" export --log "$LOG" --tenant acme --to /tmp
    chmod 0644 "$KEYS/log.key"
    stop_recording
    expect_error 2 "it is a secret" "$AUDIT" record lab0 --netns $SERVER --log "$LOG" --key "$KEYS/log.key" --user $WRITER --group $OPERATORS
    expect_error 2 "is root" "$AUDIT" record lab0 --netns $SERVER --log "$LOG" --key "$KEYS/log.key" --user root
}

test_case "audit: reads and exports are recorded, and an export proves that it is all" reads
reads() {
    begin
    mkdir -m 0750 "$WORK/acme"
    record
    propose acme
    propose globex
    propose acme
    as $STRANGER $OPERATORS "$AUDIT" tail --log "$LOG" --tenant acme --kind decision >"$WORK/out"
    equal "$(wc -l <"$WORK/out")" 2 "decisions of acme ($(<"$WORK/out"))"
    "$AUDIT" export --log "$LOG" --tenant acme --to "$WORK/acme" --reason "as asked" --json >"$WORK/out"
    equal "$(jq .recorded "$WORK/out")" true "that it is recorded"
    equal "$(logged 'select(.kind == "read" and .uid == 61004) | .tenant')" '["acme"]' "the operator's read"
    equal "$(logged 'select(.kind == "export") | [.tenant, .uid, .reason]')" '[["acme",0,"as asked"]]' "the export"
    "$AUDIT" verify --export "$WORK/acme/acme.export" --public-key "$KEYS/log.pub" --json >"$WORK/check" || fail "the export: $(<"$WORK/check")"
    equal "$(jq -c '[.verdict, .tenant, (.parts | map(.complete))]' "$WORK/check")" '["valid","acme",[true]]' "the export"
    equal "$(jq .records "$WORK/check")" "$(logged 'select(.tenant == "acme" and .tenant_seq > 0)' | jq length)" "its records"
    python_verify export "$WORK/acme/acme.export" "$KEYS/log.pub" >"$WORK/script" || fail "the script: $(<"$WORK/script")"
    # Without its last record nobody can tell; without another it is not true.
    head -n -1 "$WORK/acme/acme.export" >"$WORK/cut"
    "$AUDIT" verify --export "$WORK/cut" --public-key "$KEYS/log.pub" >/dev/null && fail "an export without its end was valid"
    equal "$("$AUDIT" verify --export "$WORK/cut" --public-key "$KEYS/log.pub" >/dev/null || echo $?)" 5 "exit status for what nobody can tell"
    sed 4d "$WORK/acme/acme.export" >"$WORK/cut"
    expect_error 1 "line 4" "$AUDIT" verify --export "$WORK/cut" --public-key "$KEYS/log.pub"
    stop_recording
    try "$AUDIT" tail --log "$LOG"
    [[ $err == *"of this read there is no record"* ]] || fail "a read that nobody records was not told: $err"
}

test_case "audit: attached again, a log goes on with the next chain and the next key" again
again() {
    begin
    record --wait
    propose acme
    detach >/dev/null
    wait "$recorder" || fail "the recorder failed: $(<"$WORK/recorder.err")"
    "$AUDIT" record lab0 --netns $SERVER --log "$LOG" --key "$KEYS/log.key" --user $WRITER --group $OPERATORS --wait --json >"$WORK/recorder" 2>"$WORK/recorder.err" &
    recorder=$!
    until_true 10 grep -q waiting "$WORK/recorder.err"
    attach --chain-key "$KEYS/chain.key" >/dev/null
    until_true 10 began
    propose globex
    stop_recording
    valid --chain-key "$WORK/auditor.key"
    equal "$(jq -c '[.chains, .chains_without_end, .keyed_records == .records]' <<<"$found")" '[2,1,true]' "the log"
    equal "$(sed -n 2p "$KEYS/chain.key")" 3 "number of the next key"
    # The key that is on the host now is of neither.
    equal "$({ verify --chain-key "$KEYS/chain.key" || true; } | jq -r .fault.attack)" "unknown key" "the host's own key"
    equal "$(logged 'select(.kind == "attach") | .chain_key')" '[1,2]' "numbers of the keys"
    record
    stop_recording
    expect_error 1 "File exists" "$AUDIT" keygen "$KEYS" --origin x
}

test_case "audit: a log is verified while it grows" live
live() {
    begin
    record --checkpoint-seconds 1 --checkpoint-records 1000
    decide 400 &
    local agent=$! times=0
    while kill -0 $agent 2>/dev/null; do
        valid
        equal "$(jq .live <<<"$found")" true "that it is live"
        times=$((times + 1))
    done
    wait $agent
    [ $times -gt 1 ] || fail "it was verified $times times"
    stop_recording
    valid
    equal "$(jq -c '[.live, .records == .sealed_records]' <<<"$found")" '[false,true]' "the log in the end"
}

# A guest has a clock of its own.
test_case "audit: the wall clock may jump, and nothing comes of it" jumps plain once
jumps() {
    begin
    record --checkpoint-seconds 1
    local jump
    for jump in '+1 day' '-30 days' '+3 years'; do
        decide 10
        date -s "$(date -d "$jump")" >/dev/null
    done
    decide 10
    stop_recording
    valid --chain-key "$WORK/auditor.key"
    equal "$(jq '.records == .sealed_records' <<<"$found")" true "sealed"
}

test_case "audit: its unit runs it as its user, and it outlives a detach" unit plain once
unit() {
    begin
    local name=agentnic-audit@lab0.service units=/run/systemd/system
    mkdir -p $units/$name.d /etc/agentnic/lab0
    cp "$KEYS/log.key" /etc/agentnic/lab0/
    cp "$ROOT/userspace/units/agentnic-audit@.service" $units/
    printf '%s\n' '[Unit]' DefaultDependencies=no '[Service]' ExecStart= "ExecStart=$AUDIT record %i --log /var/lib/agentnic-audit/%i --key /etc/agentnic/%i/log.key --user $WRITER --group $OPERATORS --wait --netns $SERVER" >$units/$name.d/test.conf
    container='test' unshare --pid --fork --kill-child --mount-proc /lib/systemd/systemd --system --unit=$name --log-target=console >"$WORK/systemd" 2>&1 &
    local systemd=$!
    LOG=/var/lib/agentnic-audit/lab0
    until_true 30 test -S $LOG/socket
    propose acme
    detach >/dev/null
    until_true 30 ended
    attach --chain-key "$KEYS/chain.key" >/dev/null
    until_true 30 chains 2
    in_namespace_of $systemd systemctl stop $name || fail "the unit does not stop: $(<"$WORK/systemd")"
    equal "$(in_namespace_of $systemd systemctl show --property=Result --value $name)" success "how the unit ended ($(<"$WORK/systemd"))"
    : >"$WORK/recorder.err"
    valid --chain-key "$WORK/auditor.key"
    kill -KILL $systemd
}
ended() { [ "$({ verify 2>/dev/null || true; } | jq '.chains == 1 and .chains_without_end == 0 and .records == .sealed_records')" = true ]; }
chains() { [ "$({ verify 2>/dev/null || true; } | jq .chains)" = "$1" ]; }

main "$@"
