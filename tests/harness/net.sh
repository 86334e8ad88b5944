# shellcheck shell=bash
# shellcheck disable=SC2034,SC2119,SC2120  # used by the files that source this; arguments are optional
# SPDX-License-Identifier: Apache-2.0
#
# The harness of the net tests; each file of tests/net sources it first and ends with `main "$@"`.
#
#   test_case "a sentence that holds" function tag...   names a test; tags: see tests/README.md
#   OF_ALL=tag                                     a tag of every test that is named after it
#   FILE --list                                    prints the sentences, each with a tab and its tags
#   FILE --run SENTENCE                            runs one: 0 passed, 77 skipped, else failed
#   FILE --shell SENTENCE                          a shell in its surroundings instead
#
# A test runs in mount and process namespaces of its own, with an empty /run/netns, a bpffs of its own and a
# lab that is up (agentnic-client and agentnic-server, interface lab0 in each). When it ends, however it
# ends, the kernel removes all of it.
set -euo pipefail

ROOT=$(readlink -f "${BASH_SOURCE[0]}")
ROOT=${ROOT%/tests/harness/net.sh}
LOAD=$ROOT/.build/bin/agentnic-load
BENCH=$ROOT/.build/bin/agentnic-bench
POLICY=$ROOT/policies/first-light.json
FOREIGN=$ROOT/.build/tests/fixtures/foreign.bpf.o
SERVER=agentnic-server
CLIENT=agentnic-client
SERVER_IP=198.18.0.2
SERVER_IP6=2001:db8::2
PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH # Debian's own programs, whatever else there is of their names
export ROOT LOAD BENCH POLICY FOREIGN SERVER CLIENT SERVER_IP SERVER_IP6 PATH

declare -A CASES=() TAGS=()
NAMES=()

test_case() {
    NAMES+=("$1")
    CASES["$1"]=$2
    TAGS["$1"]="${*:3} ${OF_ALL:-}"
}

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

skip() {
    echo "$*"
    exit 77
}

# Runs a command; afterwards $status, $out and $err hold what it did.
try() {
    status=0
    "$@" >"$WORK/out" 2>"$WORK/err" || status=$?
    out=$(<"$WORK/out")
    err=$(<"$WORK/err")
}

# expect_error STATUS TEXT COMMAND...: fails with this status and one line that contains the text.
expect_error() {
    local wanted=$1 text=$2
    shift 2
    try "$@"
    [ "$status" = "$wanted" ] || fail "'$*' exited with $status, not $wanted: $out $err"
    [ "$(wc -l <<<"$err")" = 1 ] || fail "'$*' printed more than one line: $err"
    [[ $err == *"$text"* ]] || fail "'$*' did not say '$text': $err"
}

# equal ACTUAL EXPECTED WHAT
equal() { [ "$1" = "$2" ] || fail "$3: '$1', expected '$2'"; }

# until_true SECONDS COMMAND...; an emulated guest asks for more patience.
until_true() {
    local end=$((SECONDS + $1 * ${AGENTNIC_PATIENCE:-1}))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || fail "never came true: $*"
        sleep 0.15 # most of what is asked costs as much as that
    done
}

# Starts an echo server in the server's namespace and waits until it serves; its pid is $server_pid.
serve() {
    : >"$WORK/serve"
    "$BENCH" serve --netns "$SERVER" --json "$@" >"$WORK/serve" 2>"$WORK/serve.err" &
    server_pid=$!
    until_true 10 server_is_ready
}
server_is_ready() {
    grep -q ready "$WORK/serve" && return
    kill -0 "$server_pid" 2>/dev/null || fail "the server failed: $(<"$WORK/serve.err")"
    false
}

# Ends it; its last line is $served.
stop_serving() {
    kill -TERM "$server_pid"
    wait "$server_pid" || fail "the server failed: $(<"$WORK/serve.err")"
    served=$(tail -n 1 "$WORK/serve")
}

# ask PORT OPTIONS...: one short run of the load generator, JSON on $out. From the environment: SERVER_IP, WAIT (block), FOR (0.2 s,
# on an emulated processor, where an answer may take longer, 1 s).
ask() {
    local port=$1 seconds=0.2
    shift
    [ "${AGENTNIC_PATIENCE:-1}" = 1 ] || seconds=1
    try "$BENCH" run --netns "$CLIENT" --server "$SERVER_IP" --port "$port" --wait "${WAIT:-block}" \
        --warmup 0 --duration "${FOR:-$seconds}" --json "$@"
}

# The last ask() got answers, whole ones, and its run can be trusted. On an emulated processor some come after
# the client has stopped waiting, which makes a run invalid and is no fault.
answered() {
    if [ "$(jq .emulated <<<"$out")" = false ]; then
        equal "$status" 0 "the run ($out $err)"
        equal "$(jq .valid <<<"$out")" true "valid"
    fi
    [ "$(jq '.received > 0 and .damaged == 0' <<<"$out")" = true ] || fail "no answer, or a damaged one: $out $err"
}

# xsk_echoes MODE OPTIONS...: one run over an AF_XDP server, which obtains this mode and echoes all that was
# received; how much that is stands in $received.
xsk_echoes() {
    local mode=$1
    shift
    serve --transport xsk --iface lab0 --wait block "$@"
    equal "$(head -n 1 "$WORK/serve" | jq -r .obtained)" "$mode" "mode obtained"
    ask 9001
    answered
    received=$(jq .received <<<"$out")
    stop_serving
    [ "$(jq .echoed <<<"$served")" -ge "$received" ] || fail "echoed less than was received: $served"
}

