#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Path C over soft-RoCE: verbs, agentnic-bulk by RDMA, what goes wrong there, and what is left of it.
# shellcheck disable=SC2034  # of net.sh
OF_ALL=rdma
# shellcheck source=tests/harness/net.sh
. "$(dirname "$0")/../harness/net.sh"
# shellcheck source=tests/harness/bulk.sh
. "$(dirname "$0")/../harness/bulk.sh"

ADDRESS=198.18.1.1 # of rxe0, looped back
ADDRESS6=2001:db8:1::1

# What the kernel has of RDMA: queue pairs, completion queues, memory regions, protection domains.
resources() { rdma -j resource show | jq -c 'map(del(.ifindex))'; }
# The kernel takes queue pairs away a little after their process.
none_left() { [ "$(resources)" = "$before" ]; }

new_rxe() {
    rdma link delete rxe0 2>/dev/null || true
    rdma link add rxe0 type rxe netdev rdma0
}

test_case "rdma: all operations carry content whole, each error has its name, and no object is left" verbs smoke
verbs() {
    before=$(resources)
    AGENTNIC_RDMA_ADDRESS=$ADDRESS "$ROOT/.build/bin/test-unit" '[.rdma]' >"$WORK/verbs" 2>&1 || fail "$(<"$WORK/verbs")"
    grep -q 'All tests passed' "$WORK/verbs" || fail "$(<"$WORK/verbs")"
    until_true 5 none_left
}

test_case "rdma: 64 and 256 MiB are carried whole by each operation" large
large() {
    [ "${AGENTNIC_STRIDE:-1}" != 41 ] || skip "of the full tier"
    local mib
    for mib in 64 256; do
        AGENTNIC_RDMA_MIB=$mib AGENTNIC_RDMA_ADDRESS=$ADDRESS "$ROOT/.build/bin/test-unit" 'rdma: what is sent*' >"$WORK/verbs" 2>&1 || fail "$(<"$WORK/verbs")"
    done
}

test_case "rdma: rping connects by rdma_cm, as a control" control smoke
control() { rping_by HERE HERE $ADDRESS || fail "rping: $(<"$WORK/rping")"; }

# rping_by WHERE_SERVER WHERE_CLIENT ADDRESS: whether ten pings go through.
rping_by() {
    local -n servers=$1 clients=$2
    local pid went=0
    "${servers[@]}" rping -s -a "$3" -C 10 >"$WORK/rping" 2>&1 &
    pid=$!
    for _ in {1..100}; do
        [ "$("${servers[@]}" rdma -j resource show cm_id | jq 'map(select(.state == "LISTEN")) | length')" = 0 ] || break
        kill -0 $pid 2>/dev/null || return 1
        sleep 0.1
    done
    timeout 20 "${clients[@]}" rping -c -a "$3" -C 10 >>"$WORK/rping" 2>&1 || went=1
    kill $pid 2>/dev/null || true
    wait $pid || true
    return $went
}

test_case "rdma: bulk files go and come by RDMA, by content, and nothing of it is left" bulk_by_rdma smoke
bulk_by_rdma() {
    bulk_begin
    make_files 0 1 65536 3000001
    before=$(resources)
    bulk_serve HERE $ADDRESS --slots 4 --slot-kib 64
    bulk HERE push $ADDRESS:9200 "$WORK/files" --transport rdma
    equal "$(jq -r '[.obtained, .fallback, (.rdma_port | startswith("rxe0 port 1, GID "))] | tojson' <<<"$ended")" '["rdma",null,true]' "path obtained"
    same_files "$WORK/files" "$WORK/served/files"
    mkdir "$WORK/back"
    bulk HERE pull $ADDRESS:9200 files --to "$WORK/back" --digest sha256
    equal "$(jq -r .obtained <<<"$ended")" rdma "path obtained"
    same_files "$WORK/files" "$WORK/back/files"
    bulk HERE push $ADDRESS:9200 "$WORK/files" --to cm --transport rdma --connect cm
    equal "$(jq -r '[.obtained, .fallback] | tojson' <<<"$ended")" '["rdma",null]' "path obtained by rdma_cm"
    same_files "$WORK/files" "$WORK/served/cm/files"
    bulk HERE push $ADDRESS:9200 "$WORK/files" --to tcp --transport tcp
    equal "$(jq -r .obtained <<<"$ended")" tcp "path obtained"
    bulk_stop
    until_true 5 none_left
}

