#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Unprivileged owners of AF_XDP sockets: who gets some, what they do with them, and what becomes of their packets when something dies.
# shellcheck disable=SC2119  # arguments are optional
# shellcheck source=tests/harness/net.sh
. "$(dirname "$0")/../harness/net.sh"
# shellcheck source=tests/harness/owners.sh
. "$(dirname "$0")/../harness/owners.sh"
# shellcheck disable=SC2034  # of the harness
OF_ALL=alone # what they measure others would disturb

# refused STATUS TEXT UID OPTIONS...
refused() {
    local wanted=$1 text=$2 uid=$3
    shift 3
    status=0
    (as "$uid" agentnic-echo "$@" --socket "$socket") >"$WORK/out" 2>"$WORK/err" || status=$?
    err=$(<"$WORK/err")
    equal "$status" "$wanted" "status ($err)"
    [[ $err == *"$text"* ]] || fail "it did not say '$text': $err"
}

some_answer() {
    ask 9001
    [ "$(jq .received <<<"$out")" -gt 0 ]
}

# wide_link N OPTIONS...: a veth of N queues between the namespaces, wide0 at each end, in 198.18.1.0/24.
wide_link() {
    ip -n $CLIENT link add wide0 numrxqueues "$1" numtxqueues "$1" type veth peer name wide0 netns $SERVER numrxqueues "$1" numtxqueues "$1"
    shift
    local at
    for at in $CLIENT $SERVER; do
        ip netns exec "$at" ethtool -K wide0 tx off >/dev/null
        ip -n "$at" link set wide0 "$@" up
    done
    ip -n $CLIENT addr add 198.18.1.1/24 dev wide0
    ip -n $SERVER addr add 198.18.1.2/24 dev wide0
}

# So many clients, each from a port of its own, that they come on both of two queues: all on one is once in 30,000.
ask_from_ports() {
    for _ in {1..16}; do
        SERVER_IP=198.18.1.2 FOR=0.05 ask 9001
        answered
    done
}

test_case "owners: an unprivileged program gets a socket from serve, and answers on it" unprivileged smoke
unprivileged() {
    attach_and_serve
    own echo $OWNER agentnic-echo
    equal "$(head -n 1 "$WORK/echo" | jq -r '.queues[0].obtained')" copy "obtained"
    ask 9001
    answered
    local received
    received=$(jq .received <<<"$out")
    equal "$(field 'owners[0] | .queue == 0 and .redirected >= .consumed and .consumed > 0 and .transmitted > 0 and .stalled == 0 and .turnaround_samples > 0')" true "owners in status: $(field owners)"
    disown_it echo $owner_pid
    [ "$(jq .echoed <<<"$owned")" -ge "$received" ] || fail "echoed less than was received: $owned"
    equal "$(jq '[.queues[].losses[]] | add' <<<"$owned")" 0 "losses: $owned"
    [ "$(count by_reason.redirect_xsk.packets)" -ge "$received" ] || fail "too few redirected"
    kill -TERM $serve_pid
    wait $serve_pid || fail "serve failed: $(<"$WORK/serve.log")"
    [ ! -e "$socket" ] || fail "its socket is still there"
}

test_case "owners: who does not own the service gets nothing, and is told why" wrong_user
wrong_user() {
    attach_and_serve
    refused 1 "user $OWNER's, and not user $OTHER's" $OTHER gateway
    refused 2 "no such service" $OWNER nothing
    refused 2 "no such service" $OWNER kernel
    refused 2 "it has 1" $OWNER gateway --queue 7
    refused 3 "set aside" $OWNER gateway --bind zerocopy
    owner_policy $OWNER 9002 $OTHER
    "$LOAD" update lab0 --netns $SERVER --policy "$WORK/owners.json" >/dev/null
    refused 1 "brings the packets of service other too" $OWNER gateway
    owner_policy '"nobody"'
    "$LOAD" update lab0 --netns $SERVER --policy "$WORK/owners.json" >/dev/null
    refused 1 "and not user $OWNER's" $OWNER gateway
    # Garbage, and those who say nothing, end with their connection.
    ip netns exec $SERVER python3 - "$socket" <<'END'
import os, socket, sys
silent = []
for length in list(range(0, 130)) + [4000]:
    one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    one.connect(sys.argv[1])
    if length:
        one.send(os.urandom(length))
        answer = one.recv(4096)
        assert len(answer) == 936 and answer[4] == 2, (length, answer[:8])
    else:
        silent.append(one)
for length in range(100):
    one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    one.connect(sys.argv[1])
    silent.append(one)
END
    owner_policy $OWNER
    "$LOAD" update lab0 --netns $SERVER --policy "$WORK/owners.json" >/dev/null
    own echo $OWNER agentnic-echo
    ask 9001
    answered
    disown_it echo $owner_pid
}

