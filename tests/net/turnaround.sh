#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Turnaround on real packets: what the dataplane says against what a client of a slow server sees, at the server's interface and at
# the client's. An emulated guest is given ten times as long.
# shellcheck source=tests/harness/net.sh
. "$(dirname "$0")/../harness/net.sh"
# shellcheck disable=SC2034  # of the harness
OF_ALL=alone # what they measure others would disturb

TURNS=$ROOT/tests/harness/turns.py
PATIENCE=${AGENTNIC_PATIENCE:-1}
SCALE=1
ASK_S=3
LINK_RATE=1Mbit
[ "$PATIENCE" = 1 ] || SCALE=10 ASK_S=5 LINK_RATE=200Kbit
USUAL_MS=$((5 * SCALE))
LATE_MS=$((20 * SCALE))
SLO_MS=$((10 * SCALE))

# policy FILE ROLE [MORE]: one service on port 9000 of each protocol, of a tenant that is everybody.
policy() {
    cat >"$1" <<END
{"version": 1, "name": "turns", ${3:-} "classes": {"rpc": {"slo": "${SLO_MS}ms"}},
 "tenants": [{"name": "all", "prefixes": ["::/0"]}], "services": [
  {"name": "udp", "protocol": "udp", "port": 9000, "role": "$2", "class": "rpc", "path": "kernel"},
  {"name": "tcp", "protocol": "tcp", "port": 9000, "role": "$2", "class": "rpc", "path": "kernel"}]}
END
}

# attach_both MODE: the dataplane at either end, each in its role.
attach_both() {
    policy "$WORK/server.json" server
    policy "$WORK/client.json" client
    "$LOAD" attach lab0 --netns $SERVER --policy "$WORK/server.json" --mode "$1" >/dev/null
    "$LOAD" attach lab0 --netns $CLIENT --policy "$WORK/client.json" --mode "$1" >/dev/null
}

# answer OPTIONS...: a server, by $answering_pid.
answer() {
    : >"$WORK/answering"
    ip netns exec $SERVER python3 "$TURNS" serve "$@" 9000 >"$WORK/answering" &
    answering_pid=$!
    until_true 10 grep -q ready "$WORK/answering"
}

# put OPTIONS...: asks it; $seen is what the client saw.
put() { seen=$(ip netns exec $CLIENT python3 "$TURNS" ask "$@" 9000); }

# turns NETNS JQ-PATH: of the lane.
turns() { "$LOAD" stats lab0 --netns "$1" --json | jq -c ".instances[0].turnaround.all.rpc | $2"; }

answered_more_than() { [ "$(turns $SERVER '.histogram_ns | map(.[1]) | add // 0')" -gt "$1" ]; }
missed_more_than() { [ "$(turns $SERVER .missed)" -gt "$1" ]; }

