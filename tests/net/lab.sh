#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The lab and what runs in it: made, removed, interrupted.
# shellcheck source=tests/harness/net.sh
. "$(dirname "$0")/../harness/net.sh"
# shellcheck disable=SC2034  # of the harness
OF_ALL=alone # what they measure others would disturb

namespaces() { ip netns list | wc -l; }

# Processes of the lab that still run in this test's own process namespace.
running() { pgrep -f "$BENCH" | grep -vx "$$" || true; }
none_running() { [ -z "$(running)" ]; }

test_case "lab: up and down, each twice" up_and_down
up_and_down() {
    "$BENCH" lab up >/dev/null
    equal "$(namespaces)" 2 "namespaces"
    ip netns exec $CLIENT ping -q -c 1 -W 1 $SERVER_IP >/dev/null
    ip netns exec $CLIENT ping -q -c 1 -W 1 $SERVER_IP6 >/dev/null
    "$BENCH" lab down | grep -q 'is down'
    equal "$(namespaces)" 0 "namespaces"
    "$BENCH" lab down | grep -q 'was not up'
    "$BENCH" lab up --name second >/dev/null
    ip netns list | grep -q second-client
    expect_error 2 'a name of a-z' "$BENCH" lab up --name '../x'
}

test_case "lab: half of one is replaced" half
half() {
    ip netns del $CLIENT
    "$BENCH" lab up >/dev/null
    ip netns exec $CLIENT ping -q -c 1 -W 1 $SERVER_IP >/dev/null
}

test_case "lab: no frame leaves it that nobody sent" quiet
quiet() {
    # What brings the interfaces up settles first.
    sleep 1
    local before after
    before=$(ip -n $SERVER -s -j link show dev lab0 | jq '.[0].stats64.rx.packets + .[0].stats64.tx.packets')
    sleep 2
    after=$(ip -n $SERVER -s -j link show dev lab0 | jq '.[0].stats64.rx.packets + .[0].stats64.tx.packets')
    equal "$after" "$before" "frames"
}

test_case "experiment: first-light measures both paths, writes its result, and leaves nothing" experiment
experiment() {
    "$BENCH" lab down >/dev/null
    # On a busy machine a spinning row may get no answer in this time: then it is marked, and the status is 1.
    try "$BENCH" experiment first-light --policy "$POLICY" --out "$WORK/results" --repeats 1 --duration 0.05
    if [ "$status" -gt 1 ] || [ -n "$err" ]; then fail "status $status: $err"; fi
    equal "$(grep -q 'NOT VALID' <<<"$out" && echo 1 || echo 0)" "$status" "status for rows that are not valid"
    echo "$out" >"$WORK/table"
    equal "$(grep -c 'native, copy' "$WORK/table")" 8 "AF_XDP rows"
    equal "$(grep -c 'A kernel .*kernel socket' "$WORK/table")" 8 "kernel rows"
    equal "$(grep -c 'no agentnic .*kernel socket' "$WORK/table")" 8 "rows of the control"
    local latest=$WORK/results/latest.json
    equal "$(jq -r '.schema, .rows[2].path, .rows[2].repeats[0].server.obtained' "$latest" | paste -sd ' ')" "agentnic.result/1 B xsk copy" "result"
    jq -e '.host.kernel and .host.git_revision and .interfaces.server.driver and .argv and .rows[0].histogram_ns' "$latest" >/dev/null
    "$BENCH" report "$latest" | diff - <(head -n -1 "$WORK/table")
    equal "$(namespaces)" 0 "namespaces"
    equal "$(running)" "" "processes"
    equal "$(pins)" "" "pins"
}

