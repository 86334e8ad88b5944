#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# SLOs on real packets: what the guardian does by itself when a flood of bulk fills the queue that an RPC waits in. How well it keeps an
# SLO is measured by make bench.
# shellcheck source=tests/harness/net.sh
. "$(dirname "$0")/../harness/net.sh"
# shellcheck disable=SC2034  # of the harness
OF_ALL=alone # what they measure others would disturb

TURNS=$ROOT/tests/harness/turns.py
FLOOD=$ROOT/tests/harness/flood.py
AUDIT=$ROOT/.build/bin/agentnic-audit
PATIENCE=${AGENTNIC_PATIENCE:-1}
SLO_MS=15 # where the queue holds 50 ms
WARM_UP_S=$((2 * PATIENCE))
MEASURED_S=$((2 * PATIENCE))
BOTTLENECK=20 # Mbit/s

# policy PROTECT: who floods is told by a mark; the link is stated as ten times what it carries.
policy() {
    POLICY=$WORK/policy.json
    cat >"$POLICY" <<END
{"version": 1, "name": "slo", "link_rate": "$((10 * BOTTLENECK))Mbit", "classes": {"rpc": {"slo": "${SLO_MS}ms"}},
 "tenants": [{"name": "asks", "prefixes": ["198.18.0.0/24"]}, {"name": "floods", "marks": [7], "default_class": "bulk"}],
 "services": [{"name": "api", "protocol": "udp", "port": 9000, "role": "client", "class": "rpc", "path": "kernel"}],
 "guardian": {"slo": {"interval": "100ms", "samples": 5, "over": 5, "protect": $1}}}
END
}

# on_client COMMAND OPTIONS...: of the instance at the client's interface.
on_client() {
    local command=$1
    shift
    "$LOAD" "$command" lab0 --netns $CLIENT "$@"
}

# bottleneck: a queue of 50 ms at the client's interface, to which all who send there come.
bottleneck() { ip netns exec $CLIENT tc qdisc replace dev lab0 root tbf rate ${BOTTLENECK}mbit burst 32kb latency 50ms 2>"$WORK/tc" || skip "this kernel has no tbf"; }

flood() {
    : >"$WORK/flood"
    ip netns exec $CLIENT python3 "$FLOOD" send --mark 7 $((2 * BOTTLENECK * 1000000)) 1200 $SERVER_IP 9100 >"$WORK/flood" &
    flood_pid=$!
    until_true 10 grep -q ready "$WORK/flood"
}

# turns KEY: a counter of the client's RPC.
turns() { on_client stats --json | jq ".instances[0].turnaround.asks.rpc.$1 // 0"; }
limits() { on_client status --json | jq -c '.instances[0].guardian.bulk_limits'; }
protects() { "$AUDIT" tail lab0 --netns $CLIENT --json | jq -s '[.[] | select(.record.kind == "protect")] | length'; }
limited() { [ "$(limits)" != "[]" ]; }
not_limited() { ! limited; }

# late PROTECT: $late is the percent of answers over the SLO, beside the flood, once the guardian has had its time.
late() {
    local samples over
    policy "$1"
    on_client attach --policy "$POLICY" >/dev/null
    ip netns exec $CLIENT python3 "$TURNS" ask udp 4 $((WARM_UP_S + MEASURED_S + 30)) $SERVER_IP 9000 >/dev/null &
    asking_pid=$!
    flood
    sleep $WARM_UP_S
    samples=$(turns samples) over=$(turns over_slo)
    sleep $MEASURED_S
    samples=$(($(turns samples) - samples)) over=$(($(turns over_slo) - over))
    [ $samples -gt 20 ] || fail "too few answers: $samples"
    late=$((over * 100 / samples))
}

test_case "slo: a flood of bulk is throttled until an RPC keeps its SLO, and eased when it has ended" kept
kept() {
    bottleneck
    ip netns exec $SERVER python3 "$TURNS" serve 0 0 9000 >"$WORK/serve" &
    until_true 10 grep -q ready "$WORK/serve"
    ip netns exec $SERVER python3 "$FLOOD" receive 0 1000 9100 >/dev/null &

    late false
    local unprotected=$late
    equal "$(limits)" "[]" "limits where protection is off"
    equal "$(protects)" 0 "records of protection where it is off"
    kill $flood_pid $asking_pid
    on_client detach >/dev/null

    late true
    [ $late -lt $((unprotected / 2)) ] || fail "late answers: $late % with protection, $unprotected % without"
    until_true 10 limited
    [[ $(limits) == *'"tenant":"floods"'* ]] || fail "another is limited: $(limits)"
    [ "$(protects)" -gt 0 ] || fail "no record of protection"
    on_client status | grep -q 'floods: bulk limited to' || fail "status does not say so: $(on_client status)"
    kill $flood_pid
    until_true 30 not_limited
}

main "$@"