# near WHAT ACTUAL EXPECTED: within half of it.
near() {
    [ "$2" != null ] || fail "$1: null, expected about $3; the client saw ${seen:-it}"
    local off=$(($2 - $3))
    [ $((${off#-} * 2)) -le "$3" ] || fail "$1: $2, expected about $3; the client saw ${seen:-it}"
}

# agrees NETNS: with the client.
agrees() {
    local samples over missed
    near "p50 at $1" "$(turns "$1" .p50_ns)" "$(jq .p50_ns <<<"$seen")"
    samples=$(turns "$1" .samples)
    if [ "$(turns "$1" '.histogram_ns | map(.[1]) | add')" -ge 1000 ]; then
        near "p99 at $1" "$(turns "$1" .p99_ns)" "$(jq .p99_ns <<<"$seen")"
    else # few ticks came, so that few requests were looked at
        equal "$(turns "$1" .p99_ns)" null "p99 of $samples samples at $1"
    fi
    over=$(turns "$1" .over_slo)
    missed=$(turns "$1" .missed)
    [ "$samples" -le "$(jq .answers <<<"$seen")" ] || fail "more samples at $1 than answers: $samples, $seen"
    [ "$samples" -ge $(($(jq .answers <<<"$seen") / 4)) ] || fail "few samples at $1: $samples, $seen"
    [ "$over" -gt 0 ] || fail "nothing over the SLO at $1: $(turns "$1" .)"
    [ "$missed" -le "$over" ] || fail "counts at $1: $samples samples, $over over the SLO, $missed missed"
    [ "$PATIENCE" != 1 ] || [ $((over * 5)) -le "$samples" ] || fail "too many over the SLO at $1: $over of $samples"
}

test_case "turnaround: what client and server see over UDP is what the client measures, in native XDP" udp
udp() {
    attach_both native
    answer --late-every 20 $USUAL_MS $LATE_MS
    put udp 8 $ASK_S $SERVER_IP
    agrees $SERVER
    agrees $CLIENT
    equal "$(turns $SERVER .ambiguous)" 0 "ambiguous"
    equal "$(turns $SERVER .srtt_mean_us)" null "round trips of UDP"
}

test_case "turnaround: what client and server see over TCP is what the client measures, at TC" tcp
tcp() {
    attach_both tc
    answer --late-every 20 $USUAL_MS $LATE_MS
    put tcp 8 $ASK_S $SERVER_IP6
    agrees $SERVER
    agrees $CLIENT
    [ "$(turns $SERVER .srtt_mean_us)" -gt 0 ] || fail "no round trips of the server's TCP"
    [ "$(turns $CLIENT .srtt_mean_us)" -gt 0 ] || fail "no round trips of the client's TCP"
    "$LOAD" stats lab0 --netns $SERVER | grep -q 'all/rpc .*%)' || fail "stats without its table: $("$LOAD" stats lab0 --netns $SERVER)"
}

test_case "turnaround: requests that nobody answers are missed, and a server that was killed is over its SLO" unanswered
unanswered() {
    attach_both native
    answer --never $USUAL_MS $LATE_MS
    put udp 4 1 $SERVER_IP
    local samples
    samples=$(turns $SERVER .samples)
    [ "$samples" -gt 0 ] || fail "nothing was missed"
    equal "$(turns $SERVER '[.missed, .over_slo]')" "[$samples,$samples]" "missed, over the SLO"
    equal "$(turns $SERVER .histogram_ns)" "[]" "answers"
    kill -9 $answering_pid
    wait $answering_pid || true

    answer $USUAL_MS $LATE_MS
    { put tcp 4 2 $SERVER_IP || true; } &
    local asking_pid=$!
    until_true 10 answered_more_than 0
    kill -9 $answering_pid
    wait $asking_pid
    until_true 2 missed_more_than "$samples"
    conserved
}

test_case "turnaround: what is pipelined is ambiguous, and gives no sample" pipelined
pipelined() {
    attach_both native
    answer $USUAL_MS $LATE_MS
    local protocol
    for protocol in udp tcp; do
        put --pipelined $protocol 2 0.8 $SERVER_IP
        [ "$(jq .answers <<<"$seen")" -gt 5 ] || fail "no answers over $protocol: $seen"
    done
    local end
    for end in $SERVER $CLIENT; do
        [ "$(turns "$end" .ambiguous)" -gt 0 ] || fail "nothing was ambiguous at $end"
        equal "$(turns "$end" '[.samples, .p50_ns, .histogram_ns]')" "[0,null,[]]" "samples at $end"
    done
}

# connect: one connection to the server, which asks when asked to.
connect() {
    mkfifo "$WORK/asks"
    ip netns exec $CLIENT python3 "$TURNS" step $SERVER_IP 9000 <"$WORK/asks" >"$WORK/steps" &
    exec 9>"$WORK/asks"
    until_true 10 grep -q ready "$WORK/steps"
}
request() { echo >&9; }
answers() { [ "$(wc -l <"$WORK/steps")" -gt "$1" ]; }

# The client sends, and its TCP gets nothing: frames to its old address are somebody else's, though programs see them.
deaf() {
    address=$(ip -n $CLIENT -j link show dev lab0 | jq -r '.[0].address')
    ip -n $CLIENT link set dev lab0 address 02:00:00:00:00:77
}
hears() { ip -n $CLIENT link set dev lab0 address "$address"; }

# seen_in WAY NETNS: a packet of the service has passed.
seen_in() { [ "$("$LOAD" stats lab0 --netns "$2" --json | jq ".instances[0].$1.by_service.tcp.packets")" -gt 0 ]; }

test_case "turnaround: a request that TCP sends again begins no sample at its sender" request_again
request_again() {
    policy "$WORK/client.json" client
    answer 0 0
    connect
    deaf
    request
    "$LOAD" attach lab0 --netns $CLIENT --policy "$WORK/client.json" --mode tc >/dev/null
    until_true 10 seen_in out $CLIENT
    hears
    until_true 10 answers 1
    equal "$(turns $CLIENT '[.samples, .ambiguous]')" "[null,null]" "what was counted of it"
    request
    until_true 10 answers 2
    equal "$(turns $CLIENT '[.samples, .ambiguous]')" "[1,0]" "what was counted of the next one"
}

test_case "turnaround: an answer that TCP sends again ends no sample at its sender" answer_again
answer_again() {
    local SLO_MS=60000 # else it is missed meanwhile
    policy "$WORK/server.json" server
    answer 0 0
    connect
    deaf
    request
    "$LOAD" attach lab0 --netns $SERVER --policy "$WORK/server.json" --mode tc >/dev/null
    until_true 10 ambiguous_at_server # the request came again, and so did its answer
    equal "$(turns $SERVER '[.samples, .histogram_ns]')" "[0,[]]" "samples"
    hears
    until_true 10 answers 1
}
ambiguous_at_server() { [ "$(turns $SERVER '.ambiguous // 0')" -gt 0 ]; }

test_case "turnaround: a request that was lost takes as long as its client waits for the answer" lost
lost() {
    policy "$WORK/client.json" client
    answer 0 0
    "$LOAD" attach lab0 --netns $CLIENT --policy "$WORK/client.json" --mode tc >/dev/null
    connect
    ip -n $SERVER route add blackhole 198.18.0.1
    request
    sleep 0.3
    ip -n $SERVER route del blackhole 198.18.0.1
    until_true 10 answers 1
    local took_ns
    took_ns=$(tail -n 1 "$WORK/steps")
    [ "$took_ns" -gt 300000000 ] || fail "nothing was lost: answered after $took_ns ns"
    equal "$(turns $CLIENT '[.samples, .over_slo, .missed, .ambiguous]')" "[1,1,1,0]" "counts"
    near "the answer to a missed request" "$(turns $CLIENT '.histogram_ns[0][0]')" "$took_ns"
}

test_case "turnaround: an answer that fq holds back takes as long as it is held" paced once
paced() {
    local SLO_MS=60000 # else the longest are missed, and the rest have another median
    ip netns exec $SERVER tc qdisc replace dev lab0 root fq 2>"$WORK/tc" || skip "this kernel has no fq"
    policy "$WORK/server.json" server "\"link_rate\": \"$LINK_RATE\","
    "$LOAD" attach lab0 --netns $SERVER --policy "$WORK/server.json" --mode tc >/dev/null
    equal "$(field egress_limits)" paced "limits at egress"
    answer 0 0
    # More than the bucket holds at once, and then what waits: not so many that they are dropped, for no
    # answer then ends their sample.
    put udp 16 $ASK_S $SERVER_IP
    near "p50" "$(turns $SERVER .p50_ns)" "$(jq .p50_ns <<<"$seen")"
}

main "$@"
