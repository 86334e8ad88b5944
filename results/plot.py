#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Plots an agentnic.result/1 file.

    results/plot.py results/latest.json

writes results/latest-latency.png and results/latest-throughput.png beside it.
"""

import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = {"no agentnic": "#999999", "A kernel": "#4878a8", "B xsk": "#d1702a"}
HEADROOM = 1.25  # room above the bars for the legend


def load(path):
    try:
        result = json.loads(path.read_text())
    except OSError as error:
        sys.exit(f"plot.py: read {path}: {error.strerror}")
    except ValueError as error:
        sys.exit(f"plot.py: {path} is not JSON: {error}")
    if not isinstance(result, dict) or result.get("schema") != "agentnic.result/1":
        sys.exit(f"plot.py: {path} is not an agentnic.result/1")
    if result.get("experiment") != "first-light":
        sys.exit(f"plot.py: {path} is of the experiment {result.get('experiment')}; first-light is plotted")
    return result


def spread(row, key, scale):
    """Median and the distances down and up to the bounds; zeros where there is none."""
    value = row[key]
    if value is None:
        return 0, 0, 0
    median = value["median"] * scale
    return median, median - value["low"] * scale, value["high"] * scale - median


def bars(axis, rows, key, scale, marker_key=None):
    """Bars for each size, one a path, with the bounds of the repeats as whiskers."""
    sizes = sorted({row["size_bytes"] for row in rows})
    top = 0
    for offset, path in ((-0.27, "no agentnic"), (0, "A kernel"), (0.27, "B xsk")):
        mine = {row["size_bytes"]: row for row in rows if row["path"] == path}
        values = [spread(mine[size], key, scale) for size in sizes]
        medians, downs, ups = zip(*values)
        at = [i + offset for i in range(len(sizes))]
        mode = mine[sizes[0]]["mode_obtained"]
        axis.bar(at, medians, 0.25, yerr=[downs, ups], capsize=3, color=COLOURS[path], label=f"{path} ({mode})" if path == "B xsk" else path)
        top = max([top, *(m + up for m, up in zip(medians, ups))])
        if marker_key:
            marks = [spread(mine[size], marker_key, scale)[0] for size in sizes]
            axis.plot(at, marks, "v", color="black", markersize=5, label="p99" if offset > 0 else None)
            top = max([top, *marks])
    axis.set_xticks(range(len(sizes)), [f"{size} B" for size in sizes])
    axis.set_ylim(0, top * HEADROOM)
    axis.grid(axis="y", alpha=0.3)


def figure(result, title, label, key, scale, marker_key=None):
    waits = [wait for wait in ("spin", "block") if any(row["wait"] == wait for row in result["rows"])]
    drawn, axes = plt.subplots(1, len(waits), figsize=(5.5 * len(waits), 4.4), squeeze=False)
    for axis, wait in zip(axes[0], waits):
        bars(axis, [row for row in result["rows"] if row["wait"] == wait], key, scale, marker_key)
        axis.set_title("client and server " + {"spin": "spinning", "block": "blocking"}[wait])
        axis.set_ylabel(label)
        axis.set_xlabel("UDP payload")
        axis.legend(loc="upper center", ncol=4, fontsize=7)
    host = result["host"]
    drawn.suptitle(title)
    if host.get("emulated"):
        drawn.text(0.5, 0.5, "EMULATED\nsays nothing about speed", fontsize=34, color="red", alpha=0.35, ha="center", va="center", rotation=20)
    drawn.text(0.01, 0.01, f"{host['kernel']}, {host['cpu_model']}, {host['cpus_online']} CPUs, "
               f"{result['interfaces']['server']['driver']}, revision {host['git_revision']}, {result['created_at']}, "
               f"{result['repeats']} repeats; whiskers: least and greatest", fontsize=6)
    drawn.tight_layout(rect=(0, 0.03, 1, 1))
    return drawn


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__.strip())
        sys.exit(0 if sys.argv[1:] in (["-h"], ["--help"]) else 2)
    path = pathlib.Path(sys.argv[1])
    result = load(path)
    latency = figure(result, "UDP round trip, closed loop: p50 (bars) and p99", "microseconds", "p50_ns", 1e-3, "p99_ns")
    rate = figure(result, "UDP round trips, one outstanding", "thousands per second", "achieved_per_s", 1e-3)
    for drawn, name in ((latency, "latency"), (rate, "throughput")):
        target = path.with_name(f"{path.stem}-{name}.png")
        drawn.savefig(target, dpi=130)
        print(f"written: {target}")


if __name__ == "__main__":
    main()
