# shellcheck shell=bash
# shellcheck disable=SC2034  # used by the files that source this
# SPDX-License-Identifier: Apache-2.0
#
# Unprivileged owners of AF_XDP sockets, for net tests: agentnic-load serve, and who asks it. After net.sh.

OWNER=1000
OTHER=1001

# owner_policy OWNER [PORT-OF-ANOTHER OWNER-OF-IT]: the service gateway on path xsk, and who may own it.
owner_policy() {
    local more=
    [ $# -lt 3 ] || more=", {\"name\": \"other\", \"protocol\": \"udp\", \"port\": $2, \"class\": \"rpc\", \"path\": \"xsk\", \"owner\": $3}"
    cat >"$WORK/owners.json" <<END
{"version": 1, "name": "owners", "services": [
  {"name": "kernel", "protocol": "udp", "port": 9000, "class": "rpc", "path": "kernel"},
  {"name": "gateway", "protocol": "udp", "port": 9001, "class": "rpc", "path": "xsk", "owner": $1}$more]}
END
}

# start_serve OPTIONS...: the daemon, at $socket; its pid is $serve_pid. For another interface than lab0: IFACE.
start_serve() {
    chmod 755 "$WORK"
    socket=$WORK/xsk
    : >"$WORK/serve.out"
    "$LOAD" serve "${IFACE:-lab0}" --netns "$SERVER" --socket "$socket" --json "$@" >"$WORK/serve.out" 2>"$WORK/serve.log" &
    serve_pid=$!
    until_true 10 said_or_dead
    if grep -q 'it takes Linux 6.4' "$WORK/serve.log"; then
        status=0
        wait "$serve_pid" || status=$?
        equal "$status" 3 "status of serve where the kernel has not what it takes"
        skip "this kernel lets nobody map the rings of a bound AF_XDP socket"
    fi
    until_true 10 grep -q agentnic.xsk_serve "$WORK/serve.out"
}

said_or_dead() { grep -q agentnic.xsk_serve "$WORK/serve.out" || ! kill -0 "$serve_pid" 2>/dev/null; }

attach_and_serve() {
    [ -s "$WORK/owners.json" ] || owner_policy $OWNER
    "$LOAD" attach "${IFACE:-lab0}" --netns "$SERVER" --policy "$WORK/owners.json" >/dev/null
    start_serve "$@"
}

# as UID PROGRAM ARGUMENTS...: without any privilege, in the server's namespace. The program is a copy that anybody may run.
as() {
    local uid=$1 program=$2
    shift 2
    [ -x "$WORK/$program" ] || install -m 755 "$ROOT/.build/bin/$program" "$WORK/$program"
    exec ip netns exec "$SERVER" setpriv --reuid "$uid" --regid "$uid" --clear-groups --inh-caps=-all --no-new-privs \
        "$WORK/$program" "$@"
}

# own NAME UID PROGRAM OPTIONS...: an owner in the background, whose pid is $owner_pid and who says what he does in $WORK/NAME.
own() {
    local name=$1 uid=$2 program=$3
    shift 3
    : >"$WORK/$name"
    (as "$uid" "$program" gateway --socket "$socket" --json "$@") >"$WORK/$name" 2>"$WORK/$name.err" &
    owner_pid=$!
    until_true 10 ready_or_dead "$name" $owner_pid
    grep -q ready "$WORK/$name" || fail "no owner: $(<"$WORK/$name.err")"
}
ready_or_dead() { grep -q ready "$WORK/$1" || ! kill -0 "$2" 2>/dev/null; }

# disown NAME PID: ends an owner; $owned is what it says at last. Each of its frames is in one place, and none is the user's.
disown_it() {
    kill -TERM "$2"
    wait "$2" || fail "$1 failed: $(<"$WORK/$1.err")"
    owned=$(tail -n 1 "$WORK/$1")
    equal "$(jq '.frames | .all == .free + .receiving + .held + .sending and .held == 0' <<<"$owned")" true "frames: $owned"
    equal "$(jq '[.queues[].misused_frames] | add' <<<"$owned")" 0 "misused frames: $owned"
}