# count JQ-PATH: a counter of what comes in at the server's interface; count_out: of what goes out.
count() { "$LOAD" stats lab0 --netns "$SERVER" --json | jq ".instances[0].in.$1"; }
count_out() { "$LOAD" stats lab0 --netns "$SERVER" --json | jq ".instances[0].out.$1"; }

attach() { "$LOAD" attach lab0 --netns "$SERVER" --policy "$POLICY" "$@"; }
detach() { "$LOAD" detach lab0 --netns "$SERVER" "$@"; }

# Whether the kernel has tcx, which is found out by trying; else programs at TC are filters of clsact.
has_tcx() { [ "$("$LOAD" probe --json | jq '.features[] | select(.id == "tcx").available')" = true ]; }

# Skips where the kernel does not load what libxdp's dispatcher is made of, which is found out by trying.
needs_dispatcher() {
    try attach --require dispatcher
    [ "$status" != 3 ] || skip "this kernel loads no XDP dispatcher"
    equal "$status" 0 "attach ($err)"
    detach >/dev/null
}

# at_each_step BEFORE AFTER COMMAND...: runs BEFORE, then the command, killed at its first system call that
# changes something, then AFTER with words for people and how often it was killed before; and so on with the
# second, the third, until the command comes to its end. AGENTNIC_STRIDE=N takes every Nth of the many calls
# of bpf(), and more of the others; KILL_AT has other system calls than these.
at_each_step() {
    local before=$1 after=$2 kills=0 calls step stride code
    shift 2
    for calls in ${KILL_AT:-bpf sendto,sendmsg unlink,unlinkat,rmdir,mkdir,mkdirat,rename,renameat2}; do
        stride=${AGENTNIC_STRIDE:-1}
        [ "$calls" = bpf ] || stride=$(((stride + 2) / 3))
        step=1
        while :; do
            $before >/dev/null
            code=0
            # In braces: the shell itself says who was killed.
            { strace -f -qq -o /dev/null -e "trace=$calls" -e "inject=$calls:signal=KILL:when=$step" "$@" >"$WORK/out" 2>&1 || code=$?; } 2>/dev/null
            [ $code = 137 ] || break
            $after "at call $step of $calls" $kills
            kills=$((kills + 1))
            step=$((step + stride))
        done
        equal $code 0 "status of '$*', not killed, which said '$(<"$WORK/out")'"
    done
    [ $kills -gt 0 ] || fail "it was never killed"
}

# field JQ-PATH: of the status of the server's instance.
# field JQ-PATH: of status, whose exit status 4 says that there is fail-safe or an alarm.
field() { { "$LOAD" status --json || [ $? = 4 ]; } | jq -r ".instances[0].$1"; }

# What came in was seen, and all that was seen went somewhere: for each tenant, and for the queues.
conserved() {
    local stats
    stats=$("$LOAD" stats "${IFACE:-lab0}" --netns "${1:-$SERVER}" --json)
    equal "$(jq -c '[.instances[0] | .in, .out | .by_tenant[] | select(.seen_packets != .packets)]' <<<"$stats")" "[]" "tenants whose packets went nowhere"
    equal "$(jq '.instances[0] | [.in, .out] | map(([.by_reason[].packets] | add) == ([.by_queue[].packets_by_reason[]] | add // 0)) | all' <<<"$stats")" true "sums of reasons and queues"
}

# The id of the XDP program on an interface, or 0.
xdp_id() { ip -n "${2:-$SERVER}" -j link show dev "${1:-lab0}" | jq '.[0].xdp.prog.id // 0'; }

# What agentnic has left in bpffs.
pins() { find /sys/fs/bpf -path '*agentnic*' | sort; }

nothing_left() {
    equal "$(pins)" "" "pins"
    equal "$(find /sys/fs/bpf -path '/sys/fs/bpf/xdp/*')" "" "pins of libxdp"
    equal "$(xdp_id)" 0 "XDP program on lab0"
}

# in_namespace_of PID COMMAND...: among the processes of the child of an unshare --fork, as systemd wants those who talk to it.
in_namespace_of() { nsenter --target "$(pgrep -P "$1")" --pid --mount "${@:2}"; }

# With AGENTNIC_KEEP, records what passes the client's end of the lab while the test runs.
capture() {
    [ -n "${AGENTNIC_KEEP:-}" ] || return 0
    ip netns exec $CLIENT tcpdump -i lab0 -U -s 256 -Z root -w "$AGENTNIC_KEEP/client.pcap" 2>"$WORK/tcpdump" &
    until_true 10 grep -q 'listening on' "$WORK/tcpdump"
}

inside() {
    local name=$1 mode=$2
    mount -t tmpfs tmpfs /run/netns
    mount -t bpf bpf /sys/fs/bpf
    WORK=$(mktemp -d)
    trap 'rm -rf "$WORK"' EXIT
    "$BENCH" lab up >/dev/null
    capture
    if [ "$mode" = --shell ]; then
        echo "LOAD=$LOAD BENCH=$BENCH POLICY=$POLICY"
        bash -i
        return
    fi
    trap 'echo "FAILED at ${BASH_SOURCE[1]##*/}:$LINENO: $BASH_COMMAND" >&2' ERR
    set -E
    "${CASES[$name]}"
}

main() {
    case "${1:-}" in
        --list)
            local name
            for name in "${NAMES[@]}"; do printf '%s\t%s\n' "$name" "${TAGS[$name]}"; done
            ;;
        --run | --shell)
            [ -n "${CASES[$2]:-}" ] || fail "there is no test '$2'"
            mkdir -p /run/netns
            exec unshare --mount --propagation private --pid --fork --kill-child --mount-proc bash "$0" --inside "$2" "$1"
            ;;
        --inside) inside "$2" "$3" ;;
        *) fail "usage: $0 --list | --run NAME | --shell NAME" ;;
    esac
}
