#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# agentnic-load probe: what it says agrees with what attach does, and it leaves nothing.
# shellcheck source=tests/harness/net.sh
. "$(dirname "$0")/../harness/net.sh"
# shellcheck disable=SC2034  # of the harness
OF_ALL=alone # it counts programs and links of the whole machine

NOBODY=(setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all)

# What a probe could leave on this machine.
surroundings() {
    ip netns list | sort
    ip -o link show | sed 's/:.*state/ state/'
    ls -A /sys/fs/bpf
    bpftool -j prog show | jq 'map(select(.name // "" | startswith("anic_"))) | length'
    bpftool -j link show | jq length
}
unchanged() { [ "$(surroundings)" = "$before" ]; }

# feature ID: yes, no or ?
feature() { jq -r --arg id "$1" '.features[] | select(.id == $id) | .available | if . == null then "?" elif . then "yes" else "no" end' <<<"$out"; }

probe_json() {
    try "$LOAD" probe --json "$@"
    [ "$status" = 0 ] || fail "probe exited with $status: $err"
}

test_case "probe: as root everything is tried, and what is required is there" as_root
as_root() {
    probe_json
    equal "$(jq -r '.schema, .privileged, .interface' <<<"$out" | paste -sd ' ')" "agentnic.probe/1 true null" "report"
    equal "$(jq '[.features[] | select(.available == null)] | length' <<<"$out")" 0 "features that could not be tried"
    equal "$(jq '[.features[] | select(.required and (.available | not))] | length' <<<"$out")" 0 "missing"
    equal "$(jq -r '.kernel.release' <<<"$out")" "$(uname -r)" "kernel"
    jq -e '.features | all(has("id") and has("title") and has("needed_by") and has("required") and has("available") and has("detail") and has("remedy"))' <<<"$out" >/dev/null
    jq -e '.libraries | length > 0 and all(has("name") and has("built_with") and has("running") and has("minimum") and has("ok"))' <<<"$out" >/dev/null
}

test_case "probe: each program's cost to the verifier is told, with the limit of this kernel" verifier_cost
verifier_cost() {
    probe_json
    equal "$(jq -r '[.programs[].name] | sort | join(" ")' <<<"$out")" \
        "anic_arrive anic_close anic_commit anic_drain anic_end anic_failsafe anic_note anic_open anic_prepare anic_start anic_tc_in anic_tc_out anic_xdp" "programs"
    jq -e '.programs | all(.loads and .error == null and .instructions > 0 and .instructions <= 0.7 * .instruction_limit and .states_total >= 0 and .states_peak >= 0)' <<<"$out" >/dev/null
}

test_case "probe: says of modes and hooks what attach then obtains" agrees
agrees() {
    probe_json
    local report=$out
    local mode said got hook
    for mode in native:xdp_native skb:xdp_skb tc:tcx; do
        out=$report
        said=$(feature "${mode#*:}")
        try attach --mode "${mode%:*}" --json
        got=no
        if [ "$status" = 0 ]; then
            got=yes
            hook=$(jq -r .hook <<<"$out")
            detach >/dev/null
        fi
        equal "$said" "$got" "${mode#*:}, and attach --mode ${mode%:*}: $err"
        [ "${mode%:*}" = tc ] && continue
        out=$report
        equal "$(feature dispatcher)" "$([ "$hook" = xdp-dispatcher ] && echo yes || echo no)" "dispatcher, and attach's hook $hook"
    done
}

test_case "probe: says of AF_XDP sockets what serve then obtains" agrees_xsk
agrees_xsk() {
    probe_json
    equal "$(feature xsk_copy)" yes "AF_XDP in copy mode"
    attach >/dev/null
    serve --transport xsk --iface lab0 --bind copy
    stop_serving
}

# What each kernel was found to have of path A; none of it is concluded from the version by probe itself.
declare -A PATH_A=(
    [6.1]="busy_poll reuseport udp_join uring uring_send_zc"
    [6.12]="busy_poll epoll_busy_poll reuseport udp_join uring uring_bundle uring_busy_poll uring_send_zc"
    [6.18]="busy_poll epoll_busy_poll napi_settings napi_threaded reuseport udp_join uring uring_bundle uring_busy_poll uring_send_zc zcrx"
    [7.3]="busy_poll epoll_busy_poll napi_settings napi_threaded reuseport udp_join uring uring_bundle uring_busy_poll uring_send_zc zcrx zcrx_nodev"
)

