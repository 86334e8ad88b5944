#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An agent that asks for as many decisions as fit an answer, for each observation: load for the audit."""
import json
import sys

for line in sys.stdin:
    told = json.loads(line)
    if told["type"] != "observation":
        continue
    proposals = [{"kind": "queue_weight_adjust", "tenant": "acme", "class": "rpc", "value": 200 + (told["tick"] + i) % 2,
                  "reason": f"tick {told['tick']}"} for i in range(64)]
    print(json.dumps({"tick": told["tick"], "proposals": proposals}), flush=True)
