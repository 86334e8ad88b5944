#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# agentnic-bulk by the real program: files over path A, killed at will, onto full disks, by people without privileges.
# shellcheck source=tests/harness/net.sh
. "$(dirname "$0")/../harness/net.sh"
# shellcheck source=tests/harness/bulk.sh
. "$(dirname "$0")/../harness/bulk.sh"

test_case "bulk: a folder goes and comes, by content, over both families, and a second time nothing moves" both_ways smoke
both_ways() {
    bulk_begin
    local address
    make_files 0 1 65536 5000003
    for address in "$SERVER_IP" "[$SERVER_IP6]"; do
        rm -rf "$WORK/served" && mkdir "$WORK/served"
        bulk_serve ON_SERVER "$address"
        bulk ON_CLIENT push "$address:9200" "$WORK/files" --to in/to
        equal "$(jq -r .obtained <<<"$ended")" tcp "path obtained"
        same_files "$WORK/files" "$WORK/served/in/to/files"
        bulk ON_CLIENT push "$address:9200" "$WORK/files" --to in/to
        equal "$(jq -c '[.moved_bytes, .skipped]' <<<"$ended")" '[0,4]' "bytes and files the second time"
        rm -rf "$WORK/back" && mkdir "$WORK/back"
        bulk ON_CLIENT pull "$address:9200" files --from in/to --to "$WORK/back" --digest sha256
        same_files "$WORK/files" "$WORK/back/files"
        equal "$(jq -r 'select(.event == "file" and .bytes == 5000003).digest' <<<"$out")" \
            "sha256:$(sha256sum <"$WORK/files/5000003" | cut -d ' ' -f 1)" "digest"
        bulk_stop
    done
}

test_case "bulk: whoever is killed in the middle, the next session goes on where it ended" killed smoke
killed() {
    bulk_begin
    make_files 6000000
    killed_and_resumed ON_SERVER ON_CLIENT $SERVER_IP 16Mbit 1000000 ""
    killed_and_resumed ON_SERVER ON_CLIENT $SERVER_IP 16Mbit 1000000 "--transport uring" --transport uring
}

test_case "bulk: a disk that is full takes what it can hold, says what it cannot, and keeps no half of it" full
full() {
    bulk_begin
    mount -t tmpfs -o size=4M tmpfs "$WORK/served"
    make_files 3000000 2000000 100
    bulk_serve ON_SERVER $SERVER_IP
    try "${ON_CLIENT[@]}" "$BULK" push $SERVER_IP:9200 "$WORK/files" --secret "$WORK/secret" --json
    equal "$status" 1 "status ($err)"
    [[ $err == *"1 of 3 files failed, first: "*"No space left on device"* ]] || fail "it did not say why: $err"
    [ -e "$WORK/served/files/100" ] || fail "the small one is not there"
    equal "$(find "$WORK/served/files" -type f | wc -l)" 2 "files that are there"
    kill -0 "$bulk_pid" || fail "the server has ended"
    mount -o remount,size=8M "$WORK/served"
    bulk ON_CLIENT push $SERVER_IP:9200 "$WORK/files"
    same_files "$WORK/files" "$WORK/served/files"
    bulk_stop
    umount "$WORK/served"
}

test_case "bulk: bad input is refused with its place, and nothing is begun" bad_input
bad_input() {
    bulk_begin
    make_files 10
    local good=(--secret "$WORK/secret") open=$WORK/open short=$WORK/short
    cp "$WORK/secret" "$open" && chmod 0644 "$open"
    echo too short >"$short" && chmod 0400 "$short"
    expect_error 2 "it is a secret, and others than its owner may use it" "$BULK" push 127.0.0.1:9200 "$WORK/files" --secret "$open"
    expect_error 2 "less than 16 bytes" "$BULK" push 127.0.0.1:9200 "$WORK/files" --secret "$short"
    expect_error 2 "No such file" "$BULK" push 127.0.0.1:9200 "$WORK/nothing" "${good[@]}"
    expect_error 2 "is not in the folder" "$BULK" push 127.0.0.1:9200 "$WORK/files" /etc/passwd "${good[@]}"
    expect_error 2 "has a component . or .." "$BULK" push 127.0.0.1:9200 "$WORK/files" --to a/../../b "${good[@]}"
    expect_error 2 "has a component . or .." "$BULK" pull 127.0.0.1:9200 ../x "${good[@]}"
    expect_error 2 "is absolute" "$BULK" pull 127.0.0.1:9200 /etc/passwd "${good[@]}"
    expect_error 2 "\"fast\" is not a rate" "$BULK" push 127.0.0.1:9200 "$WORK/files" "${good[@]}" --rate fast
    expect_error 1 "Connection refused" "$BULK" push 127.0.0.1:9200 "$WORK/files" "${good[@]}"
    expect_error 2 "open the folder $WORK/nothing" "$BULK" serve --root "$WORK/nothing" --listen 127.0.0.1:9200 "${good[@]}"
    equal "$("$BULK" push 127.0.0.1:9200 "$WORK/files" "${good[@]}" --dry-run | tail -n 1)" "would send 1 files, 0.0 MB; 0 left out" "dry run"
    bulk_serve ON_SERVER $SERVER_IP
    expect_error 1 "refuses: look at nothing" "${ON_CLIENT[@]}" "$BULK" pull $SERVER_IP:9200 nothing "${good[@]}"
    expect_error 3 "use RDMA: " "${ON_CLIENT[@]}" "$BULK" push $SERVER_IP:9200 "$WORK/files" "${good[@]}" --transport rdma --device none0
    equal "$(ls -A "$WORK/served")" "" "what the server has"
    bulk_stop
}