test_case "probe: what path A takes is tried part by part, and this kernel has what it is known to have" path_a smoke
path_a() {
    local kernel known parts=${PATH_A[7.3]}
    probe_json
    # those of path A for which this holds
    of_path_a() { jq -r --arg parts "$parts" "[.features[] | select((.id | IN(\$parts | split(\" \")[])) and ($1)) | .id] | sort | join(\" \")" <<<"$out"; }
    equal "$(of_path_a true)" "$parts" "parts"
    equal "$(jq -c '.features[] | select(.available == null) | [.id, .detail]' <<<"$out")" "" "not tried"
    equal "$(of_path_a '.required or .detail == "" or .remedy == ""')" "" "required, or without a word"
    kernel=$(uname -r | grep -oE '^[0-9]+\.[0-9]+')
    known=${PATH_A[$kernel]:-}
    [ -n "$known" ] || skip "nobody has written down what Linux $kernel has"
    equal "$(of_path_a .available)" "$known" "what Linux $kernel has"
}

test_case "probe: needs no privileges, and says what it could not try" as_nobody
as_nobody() {
    try "${NOBODY[@]}" "$LOAD" probe --json
    equal "$status" 0 "probe as nobody: $err"
    equal "$(jq .privileged <<<"$out")" false "privileged"
    equal "$(feature bpf_load)" '?' "bpf_load"
    equal "$(feature tcx)" '?' "tcx"
    equal "$(jq -r '.features[] | select(.id == "tcx") | .remedy' <<<"$out")" "run it as root" "remedy"
    equal "$(feature bpffs)" yes "bpffs, which is mounted here"
    equal "$(jq '.programs | length' <<<"$out")" 0 "programs"
    try "${NOBODY[@]}" "$LOAD" probe lo
    equal "$status" 0 "probe lo as nobody: $err"
    [[ $out == *'run it as root'* ]] || fail "$out"
}

test_case "probe: asks an interface, in its namespace, and changes nothing on it" interface
interface() {
    until_true 5 eval "ip -n $SERVER link show lab0 | grep -q 'state UP'" # the carrier comes a moment after the link
    probe_json lab0 --netns $SERVER
    equal "$(jq -r '.interface | .name, .netns, .driver, .link, .mtu_bytes, .queues.rx.now, .queues.rx.most, .xdp_program' <<<"$out" | paste -sd ' ')" \
        "lab0 $SERVER veth up 1500 1 1 null" "interface"
    jq -e '.interface | has("zero_copy") and has("native_xdp") and has("xdp_features") and has("vlan_receive_offload")' <<<"$out" >/dev/null
    # A veth has neither flow rules nor an RSS table, and does not say of header split.
    equal "$(jq -c '.interface | [.header_split, .flow_rules, .rss_table_entries]' <<<"$out")" '[null,{"on":false,"can_change":false},0]' "header split, flow rules, RSS table"
    # A kernel that says anything says that veth has native XDP and no zero-copy.
    [[ $(jq -c '.interface | [.native_xdp, .zero_copy]' <<<"$out") == @('[true,false]'|'[null,null]') ]] || fail "$out"
    attach >/dev/null
    local id
    id=$(xdp_id)
    probe_json lab0 --netns $SERVER
    [ "$(jq '.interface.xdp_program.id' <<<"$out")" = "$id" ] || fail "not $id: $out"
    equal "$(xdp_id)" "$id" "the program on lab0"
    "$LOAD" probe lab0 --netns $SERVER | grep -q '^interface lab0 in netns agentnic-server'
}

test_case "probe: an interface or a namespace that is not there is bad input" not_there
not_there() {
    expect_error 2 'find interface lab9' "$LOAD" probe lab9
    expect_error 2 'find interface lab9' "$LOAD" probe lab9 --netns $SERVER
    expect_error 2 'open netns nowhere' "$LOAD" probe lab0 --netns nowhere
}

test_case "probe: exits with 3 and names what is required and missing" missing
missing() {
    mount -t tmpfs tmpfs /sys/fs # no place for a bpffs
    expect_error 3 'required and not there: bpffs' "$LOAD" probe --json
    [[ $err == *'hint: nothing can be attached'* ]] || fail "no remedy: $err"
    equal "$(feature bpffs) $(feature bpf_load) $(feature tcx)" "no yes ?" "bpffs, bpf_load and what needs a place to try"
}

test_case "probe: leaves nothing behind" leaves_nothing
leaves_nothing() {
    before=$(surroundings)
    probe_json lab0 --netns $SERVER
    until_true 5 unchanged
    nothing_left
}

test_case "probe: killed at any moment it leaves nothing behind" killed
killed() {
    local step pid
    before=$(surroundings)
    for step in $(seq 0 29); do
        "$LOAD" probe >/dev/null 2>&1 &
        pid=$!
        sleep "$(printf '0.%03d' $((step * 10)))"
        kill -KILL $pid 2>/dev/null || true
        wait $pid 2>/dev/null || true
    done
    until_true 5 unchanged
    equal "$(pgrep -cx agentnic-load || true)" 0 "processes"
    nothing_left
}

main "$@"
