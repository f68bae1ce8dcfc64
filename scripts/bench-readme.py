#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Puts the figures of `KEEP=1 make bench` into README.md, between the comments that say so; with
--check fails if others are there.

    bench-readme.py [--check]
"""

import json
import re
import statistics
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
README = REPO / "README.md"
RESULTS = REPO / "tools/testing/benchmarks/results.json"

# Title, workload, number of lines of the call and of the chip.
RATIOS = [
    ("get one line", "get", 1, 64),
    ("set one line", "set", 1, 64),
    ("get 8 lines in one call", "get", 8, 64),
    ("get 64 lines in one call", "get", 64, 64),
    ("request 64 outputs, and release them", "request", 64, 64),
    ("bind to 1024 lines, until the last answer", "probe-talk", 1024, 1024),
    ("an edge, from the interrupt to `read()`", "edge-wake", 1, 64),
    ("edges of one line, at the highest rate", "edge-rate", 1, 64),
    ("edges of 64 lines, at the highest rate", "edge-rate", 64, 64),
]

# Title, architecture, pass, workload, number of lines of the call and of the chip, what, and its unit.
COUNTS = [
    ("notifications for a get of 64 lines in one call, in QEMU", "x86_64", "count", "get", 64, 64, "kicks", ""),
    ("interrupts for it", "x86_64", "count", "get", 64, 64, "interrupts", ""),
    ("notifications for `direction_output`, in QEMU", "x86_64", "count", "output", 1, 64, "kicks", ""),
    ("notifications to bind the driver to 1024 lines, in QEMU", "x86_64", "count", "probe", 1024, 1024, "kicks", ""),
    ("notifications for a burst of 32 edges on 32 lines, in QEMU", "x86_64", "count", "edge-burst", 32, 64, "kicks", ""),
    ("allocations for a get or set of one line", "um", "count", "get", 1, 64, "allocations", ""),
    ("instructions of the guest for a get of 64 lines", "x86_64", "insns", "get", 64, 64, "instructions", ""),
    ("instructions of the guest for a get of one line, without polling", "x86_64", "insns", "get", 1, 64, "instructions", ""),
    ("slab memory of a device with 8 lines, UML", "um", "count", "memory", 8, 8, "bytes", "KiB"),
    ("slab memory of a device with 64 lines, UML", "um", "count", "memory", 64, 64, "bytes", "KiB"),
    ("the same with 1024 lines", "um", "count", "memory", 1024, 1024, "bytes", "KiB"),
]


class Results:
    def __init__(self):
        told = json.loads(RESULTS.read_text())
        self.facts = told["facts"]
        self.boots = told["boots"]

    def sections(self, arch, driver, kind, *key):
        """Of each boot of that kind the section of the workload."""
        for boot in self.boots:
            if (boot["arch"], boot["driver"], boot["pass"]) == (arch, driver, kind):
                for section in boot["sections"]:
                    if (section["workload"], section["lines"], section["chip"]) == key:
                        yield boot, section

    def pairs(self):
        return max(boot["pair"] for boot in self.boots)

    def ratio(self, arch, *key):
        """C over Rust, the median of the boots that were paired."""
        medians = {
            driver: {boot["pair"]: section["us"]["p50"] for boot, section in self.sections(arch, driver, "time", *key)}
            for driver in ("c", "rust")
        }
        value = statistics.median(medians["c"][pair] / medians["rust"][pair] for pair in medians["c"])
        return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1.2 else f"{value:.2f}"

    def count(self, arch, driver, kind, *key, unit):
        *key, what = key
        [(_, section)] = self.sections(arch, driver, kind, *key)
        value = section.get(what, 0)
        if unit == "KiB":
            return f"{value / 1024:.1f} KiB"
        return f"{round(value, 1 if value < 2 else None):g}"

    def text(self, driver):
        return next(b["size"]["text"] for b in self.boots if (b["arch"], b["driver"]) == ("x86_64", driver)) / 1000


def tables(results):
    yield "", f"All figures are those of commit {results.facts['commit']}, with {results.pairs()} pairs of boots:", ""
    yield "| | UML | QEMU (TCG) |", "|---|---|---|"
    for title, *key in RATIOS:
        yield (f"| {title} | {results.ratio('um', *key)} | {results.ratio('x86_64', *key)} |",)
    yield "", "![time of one call that gets several lines](Documentation/project/bench-lines.svg)", ""
    yield "Counts; a device that is busy with its queue is not notified:", "", "| | C | Rust |", "|---|---|---|"
    for title, arch, kind, *key, unit in COUNTS:
        c, rust = (results.count(arch, driver, kind, *key, unit=unit) for driver in ("c", "rust"))
        yield (f"| {title} | {c} | {rust} |",)
    yield f"| text of the driver, x86-64, optimised for speed | {results.text('c'):.1f} KB | {results.text('rust'):.1f} KB |", "", ""


def main():
    block = "\n".join(line for lines in tables(Results()) for line in lines)
    text = README.read_text()
    new, found = re.subn(
        r"(<!-- Figures of make bench -->\n).*?(<!-- End of the figures -->)",
        lambda match: match[1] + block + match[2],
        text,
        flags=re.DOTALL,
    )
    if not found:
        sys.exit(f"error: {README.name} has no place for the figures of make bench")
    if "--check" in sys.argv:
        if new != text:
            sys.exit(f"error: {README.name} has other figures than {RESULTS.relative_to(REPO)}: run scripts/bench-readme.py")
    else:
        README.write_text(new)


if __name__ == "__main__":
    main()