test_case "owners: serve may be killed and started again, and owners go on" serve_killed
serve_killed() {
    attach_and_serve
    own echo $OWNER agentnic-echo
    kill -KILL $serve_pid
    wait $serve_pid 2>/dev/null || true
    ask 9001
    answered
    expect_error 1 "is agentnic-load serve running" ip netns exec $SERVER "$ROOT/.build/bin/agentnic-echo" gateway --socket "$socket"
    start_serve
    expect_error 1 "another agentnic-load serve" "$LOAD" serve lab0 --netns $SERVER --socket "$socket"
    ask 9001
    answered
    refused 1 "another AF_XDP socket owns this queue" $OWNER gateway
    kill -KILL $owner_pid
    wait $owner_pid 2>/dev/null || true
    own echo $OWNER agentnic-echo
    ask 9001
    answered
    disown_it echo $owner_pid
    conserved
}

test_case "owners: one owner has several queues over one memory, and two have one each" several_queues
several_queues() {
    wide_link 2
    IFACE=wide0 attach_and_serve
    own both $OWNER agentnic-echo --queues 2
    ask_from_ports
    disown_it both $owner_pid
    equal "$(jq '[.queues[].received > 0]' -c <<<"$owned")" "[true,true]" "queues that got something: $owned"
    own first $OWNER agentnic-echo --queue 0 --frames 1024
    local first_pid=$owner_pid
    own second $OWNER agentnic-echo
    local second_pid=$owner_pid
    equal "$(head -n 1 "$WORK/second" | jq '.queues[0].queue')" 1 "the queue that was free"
    ask_from_ports
    disown_it first $first_pid
    [ "$(jq .echoed <<<"$owned")" -gt 0 ] || fail "the first has echoed nothing"
    disown_it second $second_pid
    [ "$(jq .echoed <<<"$owned")" -gt 0 ] || fail "the second has echoed nothing"
}

test_case "owners: IPv6, VLAN and jumbo packets come back" shapes
shapes() {
    wide_link 1 mtu 9000
    ip -n $CLIENT addr add 2001:db8:1::1/64 dev wide0 nodad
    ip -n $SERVER addr add 2001:db8:1::2/64 dev wide0 nodad
    IFACE=wide0 attach_and_serve
    own echo $OWNER agentnic-echo --frames 1024
    local to
    SERVER_IP=2001:db8:1::2 ask 9001 --size 1000
    answered
    # Frames by hand: this kernel may have no VLAN interfaces.
    ip netns exec $CLIENT python3 - "$(ip -n $SERVER -j link show wide0 | jq -r '.[0].address')" <<'END'
import socket, struct, sys
PACKET_AUXDATA = 8
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
link.bind(("wide0", 0))
link.setsockopt(263, PACKET_AUXDATA, 1)  # SOL_PACKET
link.settimeout(5)
mine, theirs = link.getsockname()[4], bytes.fromhex(sys.argv[1].replace(":", ""))
payload = b"sixteen bytes of it"
udp = struct.pack("!HHHH", 4000, 9001, 8 + len(payload), 0) + payload
ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 7, 0, 64, 17, 0, bytes((198, 18, 1, 1)), bytes((198, 18, 1, 2)))
total = sum(struct.unpack("!10H", ip))
total = (total & 0xffff) + (total >> 16)
ip = ip[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xffff) + ip[12:]
link.send(theirs + mine + struct.pack("!HHH", 0x8100, 7, 0x0800) + ip + udp)
while True:
    frame, extra, _, _ = link.recvmsg(2048, 256)
    if frame[:6] != mine or payload not in frame:
        continue
    # The kernel takes the tag out of what it hands over, and says so beside it.
    status, _, _, _, _, tci, _ = struct.unpack("IIIHHHH", extra[0][2][:20])
    assert (frame[12:16] == struct.pack("!HH", 0x8100, 7)) or (status & 16 and tci == 7), (frame, extra)
    assert frame[6:12] == theirs
    break