test_case "bulk: an ordinary user serves and gets files, and a server of root has no capabilities" ordinary
ordinary() {
    bulk_begin
    make_files 100000
    chmod 0755 "$WORK"
    chown -R nobody "$WORK/served" "$WORK/files"
    install -o nobody -m 0400 "$WORK/secret" "$WORK/theirs"
    mkdir "$WORK/back" && chown nobody "$WORK/back"
    bulk_serve ON_SERVER $SERVER_IP
    equal "$(grep -h CapEff "/proc/$bulk_pid/status" | tr -d '\t')" "CapEff:0000000000000000" "capabilities of the server"
    bulk_stop
    bulk_serve ON_SERVER $SERVER_IP --user nobody
    equal "$(stat -c %U "/proc/$bulk_pid")" nobody "whom the server belongs to"
    try "${ON_CLIENT[@]}" setpriv --reuid nobody --clear-groups "$BULK" push $SERVER_IP:9200 "$WORK/files" --secret "$WORK/theirs"
    equal "$status" 0 "push of an ordinary user ($err)"
    try "${ON_CLIENT[@]}" setpriv --reuid nobody --clear-groups "$BULK" pull $SERVER_IP:9200 files --to "$WORK/back" --secret "$WORK/theirs"
    equal "$status" 0 "pull of an ordinary user ($err)"
    same_files "$WORK/files" "$WORK/back/files"
    bulk_stop
}

test_case "bulk: what is sent keeps to the tenant's budget, and the guardian's throttle reaches it, where no program of agentnic sees it" budget smoke
budget() {
    bulk_begin
    make_files 1000000
    mv "$WORK/files" "$WORK/served/files"
    POLICY=$WORK/budget.json
    cat >"$POLICY" <<'JSON'
{"version": 1, "name": "budget", "link_rate": "100Mbit", "guardian": {"heartbeat": "60s", "throttle_step": 100},
 "tenants": [{"name": "acme", "prefixes": ["198.18.0.1/32"], "budget": {"ceiling": "16Mbit"}}],
 "services": [{"name": "files", "protocol": "tcp", "port": 9200, "class": "bulk", "path": "kernel"}]}
JSON
    attach >/dev/null
    expect_error 2 'has no tenant "globex"' "$BULK" serve --root "$WORK/served" --listen 127.0.0.1:9200 --secret "$WORK/secret" --budget lab0 --tenant globex --netns $SERVER
    # By the loopback, so that nobody else limits it.
    bulk_serve HERE 127.0.0.1 --budget lab0 --tenant acme --netns $SERVER
    took_at_least 0.5 # 8 Mbit of content at nine tenths of 16 Mbit/s
    "$LOAD" propose lab0 --netns $SERVER bulk_path_throttle --tenant acme --value 4Mbit --for 60s --json >"$WORK/held" &
    local holder=$!
    until_true 10 grep -q '"decided":"approve"' "$WORK/held"
    took_at_least 2 # at 3.6 Mbit/s
    kill -INT $holder
    wait $holder || true
    bulk_stop
}
# took_at_least SECONDS: one pull of what is served.
took_at_least() {
    rm -rf "$WORK/back" && mkdir "$WORK/back"
    bulk HERE pull 127.0.0.1:9200 files --to "$WORK/back"
    same_files "$WORK/served/files" "$WORK/back/files"
    [ "$(jq ".seconds >= $1" <<<"$ended")" = true ] || fail "it took less than $1 s: $ended"
}

main "$@"
