#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Quotas on real packets: rates, shares and guarantees, in and out. Rates are low, and lower still in an emulated guest,
# which sends 100 packets a second; what is strict about them is measured by make bench.
# shellcheck disable=SC2119  # arguments of detach are optional
# shellcheck source=tests/harness/net.sh
. "$(dirname "$0")/../harness/net.sh"
# shellcheck disable=SC2034  # of the harness
OF_ALL=alone # what they measure others would disturb

FLOOD=$ROOT/tests/harness/flood.py
PATIENCE=${AGENTNIC_PATIENCE:-1}
M=1000000     # bit/s
WIDE=10       # percent
WARM_UP_S=0.5 # until what buckets held has been used up
MEASURED_S=1
[ "$PATIENCE" = 1 ] || M=200000 WIDE=25 WARM_UP_S=6 MEASURED_S=7
SECOND_CLIENT=198.18.0.3

# policy LINK TENANT...: a tenant is its address and its budget.
policy() {
    local link=$1 tenant tenants=() letter=a
    shift
    while [ $# -gt 0 ]; do
        tenants+=("{\"name\": \"$letter\", \"prefixes\": [\"$1/32\"], \"default_class\": \"rpc\", \"budget\": {$2}}")
        letter=b
        shift 2
    done
    tenant=$(IFS=,; echo "${tenants[*]}")
    POLICY=$WORK/policy.json
    echo "{\"version\": 1, \"name\": \"quota\", \"link_rate\": \"$link\", \"services\": [], \"tenants\": [$tenant]}" >"$POLICY"
}

# The client has a second address: another tenant's.
second_client() {
    ip -n $CLIENT addr add $SECOND_CLIENT/24 dev lab0
    ip -n $SERVER neigh replace $SECOND_CLIENT lladdr "$(ip -n $CLIENT -j link show dev lab0 | jq -r '.[0].address')" dev lab0 nud permanent
}

# flood HOST OPTIONS...: sends for as long as the test runs, by $flood_pid.
flood() {
    local host=$1
    shift
    : >"$WORK/flood"
    ip netns exec "$host" python3 "$FLOOD" send "$@" >"$WORK/flood" &
    flood_pid=$!
    until_true 10 grep -q ready "$WORK/flood"
}

# measure HOST PORT...: $rates are the wire bit/s that arrive at each port.
measure() {
    local host=$1
    shift
    mapfile -t rates < <(ip netns exec "$host" python3 "$FLOOD" receive $WARM_UP_S $MEASURED_S "$@" | tail -n +2)
    equal ${#rates[@]} $# "rates measured"
}

# within PERCENT ACTUAL EXPECTED WHAT
within() {
    local off=$((($2 - $3) * 100 / $3))
    [ ${off#-} -lt "$1" ] || fail "$4: $2, expected $3 within $1 %"
}

test_case "quota: a tenant gets its ceiling, in native XDP" ceiling_native
ceiling_native() { ceiling_in native; }
test_case "quota: a tenant gets its ceiling, in generic XDP" ceiling_skb
ceiling_skb() { ceiling_in skb; }
test_case "quota: a tenant gets its ceiling, at TC" ceiling_tc
ceiling_tc() { ceiling_in tc; }
ceiling_in() {
    policy $((10 * M))bit 198.18.0.1 "\"ceiling\": \"${M}bit\""
    attach --mode "$1" >/dev/null
    flood $CLIENT $((3 * M)) 1400 $SERVER_IP 9000
    measure $SERVER 9000
    within $WIDE "${rates[0]}" $M "rate"
    kill $flood_pid
    [ "$(count by_tenant.a.by_class.rpc.by_reason.drop_quota.packets)" -gt 100 ] || fail "what was too much was not counted"
    conserved
}

test_case "quota: a tenant gets its ceiling at egress, by policing" ceiling_out
ceiling_out() {
    policy $((10 * M))bit 198.18.0.1 "\"ceiling\": \"${M}bit\""
    attach --mode tc >/dev/null
    equal "$(field egress_limits)" policed "limits at egress"
    flood $SERVER $((3 * M)) 1400 198.18.0.1 9000
    measure $CLIENT 9000
    within $WIDE "${rates[0]}" $M "rate"
    kill $flood_pid
    [ "$(count_out by_tenant.a.by_class.rpc.by_reason.drop_quota.packets)" -gt 100 ] || fail "what was too much was not counted"
    conserved
}

test_case "quota: two CPUs that send at once get what one gets" two_cpus
two_cpus() {
    [ "$(nproc)" -ge 2 ] || skip "one CPU"
    policy $((10 * M))bit 198.18.0.1 "\"ceiling\": \"${M}bit\""
    attach >/dev/null
    flood $CLIENT --cpu 0 $((2 * M)) 1400 $SERVER_IP 9000
    flood $CLIENT --cpu 1 $((2 * M)) 700 $SERVER_IP 9001
    measure $SERVER 9000 9001
    within $WIDE $((rates[0] + rates[1])) $M "sum of the rates (${rates[*]})"
}

test_case "quota: who floods shares the link by weight" by_weight
by_weight() {
    second_client
    policy $((2 * M))bit 198.18.0.1 '"weight": 300' $SECOND_CLIENT '"weight": 100'
    attach >/dev/null
    flood $CLIENT --from 198.18.0.1 $((3 * M)) 1400 $SERVER_IP 9000
    flood $CLIENT --from $SECOND_CLIENT $((3 * M)) 1400 $SERVER_IP 9001
    measure $SERVER 9000 9001
    within $WIDE "${rates[0]}" $((3 * M / 2)) "rate of who has three quarters (${rates[*]})"
    within $WIDE "${rates[1]}" $((M / 2)) "rate of who has a quarter (${rates[*]})"
}

test_case "quota: a tenant within its minimum loses nothing to one at ten times its ceiling, which borrows the rest" guarantee
guarantee() {
    second_client
    policy $((2 * M))bit 198.18.0.1 "\"minimum\": \"$((3 * M / 4))bit\"" $SECOND_CLIENT "\"ceiling\": \"$((3 * M / 2))bit\", \"weight\": 1000"
    attach >/dev/null
    flood $CLIENT --from $SECOND_CLIENT $((15 * M)) 1400 $SERVER_IP 9001
    measure $SERVER 9001
    within $WIDE "${rates[0]}" $((3 * M / 2)) "rate of who is alone, up to its ceiling"
    flood $CLIENT --from 198.18.0.1 $((7 * M / 10)) 1400 $SERVER_IP 9000
    measure $SERVER 9000 9001
    if [ "$PATIENCE" = 1 ]; then # else the sender itself may be too slow
        within $WIDE "${rates[0]}" $((7 * M / 10)) "rate of who is within its minimum (${rates[*]})"
        within $WIDE "${rates[1]}" $((13 * M / 10)) "rate of who borrows (${rates[*]})"
    fi
    equal "$(count by_tenant.a.by_class.rpc.by_reason.drop_quota.packets)" null "packets lost within the minimum"
}

test_case "quota: control traffic has none" no_quota_for_control
no_quota_for_control() {
    policy ${M}bit 198.18.0.1 '"ceiling": "8Kbit"'
    jq '.management = [{"protocol": "udp", "port": 9000}]' "$POLICY" >"$WORK/with_control.json"
    POLICY=$WORK/with_control.json
    attach >/dev/null
    flood $CLIENT $M 1400 $SERVER_IP 9000
    measure $SERVER 9000
    within $WIDE "${rates[0]}" $M "rate of management traffic"
}

test_case "quota: rates follow a policy that is updated under load" rates_follow
rates_follow() {
    policy $((10 * M))bit 198.18.0.1 "\"ceiling\": \"$((2 * M))bit\""
    attach >/dev/null
    flood $CLIENT $((3 * M)) 1400 $SERVER_IP 9000
    measure $SERVER 9000
    within $WIDE "${rates[0]}" $((2 * M)) "rate before"
    policy $((10 * M))bit 198.18.0.1 "\"ceiling\": \"$((M / 2))bit\""
    "$LOAD" update lab0 --netns $SERVER --policy "$POLICY" >"$WORK/update"
    grep -q 'tenant a: ceiling [0-9]*[MK]bit -> [0-9]*Kbit' "$WORK/update" || fail "$(cat "$WORK/update")"
    measure $SERVER 9000
    within $WIDE "${rates[0]}" $((M / 2)) "rate after"
}

test_case "quota: rates are shared out on when all of userspace is dead, and after an upgrade" shared_on
shared_on() {
    second_client
    policy $((2 * M))bit 198.18.0.1 "\"minimum\": \"$((3 * M / 2))bit\"" $SECOND_CLIENT '"weight": 100'
    attach >/dev/null
    local step
    for step in attached upgraded; do
        flood $CLIENT --from $SECOND_CLIENT $((3 * M)) 1400 $SERVER_IP 9001
        measure $SERVER 9001
        within $WIDE "${rates[0]}" $((2 * M)) "rate of who is alone, $step"
        kill $flood_pid
        wait $flood_pid || true
        "$LOAD" upgrade lab0 --netns $SERVER >/dev/null
    done
    equal "$(field 'notes | map(select(test("last shared out"))) | length')" 0 "notes of a tick that stopped"
}

test_case "quota: fq at the root paces what leaves, and status says when it has gone" paced
paced() {
    ip netns exec $SERVER tc qdisc replace dev lab0 root fq 2>"$WORK/tc" || skip "this kernel has no fq"
    policy $((10 * M))bit 198.18.0.1 "\"ceiling\": \"${M}bit\""
    attach --mode tc >/dev/null
    equal "$(field egress_limits)" paced "limits at egress"
    flood $SERVER $((2 * M)) 1400 198.18.0.1 9000
    measure $CLIENT 9000
    within 5 "${rates[0]}" $M "rate"
    ip netns exec $SERVER tc qdisc del dev lab0 root
    [ "$(field 'notes[] | select(test("not kept at egress"))' | wc -l)" = 1 ] || fail "status does not say that limits are not kept: $("$LOAD" status)"
    "$LOAD" update lab0 --netns $SERVER --policy "$POLICY" >"$WORK/update"
    grep -q 'egress: paced -> policed' "$WORK/update" || fail "$(cat "$WORK/update")"
    measure $CLIENT 9000
    within $WIDE "${rates[0]}" $M "rate by policing"
}

main "$@"