test_case "experiment: concurrency asks both paths for more and more, and says who wins" concurrency
concurrency() {
    "$BENCH" lab down >/dev/null
    try "$BENCH" experiment concurrency --policy "$POLICY" --out "$WORK/results" --repeats 1 --duration 0.05
    if [ "$status" -gt 1 ] || [ -n "$err" ]; then fail "status $status: $err"; fi
    equal "$(jq -c '[.rows[] | select(.path == "B xsk") | [.wait, .outstanding, .size_bytes]] | length, (map(.[1]) | unique)' "$WORK/results/latest.json" | paste -sd ' ')" \
        "24 [1,4,16,64]" "rows of AF_XDP"
    equal "$(jq '[.rows[] | select(.path == "B xsk" and .valid) | .verdict] - ["win", "lose", "tie", null] | length' "$WORK/results/latest.json")" 0 "other verdicts (null: beside a row that is not valid)"
    [ "$(grep -cE '^ +(64|256|512) (spin|block) .* B xsk .* (win|lose|tie)( |$)' <<<"$out")" -gt 0 ] || fail "$out"
    expect_error 1 'of the experiment concurrency' /usr/bin/python3 "$ROOT/results/plot.py" "$WORK/results/latest.json"
}

test_case "experiment: its result is plotted" plotted
plotted() {
    /usr/bin/python3 -c 'import matplotlib' 2>/dev/null || skip "no python3-matplotlib here"
    try "$BENCH" experiment first-light --policy "$POLICY" --out "$WORK/results" --repeats 1 --duration 0.05
    /usr/bin/python3 "$ROOT/results/plot.py" "$WORK/results/latest.json" >/dev/null
    local picture
    for picture in latency throughput; do
        [ "$(head -c 4 "$WORK/results/latest-$picture.png" | tail -c 3)" = PNG ] || fail "no picture of $picture"
    done
}

# interrupted SIGNAL: an experiment that gets it in the middle leaves nothing.
interrupted() {
    "$BENCH" lab down >/dev/null
    # A job of a shell without job control ignores SIGINT, unless told otherwise.
    (trap - INT && exec "$BENCH" experiment first-light --policy "$POLICY" --out "$WORK/results") >"$WORK/said" 2>&1 &
    local pid=$!
    until_true 20 pgrep -f "$BENCH run" >/dev/null
    kill "-$1" $pid
    local code=0
    wait $pid || code=$?
    [ $code != 0 ] || fail "it ended well: $(<"$WORK/said")"
    until_true 10 none_running
    equal "$(namespaces)" 0 "namespaces"
    equal "$(pins)" "" "pins"
    [ ! -e "$WORK/results/latest.json" ] || fail "it wrote a result"
}

test_case "experiment: Ctrl-C ends it, and nothing is left" interrupted_int
interrupted_int() { interrupted INT; }

test_case "experiment: kill -9 ends it, and nothing is left" interrupted_kill
interrupted_kill() { interrupted KILL; }

test_case "experiment: a bad policy is told before anything is measured" bad_policy
bad_policy() {
    jq '.services[0].port = 70000' "$POLICY" >"$WORK/bad.json"
    expect_error 2 '/services/0/port' "$BENCH" experiment first-light --policy "$WORK/bad.json" --out "$WORK/results"
    expect_error 2 'nosuch.json' "$BENCH" experiment first-light --policy "$WORK/nosuch.json" --out "$WORK/results"
    equal "$(running)" "" "processes"
}

test_case "compare: lists its benchmarks, and knows no others" compare_ids
compare_ids() {
    "$BENCH" compare --list | grep -q '^xdp_hot_ns '
    expect_error 2 'there is no benchmark nosuch' "$BENCH" compare nosuch
}

OF_ALL="" test_case "compare: writes the list that is its contract" compare_contract # its figures are not looked at
compare_contract() {
    # Under emulation no figure is valid, and the status says so.
    try "$BENCH" compare chain_ns --out "$WORK/bench.json"
    equal "$(jq '.[0].valid' "$WORK/bench.json")" "$([ "$status" = 0 ] && echo true || echo false)" "valid, with status $status"
    equal "$(jq -c '.[0] | keys_unsorted' "$WORK/bench.json")" \
        '["id","value","unit","peer","ratio","low","high","target","met","valid","note"]' "keys"
    jq -e '.[0] | .value > 0 and .peer.value > 0 and .low <= .value and .value <= .high' "$WORK/bench.json" >/dev/null
}

main "$@"
