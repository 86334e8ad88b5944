#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# agentnic-load on real interfaces: attach, detach, status, and everything that can be in the way.
# shellcheck source=tests/harness/net.sh
. "$(dirname "$0")/../harness/net.sh"

test_case "attach: puts one program on the interface, and status says which and how" attaches
attaches() {
    attach >"$WORK/said"
    grep -q 'attached to lab0 in netns agentnic-server: native, xdp-' "$WORK/said"
    try "$LOAD" status lab0 --netns $SERVER --json
    equal "$status" 0 "status"
    equal "$(jq -r '.schema, .instances[0].state, .instances[0].mode, .instances[0].policy.name' <<<"$out" | paste -sd ' ')" \
        "agentnic.status/3 attached native first-light" "status"
    [ "$(xdp_id)" != 0 ] || fail "no XDP program on lab0"
    "$LOAD" status | grep -q 'lab0 in netns agentnic-server: attached'
}

test_case "attach: twice is once" twice
twice() {
    attach >/dev/null
    local id
    id=$(xdp_id)
    attach | grep -q 'already attached to lab0'
    equal "$(xdp_id)" "$id" "program id"
    equal "$("$LOAD" status --json | jq '.instances | length')" 1 "instances"
}

test_case "attach: two at the same time make one instance" at_once
at_once() {
    local round
    for round in 1 2 3 4 5; do
        attach >/dev/null &
        local first=$!
        attach >/dev/null &
        wait $first || fail "the first of two attaches failed in round $round"
        wait $! || fail "the second of two attaches failed in round $round"
        equal "$("$LOAD" status --json | jq '.instances | length')" 1 "instances"
        detach >/dev/null
    done
    nothing_left
}

test_case "attach: --dry-run says what would be done, as nobody too, and does nothing" dry_run
dry_run() {
    attach --dry-run | grep -q 'would attach to lab0'
    equal "$(attach --dry-run --json | jq -r '.schema, .dry_run, .modes[0]' | paste -sd ' ')" "agentnic.attach/2 true native" "dry run"
    nothing_left
    # Anyone may ask about an interface of the own namespace.
    try setpriv --reuid 65534 --regid 65534 --clear-groups "$LOAD" attach lo --policy "$POLICY" --dry-run
    equal "$status" 0 "dry run as nobody ($err)"
}

test_case "attach: another policy is refused while one is in force, and the first stays" other_policy
other_policy() {
    attach >/dev/null
    jq '.name = "second"' "$POLICY" >"$WORK/second.json"
    expect_error 1 'policy first-light' "$LOAD" attach lab0 --netns $SERVER --policy "$WORK/second.json"
    equal "$("$LOAD" status --json | jq -r '.instances[0].policy.name')" first-light "policy"
}

test_case "attach: another mode is refused while one is in force" other_mode
other_mode() {
    attach --mode native >/dev/null
    expect_error 1 'attached in mode native' attach --mode skb
    attach --mode auto | grep -q 'already attached'
}

test_case "attach: modes native, skb and tc are obtained as asked for" modes smoke
modes() {
    local mode
    for mode in native skb tc; do
        attach --mode $mode --require $mode >/dev/null
        equal "$("$LOAD" status --json | jq -r '.instances[0].mode')" $mode "mode"
        detach >/dev/null
    done
    nothing_left
}

test_case "attach: auto takes TC for a policy without an xsk service, and says why" auto_tc
auto_tc() {
    jq '.services |= map(select(.path == "kernel"))' "$POLICY" >"$WORK/kernel.json"
    "$LOAD" attach lab0 --netns $SERVER --policy "$WORK/kernel.json" >"$WORK/said"
    grep -Eq ': tc, (tcx|clsact)' "$WORK/said"
    grep -q 'why: no service needs XDP' "$WORK/said"
    equal "$(xdp_id)" 0 "XDP program"
}

test_case "attach: auto falls back to skb where the driver refuses native, and says so" falls_back
falls_back() {
    # A veth whose peer has more transmit queues than it has receive queues.
    ip -n $SERVER link add narrow numrxqueues 1 numtxqueues 1 type veth peer name wide numrxqueues 4 numtxqueues 4
    "$LOAD" attach narrow --netns $SERVER --policy "$POLICY" >"$WORK/said"
    grep -q ': skb, xdp-' "$WORK/said"
    grep -q 'not native: fewer receive queues' "$WORK/said"
    "$LOAD" detach narrow --netns $SERVER >/dev/null
    expect_error 3 'narrow (native)' "$LOAD" attach narrow --netns $SERVER --policy "$POLICY" --mode native
    expect_error 3 'required native, obtained skb' "$LOAD" attach narrow --netns $SERVER --policy "$POLICY" --require native
    equal "$(xdp_id narrow)" 0 "XDP program"
    equal "$(pins)" "" "pins"
}