END
    SERVER_IP=198.18.1.2 ask 9001 --size 8000
    equal "$(jq .received <<<"$out")" 0 "answers to what does not fit into a frame"
    [ "$("$LOAD" stats wide0 --netns $SERVER --json | jq .instances[0].in.by_reason.pass_too_long.packets)" -gt 0 ] || fail "what was too long is not counted"
    disown_it echo $owner_pid
    printf '6.6\n%s\n' "$(uname -r)" | sort -V -C || {
        refused 3 "they take Linux 6.6" $OWNER gateway --jumbo
        return
    }
    own jumbo $OWNER agentnic-echo --jumbo
    for to in 198.18.1.2 2001:db8:1::2; do
        SERVER_IP=$to ask 9001 --size 8001
        answered
    done
    SERVER_IP=198.18.1.2 ask 9001 --size 64
    answered
    disown_it jumbo $owner_pid
    equal "$(jq '[.queues[].losses[]] | add' <<<"$owned")" 0 "losses: $owned"
}

test_case "owners: a router spreads requests over backends, and brings their answers back" router once
router() {
    attach_and_serve
    local port pids=()
    for port in 9101 9102; do
        ip netns exec $CLIENT "$BENCH" serve --transport udp --address 198.18.0.1 --port $port --wait block >"$WORK/backend.$port" &
        pids+=($!)
    done
    for port in 9101 9102; do until_true 10 grep -q serving "$WORK/backend.$port"; done
    own router $OWNER agentnic-router --port 9001 --backend 198.18.0.1:9101 --backend 198.18.0.1:9102
    ask 9001
    answered
    ask 9001 --size 1400
    answered
    kill -STOP "${pids[0]}" # its requests get no answer; the client asks again
    ask 9001
    kill -CONT "${pids[0]}"
    sleep 1.3
    disown_it router $owner_pid
    equal "$(jq '.of_backends | all(. > 0)' <<<"$owned")" true "requests of each backend: $owned"
    equal "$(jq '.requests >= .answers + .timeouts and .answers > 0 and .unsent == 0' <<<"$owned")" true "counts: $owned"
    kill -TERM "${pids[@]}"
    wait "${pids[@]}"
}