test_case "rdma: over IPv6 as over IPv4, by either way to connect" over_ipv6 smoke
over_ipv6() {
    local connect
    bulk_begin
    make_files 1 300000
    trap 'ip addr del $ADDRESS6/64 dev rdma0; rm -rf "$WORK"' EXIT
    ip addr add $ADDRESS6/64 dev rdma0 nodad
    bulk_serve HERE "[$ADDRESS6]" --slots 4 --slot-kib 64
    for connect in exchange cm; do
        bulk HERE push "[$ADDRESS6]:9200" "$WORK/files" --to $connect --transport rdma --connect $connect
        equal "$(jq -r '[.obtained, .fallback] | tojson' <<<"$ended")" '["rdma",null]' "path obtained by $connect"
        same_files "$WORK/files" "$WORK/served/$connect/files"
    done
    bulk_stop
}

test_case "rdma: a server of all addresses serves IPv4, too, by either way to connect" of_all_addresses smoke
of_all_addresses() {
    local connect
    bulk_begin
    make_files 1 300000
    bulk_serve HERE '[::]' --slots 4 --slot-kib 64
    for connect in exchange cm; do
        bulk HERE push $ADDRESS:9200 "$WORK/files" --to $connect --transport rdma --connect $connect
        equal "$(jq -r '[.obtained, .fallback] | tojson' <<<"$ended")" '["rdma",null]' "path obtained by $connect"
        same_files "$WORK/files" "$WORK/served/$connect/files"
    done
    bulk_stop
}

test_case "rdma: a device of another network namespace is not taken for one of this, whatever its address" elsewhere smoke
elsewhere() {
    bulk_begin
    make_files 300000
    trap '"${ON_SERVER[@]}" rdma link delete rxe1 2>/dev/null || true; new_rxe; rm -rf "$WORK"' EXIT
    rdma link delete rxe0
    "${ON_SERVER[@]}" ip link add other index 77 up type dummy
    "${ON_SERVER[@]}" ip addr add $ADDRESS/32 dev other
    try "${ON_SERVER[@]}" rdma link add rxe1 type rxe netdev other
    [ "$status" = 0 ] || skip "soft-RoCE of this kernel is not for each namespace: $err"
    bulk_serve HERE $ADDRESS
    bulk HERE push $ADDRESS:9200 "$WORK/files"
    equal "$(jq -r '[.obtained, (.why_not_rdma | contains("another network namespace"))] | tojson' <<<"$ended")" '["tcp",true]' "path obtained ($ended)"
    bulk_stop
}

test_case "rdma: when the link goes down in the middle, the file goes on by TCP from where it was, and says so" fallback smoke
fallback() {
    # TCP is to have a way that is left.
    trap 'ip link set rdma0 up; ip addr del $ADDRESS/32 dev lo; rm -rf "$WORK"' EXIT
    ip addr add $ADDRESS/32 dev lo
    broken_by push ip link set rdma0 down
    equal "$became" '["rdma","string",1,"tcp"]' "what became of the push ($(tail -n 1 "$WORK/moved"))"
    ip link set rdma0 up
    broken_by pull ip link set rdma0 down
    equal "$became" '["rdma","string",1,"tcp"]' "what became of the pull ($(tail -n 1 "$WORK/moved"))"
}

test_case "rdma: when the device is removed in the middle, the file arrives, and nothing is left of it" removed smoke
removed() {
    trap 'new_rxe; rm -rf "$WORK"' EXIT
    broken_by push rdma link delete rxe0
    # Older kernels let those go on who have the device open.
    case $became in
        '["rdma","string",1,"tcp"]' | '["rdma","null",1,"rdma"]') ;;
        *) fail "what became of it: $(tail -n 1 "$WORK/moved")" ;;
    esac
    until_true 10 no_device
}
no_device() { [ -z "$(ls /sys/class/infiniband)" ]; }