test_case "attach: --require of what was not obtained exits with 3 and leaves nothing" requires
requires() {
    expect_error 3 'required tc, obtained native' attach --require tc
    nothing_left
    expect_error 2 'gold' attach --require gold
}

test_case "attach: a foreign XDP program is named, and left where it is" foreign
foreign() {
    bpftool prog load "$FOREIGN" /sys/fs/bpf/foreign
    # ip opens the pin outside, by nsenter of the network namespace alone.
    nsenter --net=/run/netns/$SERVER bpftool net attach xdpgeneric pinned /sys/fs/bpf/foreign dev lab0
    local id
    id=$(xdp_id)
    expect_error 1 "XDP program foreign (id $id)" attach
    expect_error 1 "XDP program foreign (id $id)" attach --mode skb
    expect_error 1 "XDP program foreign (id $id)" attach --dry-run
    equal "$(xdp_id)" "$id" "the foreign program"
    equal "$(pins)" "" "pins"
    # TC is not in its way.
    attach --mode tc >/dev/null
    detach >/dev/null
    equal "$(xdp_id)" "$id" "the foreign program"
}

test_case "attach: an interface with a dot in its name gets an escaped pin" dotted
dotted() {
    ip -n $SERVER link add lab0.100 type veth peer name peer
    ip -n $SERVER link set lab0.100 up
    "$LOAD" attach lab0.100 --netns $SERVER --policy "$POLICY" >/dev/null
    pins | grep -q 'lab0%2e100/anic_meta'
    equal "$("$LOAD" status --json | jq -r '.instances[0].interface')" lab0.100 "interface"
    "$LOAD" detach lab0.100 --netns $SERVER >/dev/null
    nothing_left
}

test_case "bad input: names that nobody has, options that do not exist, files that are not policies" bad_input
bad_input() {
    expect_error 2 'find interface lab9' "$LOAD" attach lab9 --netns $SERVER --policy "$POLICY"
    expect_error 2 'find interface a-name-that-is-too-long' "$LOAD" attach a-name-that-is-too-long --policy "$POLICY"
    expect_error 2 'open netns nowhere' "$LOAD" attach lab0 --netns nowhere --policy "$POLICY"
    expect_error 2 'open netns ../netns' "$LOAD" attach lab0 --netns ../netns/$SERVER --policy "$POLICY"
    expect_error 2 '/nonexistent.json' "$LOAD" attach lab0 --netns $SERVER --policy /nonexistent.json
    expect_error 2 'hint: agentnic-load --help' "$LOAD" attach lab0 --policy "$POLICY" --mode sideways
    expect_error 2 'hint: agentnic-load --help' "$LOAD" frobnicate
    expect_error 2 'which interface?' "$LOAD" detach
    expect_error 2 'find interface lab9' "$LOAD" detach lab9 --netns $SERVER
    expect_error 2 'find interface lab9' "$LOAD" status lab9 --netns $SERVER
    expect_error 1 'agentnic is not attached to it' "$LOAD" stats lab0 --netns $SERVER
    local key
    for key in '.services[0].prio = 1' '.services[0].port = 70000' '.services += [.services[0]]'; do
        jq "$key" "$POLICY" >"$WORK/bad.json"
        expect_error 2 "$WORK/bad.json: /services/" "$LOAD" check "$WORK/bad.json"
        expect_error 2 "$WORK/bad.json: /services/" "$LOAD" attach lab0 --netns $SERVER --policy "$WORK/bad.json"
    done
    head -c 100 "$POLICY" >"$WORK/bad.json"
    expect_error 2 'line ' "$LOAD" attach lab0 --netns $SERVER --policy "$WORK/bad.json"
    nothing_left
}

test_case "privileges: without them each command says what to do" no_privileges
no_privileges() {
    local nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all)
    expect_error 1 'hint: run as root' "${nobody[@]}" "$LOAD" attach lo --policy "$POLICY"
    expect_error 1 'hint: run as root' "${nobody[@]}" "$LOAD" detach lo
    expect_error 1 'hint: run as root' "${nobody[@]}" "$LOAD" status
    expect_error 1 'hint: run as root' "${nobody[@]}" "$LOAD" stats
    expect_error 1 'run as root' "${nobody[@]}" "$BENCH" lab up
    expect_error 1 'run as root' "${nobody[@]}" "$BENCH" experiment first-light --policy "$POLICY" --out "$WORK"
    expect_error 1 'run as root' "${nobody[@]}" "$BENCH" compare
    try "${nobody[@]}" "$LOAD" check "$POLICY"
    equal "$status" 0 "check as nobody"
}