test_case "owners: metrics say what each owner does" metrics
metrics() {
    attach_and_serve --metrics 127.0.0.1:9470
    own echo $OWNER agentnic-echo
    ask 9001
    answered
    try python3 -c 'import sys, urllib.request; print(urllib.request.urlopen("http://127.0.0.1:9470/metrics", timeout=5).read().decode())'
    equal "$status" 0 "GET /metrics ($err)"
    local line
    for line in agentnic_owner_redirected_packets_total agentnic_owner_consumed_packets_total agentnic_owner_transmitted_packets_total agentnic_owner_turnaround_seconds_count; do
        [ "$(grep "^$line{interface=\"lab0\",queue=\"0\"}" <<<"$out" | awk '{ print ($2 > 0) }')" = 1 ] || fail "no $line in $out"
    done
    grep -q '^agentnic_serve_grants_total{interface="lab0"} 1$' <<<"$out" || fail "no grant in $out"
    equal "$(python3 -c 'import urllib.error, urllib.request
try: urllib.request.urlopen("http://127.0.0.1:9470/", timeout=5)
except urllib.error.HTTPError as error: print(error.code)')" 404 "another page"
    disown_it echo $owner_pid
}

test_case "owners: without an interface there is nothing to own, and everybody ends" interface_removed
interface_removed() {
    wide_link 1
    IFACE=wide0 attach_and_serve
    own echo $OWNER agentnic-echo
    local own_pid=$owner_pid
    ip -n $SERVER link set wide0 down
    sleep 0.3
    ip -n $SERVER link set wide0 up
    SERVER_IP=198.18.1.2
    until_true 10 some_answer # down and up again: nothing else happens
    ip -n $SERVER link delete wide0
    status=0
    wait $own_pid || status=$?
    equal "$status" 1 "status of the owner"
    grep -q 'interface wide0 is gone' "$WORK/echo.err" || fail "the owner said: $(<"$WORK/echo.err")"
    status=0
    wait $serve_pid || status=$?
    equal "$status" 1 "status of serve"
    grep -q 'interface wide0 was removed' "$WORK/serve.log" || fail "serve said: $(<"$WORK/serve.log")"
    "$LOAD" detach wide0 --netns $SERVER >/dev/null 2>&1 || "$LOAD" detach --all >/dev/null
}

# queues_of N: of wide0, whose client sends on no more.
queues_of() {
    ip netns exec $CLIENT ethtool -L wide0 rx 4 tx "$1" 2>/dev/null || true # it may be so already
    ip netns exec $SERVER ethtool -L wide0 rx "$1" tx 4
}

test_case "owners: queues come and go beside those that are owned, which stay" queue_count
queue_count() {
    wide_link 4
    IFACE=wide0 attach_and_serve
    own echo $OWNER agentnic-echo --queues 2
    queues_of 2
    ask_from_ports
    try queues_of 1
    [ "$status" != 0 ] || fail "the kernel took a queue away that is owned"
    ask_from_ports
    disown_it echo $owner_pid
    queues_of 1
    refused 2 '2 queues of wide0, from 0 on: it has 1' $OWNER gateway --queues 2
    own echo $OWNER agentnic-echo
    queues_of 4
    own last $OWNER agentnic-echo --queue 3
    kill -TERM $owner_pid
    wait $owner_pid
}

test_case "owners: detach ends serve, and owners get nothing any more" detached
detached() {
    attach_and_serve
    own echo $OWNER agentnic-echo
    "$LOAD" detach lab0 --netns $SERVER >/dev/null 2>&1
    status=0
    wait $serve_pid || status=$?
    equal "$status" 0 "status of serve ($(<"$WORK/serve.log"))"
    disown_it echo $owner_pid
    attach_and_serve # and everything goes on from the beginning
    own echo $OWNER agentnic-echo
    ask 9001
    answered
    disown_it echo $owner_pid
}

test_case "owners: zero-copy that veth has not is refused, and a dry run changes nothing" no_zero_copy
no_zero_copy() {
    owner_policy $OWNER
    "$LOAD" attach lab0 --netns $SERVER --policy "$WORK/owners.json" >/dev/null
    expect_error 3 lab0 "$LOAD" serve lab0 --netns $SERVER --socket "$WORK/xsk" --zero-copy-queues 0
    try "$LOAD" serve lab0 --netns $SERVER --socket "$WORK/xsk" --dry-run
    equal "$status" 0 "a dry run ($err)"
    grep -q "service gateway (udp 9001): user $OWNER" <<<"$out" || fail "no owner in $out"
    [ ! -e "$WORK/xsk" ] || fail "the dry run listens"
    expect_error 2 "there is none with this name" "$LOAD" serve nothing0 --netns $SERVER
    detach >/dev/null
    expect_error 1 "agentnic is not attached" "$LOAD" serve lab0 --netns $SERVER
}

test_case "owners: every packet of many comes back whole, and once, while serve and other owners come and go" restarts
# AGENTNIC_SECONDS=600 and AGENTNIC_PACKETS=10000000 in make soak: so long, and so many at least.
restarts() {
    wide_link 2
    IFACE=wide0 attach_and_serve
    own echo $OWNER agentnic-echo --queues 1
    local echo_pid=$owner_pid total=0 end=$((SECONDS + ${AGENTNIC_SECONDS:-4}))
    while [ $SECONDS -lt $end ] || [ $total -lt "${AGENTNIC_PACKETS:-1}" ]; do
        # Another owner, on the other queue, that is killed; and serve, too.
        own other $OWNER agentnic-echo
        SERVER_IP=198.18.1.2 FOR=0.5 ask 9001 --outstanding 32
        # What goes to the queue of the one that is killed meets no owner for a moment; here nobody is killed.
        answered
        equal "$(jq '.lost + .damaged + .stale' <<<"$out")" 0 "packets that were lost, damaged or came twice: $out"
        total=$((total + $(jq .received <<<"$out")))
        kill -KILL $owner_pid $serve_pid
        wait $owner_pid $serve_pid 2>/dev/null || true
        IFACE=wide0 start_serve
    done
    disown_it echo $echo_pid
    equal "$(jq '[.queues[] | .losses[], .starved] | add' <<<"$owned")" 0 "losses: $owned"
    [ "$(jq .echoed <<<"$owned")" -gt 0 ] || fail "the owner that stayed has echoed nothing"
    IFACE=wide0 conserved
    echo "$total packets came back"
}
test_case "owners: one that keeps its frames loses what comes to the kernel, and nothing is lost" keeps_frames
keeps_frames() {
    attach_and_serve
    "$BENCH" serve --netns $SERVER --transport udp --address $SERVER_IP --port 9001 --wait block >"$WORK/kernel" &
    local kernel=$!
    own echo $OWNER agentnic-echo --frames 256
    ask 9001
    answered
    kill -STOP $owner_pid
    # More than its frames, at once: the credit is spent before it is late. The kernel answers the rest, and the owner what it has when it goes on.
    ip netns exec $CLIENT python3 - $SERVER_IP $owner_pid >"$WORK/answers" <<'END'
import os, signal, socket, sys
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.connect((sys.argv[1], 9001))
for number in range(300):
    one.send(b"%08d" % number)
def answers(seconds):
    one.settimeout(seconds)
    try:
        while True:
            yield one.recv(64)
    except TimeoutError:
        pass
of_kernel = set(answers(1))
os.kill(int(sys.argv[2]), signal.SIGCONT)
of_owner = set(answers(1))
print(len(of_kernel) >= 100, len(of_owner) >= 100, len(of_kernel | of_owner))
END
    equal "$(<"$WORK/answers")" "True True 300" "answers of path A, of the owner, and of all"
    [ "$(count by_reason.pass_stalled.packets)" -gt 0 ] || fail "none was counted"
    until_true 10 at_work_again
    disown_it echo $owner_pid
    equal "$(jq '[.queues[].losses[]] | add' <<<"$owned")" 0 "losses: $owned"
    conserved
    kill -TERM $kernel
    wait $kernel
}
at_work_again() {
    local before
    before=$(count by_reason.redirect_xsk.packets)
    ask 9001
    [ "$(count by_reason.redirect_xsk.packets)" -gt "$before" ]
}

# systemd as a guest has no other: see the same test of agents.
test_case "owners: systemd starts serve when somebody asks, and again when it was killed" unit plain once
unit() {
    owner_policy $OWNER
    "$LOAD" attach lab0 --netns $SERVER --policy "$WORK/owners.json" >/dev/null
    chmod 755 "$WORK"
    start_serve # or it is skipped
    kill -TERM $serve_pid
    wait $serve_pid
    local name=agentnic-serve@lab0 units=/run/systemd/system kind
    mkdir -p $units
    cp "$ROOT/userspace/units/agentnic-serve@.service" "$ROOT/userspace/units/agentnic-serve@.socket" $units/
    for kind in service socket; do
        mkdir -p $units/$name.$kind.d
        printf '%s\n' '[Unit]' DefaultDependencies=no >$units/$name.$kind.d/test.conf
    done
    printf '%s\n' '[Service]' ExecStart= "ExecStart=$LOAD serve %i --netns $SERVER" >>$units/$name.service.d/test.conf
    container='test' unshare --pid --fork --kill-child --mount-proc /lib/systemd/systemd --system --unit=$name.socket --log-target=console >"$WORK/systemd" 2>&1 &
    local systemd=$!
    socket=/run/agentnic/xsk-lab0
    until_true 30 test -S $socket
    own echo $OWNER agentnic-echo
    ask 9001
    answered
    in_namespace_of $systemd systemctl kill --signal=KILL $name.service
    ask 9001
    answered
    disown_it echo $owner_pid
    own echo $OWNER agentnic-echo
    disown_it echo $owner_pid
    in_namespace_of $systemd systemctl stop $name.service $name.socket || fail "the unit does not stop: $(<"$WORK/systemd")"
    equal "$(in_namespace_of $systemd systemctl show --property=Result --value $name.service)" success "how the unit ended ($(<"$WORK/systemd"))"
    kill -KILL $systemd
}

main "$@"
