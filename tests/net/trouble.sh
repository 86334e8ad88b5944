#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tests that fail on purpose, to show that whoever runs tests notices. They run only when asked for by their
# tag, and only in a guest: some take the kernel with them. vmtest/selftest runs them.
# shellcheck source=tests/harness/net.sh
. "$(dirname "$0")/../harness/net.sh"

in_a_guest() { [ -n "${AGENTNIC_GUEST:-}" ] || skip "only in a guest of make vmtest"; }

test_case "trouble: a BPF program that the verifier refuses" broken_program trouble
broken_program() {
    in_a_guest
    bpftool prog load "$ROOT/.build/tests/fixtures/broken.bpf.o" /sys/fs/bpf/broken
}

test_case "trouble: the kernel logs a warning" kernel_warns trouble
kernel_warns() {
    in_a_guest
    echo '<4>WARNING: made by a test, on purpose' >/dev/kmsg
}

test_case "trouble: a test that never ends" never_ends trouble
never_ends() {
    in_a_guest
    sleep infinity
}

test_case "trouble: a guest that hangs" guest_hangs trouble
guest_hangs() {
    in_a_guest
    echo freeze >/sys/power/state
}

test_case "trouble: the guest's kernel panics" guest_panics trouble
guest_panics() {
    in_a_guest
    echo c >/proc/sysrq-trigger
}

main "$@"