test_case "bpffs: one that is not mounted is mounted" mounts_bpffs
mounts_bpffs() {
    umount /sys/fs/bpf
    ! mountpoint -q /sys/fs/bpf || umount /sys/fs/bpf
    attach >/dev/null
    mountpoint -q /sys/fs/bpf
    detach >/dev/null
}

test_case "bpffs: one that cannot be mounted is told with the remedy, and nothing is attached" no_bpffs
no_bpffs() {
    umount /sys/fs/bpf
    ! mountpoint -q /sys/fs/bpf || umount /sys/fs/bpf
    # All that attaching takes, but not CAP_SYS_ADMIN, which mounting takes.
    expect_error 1 'mount a bpffs at /sys/fs/bpf' nsenter --net=/run/netns/$SERVER setpriv --bounding-set=-sys_admin \
        "$LOAD" attach lab0 --policy "$POLICY"
    [[ $err == *'mount -t bpf bpf /sys/fs/bpf'* ]] || fail "no remedy: $err"
    equal "$(xdp_id)" 0 "XDP program"
    # In mounts of its own, where the pins would go with the command.
    expect_error 1 'use --netns NAME' ip netns exec $SERVER "$LOAD" attach lab0 --policy "$POLICY"
    equal "$(xdp_id)" 0 "XDP program"
}

test_case "detach: removes everything, and is safe to repeat" detaches
detaches() {
    attach >/dev/null
    detach | grep -q 'detached from lab0'
    nothing_left
    detach | grep -q 'nothing attached to lab0'
    equal "$(detach --json | jq '.detached | length')" 0 "detached"
}

test_case "detach: --all reaches every namespace" detach_all
detach_all() {
    attach >/dev/null
    "$LOAD" attach lab0 --netns $CLIENT --policy "$POLICY" --mode tc >/dev/null
    equal "$("$LOAD" detach --all --json | jq '.detached | length')" 2 "detached"
    nothing_left
    "$LOAD" detach --all | grep -q 'nothing attached'
}

# Wholly there or not at all, and both verbs work.
after_kill() {
    if [ "$(xdp_id)" != 0 ]; then
        equal "$("$LOAD" status --json | jq -r '.instances[0].state')" attached "state after a kill $1"
    fi
    if [ $(($2 % 2)) = 0 ]; then
        attach >/dev/null || fail "attach after a kill $1"
        equal "$("$LOAD" status --json | jq -r '.instances[0].state')" attached "state"
    fi
    detach >/dev/null || fail "detach after a kill $1"
    nothing_left
}

test_case "kill -9: at each step of an attach, and the next one works" killed_attach
killed_attach() { at_each_step detach after_kill "$LOAD" attach lab0 --netns $SERVER --policy "$POLICY"; }

test_case "kill -9: at each step of a detach, and the next one works" killed_detach
killed_detach() { at_each_step attach after_kill "$LOAD" detach lab0 --netns $SERVER; }

test_case "interface removed: status says so, detach cleans up, a new one can be attached" removed
removed() {
    attach >/dev/null
    ip -n $SERVER link del lab0
    try "$LOAD" status
    equal "$status" 1 "status of what is gone"
    [[ $out == *gone* ]] || fail "$out"
    detach | grep -q 'detached from lab0'
    "$BENCH" lab up >/dev/null
    attach >/dev/null
    ip -n $SERVER link del lab0
    "$BENCH" lab up >/dev/null
    attach | grep -q '^attached to lab0'
}

test_case "namespace removed: detach --all cleans up" netns_removed
netns_removed() {
    attach >/dev/null
    "$BENCH" lab down >/dev/null
    try "$LOAD" status
    equal "$status" 1 "status of what is gone"
    "$LOAD" detach --all >/dev/null
    equal "$(pins)" "" "pins"
}

