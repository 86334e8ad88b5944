#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An agent for agentnic-agent --exec: gives the class that misses its SLO more weight, and takes it back in calm.

    agentnic-agent eth1 --exec python3 /usr/local/share/agentnic/examples/agent.py

One JSON object a line: `hello` first, then an `observation` at a time, which is answered by a line with its tick and the
proposals, and then a `decision` for each of them. docs/agent.md has the fields.
"""

import json
import sys

CALM = 100  # observations without a miss before weight is given back


def say(answer):
    print(json.dumps(answer), flush=True)


def change(lane, weight, reason):
    return {"kind": "queue_weight_adjust", "tenant": lane["tenant"], "class": lane["class"], "value": weight, "reason": reason}


def main():
    calm, stated = {}, {}
    for line in sys.stdin:
        message = json.loads(line)
        if message["type"] == "decision" and message["decided"] == "reject":
            print(f"refused by {message['invariant']}: {message['class']} of {message['tenant']}", file=sys.stderr)
        if message["type"] != "observation":
            continue
        refused = {tenant["tenant"] for tenant in message["tenants"] if tenant["failsafe"] or tenant["wait_ns"]}
        proposals = []
        for lane in message["lanes"]:
            key = lane["tenant"], lane["class"]
            stated.setdefault(key, lane["weight"])
            late = lane["over_slo"] > 0.05 * lane["samples"]
            calm[key] = 0 if late else calm.get(key, 0) + 1
            if lane["tenant"] in refused or lane["slo_ns"] is None:
                continue
            if late and lane["weight"] < lane["weight_high"]:
                proposals.append(change(lane, lane["weight_high"], "it misses its SLO"))
            elif calm[key] >= CALM and lane["weight"] > stated[key]:
                proposals.append(change(lane, max(stated[key], lane["weight_low"]), "it has kept its SLO for long"))
        say({"tick": message["tick"], "proposals": proposals[:64]})


if __name__ == "__main__":
    main()