# broken_by push|pull COMMAND...: a session whose RDMA breaks in the middle; $became is what came of it.
broken_by() {
    local words=(push "$ADDRESS:9200" "$WORK/files") into=$WORK/served pid
    bulk_begin
    make_files 6000000
    rm -rf "$WORK/served" "$WORK/back"
    mkdir -p "$WORK/served" "$WORK/back"
    if [ "$1" = pull ]; then
        cp -a "$WORK/files" "$WORK/served/"
        words=(pull "$ADDRESS:9200" files --to "$WORK/back") into=$WORK/back
    fi
    bulk_serve HERE $ADDRESS --slots 4 --slot-kib 64
    "$BULK" "${words[@]}" --secret "$WORK/secret" --rate 8Mbit --json >"$WORK/moved" 2>"$WORK/moved.err" &
    pid=$!
    until_true 20 part_has 500000 "$into"
    "${@:2}"
    wait $pid || fail "$1: $(<"$WORK/moved.err")"
    same_files "$WORK/files" "$into/files"
    bulk_stop
    became=$(jq -s -c '[.[-1] | .obtained, (.fallback | type), .files] + [map(select(.event == "file"))[0].by]' "$WORK/moved")
}

test_case "rdma: whoever is killed in the middle leaves nothing in the kernel, and the next session goes on" killed smoke
killed() {
    bulk_begin
    make_files 4000000
    before=$(resources)
    killed_and_resumed HERE HERE $ADDRESS 8Mbit 300000 "--slots 4 --slot-kib 64 --timeout 5" --transport rdma
    until_true 5 none_left
}

test_case "rdma: memory beyond the limit is refused with the remedy, or goes on by TCP" locked smoke
locked() {
    bulk_begin
    make_files 100000
    bulk_serve HERE $ADDRESS
    try prlimit --memlock=1048576 setpriv --bounding-set=-ipc_lock --inh-caps=-all \
        "$BULK" push $ADDRESS:9200 "$WORK/files" --secret "$WORK/secret" --transport rdma
    equal "$status" 3 "status ($out $err)"
    [[ $err == *"RLIMIT_MEMLOCK"*"ulimit -l"* ]] || fail "it did not say why: $err"
    try prlimit --memlock=1048576 setpriv --bounding-set=-ipc_lock --inh-caps=-all \
        "$BULK" push $ADDRESS:9200 "$WORK/files" --secret "$WORK/secret" --json
    equal "$status" 0 "status ($err)"
    equal "$(tail -n 1 <<<"$out" | jq -r '[.obtained, (.why_not_rdma | contains("RLIMIT_MEMLOCK"))] | tojson')" '["tcp",true]' "path obtained"
    bulk_stop
}

test_case "rdma: between hosts, what the dataplane sees of RoCE and rdma_cm is the tenant's bulk" accounted smoke
accounted() {
    bulk_begin
    make_files 300000
    trap 'no_lab_rxe; rm -rf "$WORK"' EXIT
    "${ON_SERVER[@]}" rdma link add rxe1 type rxe netdev lab0
    try "${ON_CLIENT[@]}" rdma link add rxe2 type rxe netdev lab0
    [ "$status" = 0 ] || skip "soft-RoCE of this kernel is not for each namespace: $err"
    rping_by ON_SERVER ON_CLIENT $SERVER_IP || skip "soft-RoCE of this kernel does not cross namespaces: rping: $(<"$WORK/rping")"
    POLICY=$WORK/bulk.json
    echo '{"version": 1, "name": "bulk", "services": [], "tenants": [{"name": "acme", "prefixes": ["198.18.0.1/32"]}]}' >"$POLICY"
    attach >/dev/null
    bulk_serve ON_SERVER $SERVER_IP --slots 4 --slot-kib 64
    local connect packets
    for connect in exchange cm; do
        bulk ON_CLIENT push $SERVER_IP:9200 "$WORK/files" --to $connect --connect $connect
        equal "$(jq -r '[.obtained, .fallback] | tojson' <<<"$ended")" '["rdma",null]' "path obtained by $connect"
        same_files "$WORK/files" "$WORK/served/$connect/files"
    done
    packets=$(count by_tenant.acme.by_class.bulk.by_reason.pass_roce.packets)
    [ "$packets" -ge 586 ] || fail "packets of RoCE accounted to bulk: $packets"
    bulk_stop
}
no_lab_rxe() {
    "${ON_SERVER[@]}" rdma link delete rxe1 2>/dev/null || true
    "${ON_CLIENT[@]}" rdma link delete rxe2 2>/dev/null || true
}

main "$@"