test_case "interface renamed: it keeps its instance under the new name, and the old name is free for an error" renamed
renamed() {
    attach >/dev/null
    ip -n $SERVER link set lab0 down
    ip -n $SERVER link set lab0 name other
    equal "$("$LOAD" status --json | jq -r '.instances[0] | .interface, .state' | paste -sd ' ')" "other attached" "status"
    "$LOAD" attach other --netns $SERVER --policy "$POLICY" | grep -q 'already attached'
    ip -n $SERVER link add lab0 type veth peer name lab1
    expect_error 1 'its pins are held by other' attach
    # The new one is not taken for the old one.
    detach | grep -q 'nothing attached to lab0'
    expect_error 1 'agentnic is not attached to it' "$BENCH" serve --netns $SERVER --transport xsk --iface lab0
    equal "$("$LOAD" status --json | jq '.instances | length')" 1 "instances"
    "$LOAD" detach other --netns $SERVER | grep -q 'detached from other'
    equal "$(pins)" "" "pins"
}

test_case "another ABI: attach names both versions, detach still works" other_abi
other_abi() {
    attach >/dev/null
    local meta ours
    ours=$(field abi)
    meta=$(pins | grep anic_meta)
    # The version is the first word.
    local rest
    mapfile -t rest < <(bpftool -j map lookup pinned "$meta" key hex 00 00 00 00 | jq -r '.value[1:][] | ltrimstr("0x")')
    bpftool map update pinned "$meta" key hex 00 00 00 00 value hex 63 "${rest[@]}"
    expect_error 1 'pinned with ABI 99' attach
    [[ $err == *"this program has ABI $ours "* ]] || fail "$err"
    equal "$("$LOAD" status --json | jq -r '.instances[0].state')" other-abi "state"
    detach >/dev/null
    nothing_left
}

test_case "forced off: a program that someone took off by force is noticed" forced_off
forced_off() {
    attach >/dev/null
    if pins | grep -q '/link$'; then
        bpftool link detach pinned "$(pins | grep '/link$')"
    else
        ip -n $SERVER link set dev lab0 xdp off
    fi
    equal "$("$LOAD" status --json | jq -r '.instances[0].state')" gone "state"
    attach | grep -q '^attached to lab0'
}

test_case "alternative names: one interface, one instance" altname
altname() {
    ip -n $SERVER link property add dev lab0 altname another-name
    attach >/dev/null
    "$LOAD" attach another-name --netns $SERVER --policy "$POLICY" | grep -q 'already attached'
    equal "$("$LOAD" status --json | jq '.instances | length')" 1 "instances"
    "$LOAD" detach another-name --netns $SERVER | grep -q 'detached from another-name'
    nothing_left
}

test_case "interface moved to another namespace: it is told as gone, and another of its name can be attached" moved
moved() {
    attach --mode tc >/dev/null
    ip -n $SERVER link set lab0 netns $CLIENT name moved
    equal "$("$LOAD" status --json | jq -r '.instances[0].state')" gone "state"
    ip -n $SERVER link add lab0 numrxqueues 1 numtxqueues 1 type veth peer name lab1 numrxqueues 1 numtxqueues 1
    attach | grep -q '^attached to lab0'
    equal "$("$LOAD" status --json | jq -r '.instances | length, .[0].state' | paste -sd ' ')" "1 attached" "status"
}

test_case "detach: --all is for one namespace with --netns, and not together with an interface" detach_all_of
detach_all_of() {
    attach >/dev/null
    "$LOAD" attach lab0 --netns $CLIENT --policy "$POLICY" --mode tc >/dev/null
    "$LOAD" detach --all --netns $CLIENT >/dev/null
    equal "$("$LOAD" status --json | jq -r '.instances[].netns')" $SERVER "what is left"
    expect_error 2 '--all' "$LOAD" detach lab0 --all
}

test_case "dry run: of what is attached says that nothing would change, and refuses what attach refuses" dry_run_attached
dry_run_attached() {
    attach >/dev/null
    attach --dry-run | grep -q 'nothing would change'
    expect_error 1 'attached in mode native' attach --mode skb --dry-run
    detach >/dev/null
    expect_error 3 'required tc' attach --mode native --require tc --dry-run
}

test_case "detach: of half an attach leaves a foreign program where it is" half_and_foreign
half_and_foreign() {
    attach --mode skb >/dev/null
    # What an attach that was stopped before its last pin leaves: with the pin, the link goes.
    rm -f "$(pins | grep '/link$' || echo /nonexistent)"
    [ "$(xdp_id)" = 0 ] || skip "under the dispatcher there is no link to lose"
    bpftool prog load "$FOREIGN" /sys/fs/bpf/foreign
    nsenter --net=/run/netns/$SERVER bpftool net attach xdpgeneric pinned /sys/fs/bpf/foreign dev lab0
    local id
    id=$(xdp_id)
    detach | grep -q 'detached from lab0'
    equal "$(pins)" "" "pins"
    equal "$(xdp_id)" "$id" "the foreign program"
}

main "$@"
