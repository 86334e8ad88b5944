#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Writes what was found out about kernels, from the agentnic.probe/1 files of results/probe/.

    results/compat.py            writes docs/compatibility.md and results/verifier/NAME.json
    results/compat.py --check    writes nothing; 1 when one of them is not what would be written

Each NAME.json there is one environment, made by `agentnic-load probe [IFACE] --json`; NAME is its column.
"""

import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROBES = ROOT / "results" / "probe"
VERIFIER = ROOT / "results" / "verifier"
PAGE = ROOT / "docs" / "compatibility.md"
KEYS = {"kernel": dict, "features": list, "programs": list, "libraries": list, "privileged": bool}


def load(path):
    try:
        probe = json.loads(path.read_text())
    except OSError as error:
        sys.exit(f"compat.py: read {path}: {error.strerror}")
    except ValueError as error:
        sys.exit(f"compat.py: {path} is not JSON: {error}")
    if not isinstance(probe, dict) or probe.get("schema") != "agentnic.probe/1":
        sys.exit(f"compat.py: {path} is not an agentnic.probe/1")
    for key, kind in KEYS.items():
        if not isinstance(probe.get(key), kind):
            sys.exit(f"compat.py: {path}: {key} is missing or of another type")
    return probe


def natural(name):
    """The host first, then 6.1, 6.12, 7.3 by their numbers."""
    return name != "host", [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def in_order(probes, key, identity):
    """The identities of all entries of all files, each once, as they come."""
    return list(dict.fromkeys(entry[identity] for probe in probes.values() for entry in probe[key]))


def find(probe, key, identity, wanted):
    return next((entry for entry in probe[key] if entry[identity] == wanted), None)


def word(answer):
    return "?" if answer is None else "yes" if answer else "no"


def table(head, rows):
    def line(cells):
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    return [line(head), "|" + "---|" * len(head), *map(line, rows), ""]


def heading(name, probe):
    emulated = ", emulated" if probe["kernel"].get("emulated") else ""
    return f"{name} ({probe['kernel']['release']}{emulated})"


def feature_table(probes):
    rows = []
    for identity in in_order(probes, "features", "id"):
        entries = [find(probe, "features", "id", identity) for probe in probes.values()]
        known = next(entry for entry in entries if entry)
        title = f"**{known['title']}**" if known["required"] else known["title"]
        rows.append([title, known["needed_by"], *(word(entry["available"]) if entry else "not asked" for entry in entries)])
    return table(["feature", "needed by", *(heading(*item) for item in probes.items())], rows)


def missing(probes):
    """Each feature that is not there somewhere: where, what the kernel said, what that means."""
    lines = []
    for identity in in_order(probes, "features", "id"):
        entries = {name: find(probe, "features", "id", identity) for name, probe in probes.items()}
        for answer, verb in ((False, "missing"), (None, "not known")):
            lacking = {name: entry for name, entry in entries.items() if entry and entry["available"] is answer}
            if not lacking:
                continue
            first = next(iter(lacking.values()))
            said = {}
            for name, entry in lacking.items():
                said.setdefault(entry["detail"], []).append(name)
            details = "; ".join(f"{', '.join(names)}: {detail}" for detail, names in said.items())
            without = f" Without it: {first['remedy']}." if answer is False else ""
            lines.append(f"- *{first['title']}*, {verb}. {details}.{without}")
    return [*(lines or ["Nothing."]), ""]


def cost(program):
    if program is None:
        return "not asked"
    if not program["loads"]:
        return "no"
    if not program["instruction_limit"]:
        return "loads; no statistics"
    return f"{program['instructions']:,} ({program['instructions'] / program['instruction_limit']:.1%}) / {program['states_total']:,} / {program['states_peak']:,}"


def program_table(probes):
    names = in_order(probes, "programs", "name")
    rows = [[name, *(cost(find(probe, "programs", "name", name)) for probe in probes.values())] for name in names]
    lines = table(["program", *(heading(*item) for item in probes.items())], rows)
    refused = [f"- `{program['name']}` on {name}: {program['error']}."
               for name, probe in probes.items() for program in probe["programs"] if not program["loads"]]
    return lines + ([*refused, ""] if refused else [])


def queues(interface):
    if not interface["queues"]:
        return "?"
    counts = [f"{kind} {count['now']} of {count['most']}" for kind, count in interface["queues"].items() if count["most"]]
    return ", ".join(counts) or "none"


def flow_rules(rules):
    return "?" if rules is None else "on" if rules["on"] else "off" if rules["can_change"] else "none"


# What is asked of a driver beside its queues. Probes of before a key was there do not have it.
DRIVER_COLUMNS = {
    "native_xdp": ("native XDP", word),
    "zero_copy": ("AF_XDP zero-copy", word),
    "xdp_features": ("XDP features", lambda features: "?" if features is None else ", ".join(features) or "none"),
    "vlan_receive_offload": ("VLAN receive offload", word),
    "header_split": ("header split of TCP", word),
    "flow_rules": ("flow rules", flow_rules),
    "rss_table_entries": ("RSS table", lambda entries: "?" if entries is None else entries or "none"),
}


def driver_table(probes):
    asked = {name: probe["interface"] for name, probe in probes.items() if probe.get("interface")}
    if not asked:
        return ["No interface was asked.", ""]
    columns = {key: column for key, column in DRIVER_COLUMNS.items() if any(key in interface for interface in asked.values())}
    rows = [[name, interface["driver"], interface["firmware"] or "", queues(interface),
             *(text(interface[key]) if key in interface else "not asked" for key, (_, text) in columns.items())]
            for name, interface in asked.items()]
    return table(["", "driver", "firmware", "queues", *(title for title, _ in columns.values())], rows)


def page(probes):
    return "\n".join([
        "<!-- Generated by results/compat.py from results/probe/*.json. Do not edit: run it again. -->",
        "# What runs where",
        "",
        "Found out by `agentnic-load probe` on each kernel, by trying; never concluded from a version. *emulated*: a virtual machine",
        "without hardware support, which proves logic and never speed. **?**: it could not be found out there.",
        "",
        "## Kernel features",
        "",
        "Without those in bold nothing can be attached.",
        "",
        *feature_table(probes),
        "### What is missing, and what that means",
        "",
        *missing(probes),
        "## Programs and the verifier",
        "",
        "Instructions that the kernel's verifier processed (and their part of its limit), states in total, states at most at a time. A",
        "program that takes more than 70 % of the limit fails the tests.",
        "",
        *program_table(probes),
        "## Drivers",
        "",
        "What the driver of an interface says of itself; a kernel before Linux 6.3 has no way to say it. Zero-copy that a driver claims can still",
        "be refused when a socket is bound: attach and serve report what they obtained.",
        "",
        *driver_table(probes),
    ]).rstrip("\n") + "\n"


def outputs():
    """{path: content} of everything that is generated."""
    probes = {path.stem: load(path) for path in sorted(PROBES.glob("*.json"), key=lambda path: natural(path.stem))}
    if not probes:
        sys.exit(f"compat.py: there is no JSON in {PROBES.relative_to(ROOT)}; agentnic-load probe --json makes it")
    made = {PAGE: page(probes)}
    for name, probe in probes.items():
        cut = {"schema": "agentnic.verifier/1", "kernel": probe["kernel"], "programs": probe["programs"]}
        made[VERIFIER / f"{name}.json"] = json.dumps(cut, indent=2, ensure_ascii=False) + "\n"
    return made


def main():
    if sys.argv[1:] not in ([], ["--check"]):
        print(__doc__.strip())
        sys.exit(0 if sys.argv[1:] in (["-h"], ["--help"]) else 2)
    made = outputs()
    stale = sorted(set(VERIFIER.glob("*.json")) - set(made))
    if sys.argv[1:]:
        wrong = [path for path, content in made.items() if not path.exists() or path.read_text() != content] + stale
        for path in wrong:
            print(f"{path.relative_to(ROOT)} is not what results/compat.py would write; run it")
        sys.exit(1 if wrong else 0)
    for path, content in made.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        print(f"written: {path.relative_to(ROOT)}")
    for path in stale:
        path.unlink()
        print(f"removed: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
