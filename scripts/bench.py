#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Makes tables and plots of what scripts/bench has measured.

bench.py RAW DOCUMENTS FIGURES: reads the boots in RAW, prints Markdown, and writes tables as
reStructuredText and the plots into DOCUMENTS, the figures as JSON into FIGURES.
"""

import json
import statistics
import sys
from pathlib import Path

from svg import Plot

GUESTS = {"um": "User-Mode Linux", "x86_64": "QEMU"}
DRIVERS = {"c": "C", "rust": "Rust"}
WORKLOADS = {
    "get": "get",
    "set": "set, the same value",
    "toggle": "set, the other value",
    "output": "make outputs of outputs",
    "request": "request outputs, and release",
    "tasks": "get, by 4 tasks",
    "edge-loop": "set, an edge comes back and is read",
    "edge-wake": "from its interrupt until it was read",
    "edge-rate": "edges as fast as they are taken, each",
    "edge-burst": "edges at once, until the last was read",
    "probe": "bind the driver",
    "probe-talk": "bind, until the last answer",
}
# Other numbers of lines are in the plot alone.
SHOWN = {1, 4, 8, 32, 64, 512, 1024}


def objects(path):
    """The JSON objects in a file, one after the other."""
    text, decoder, found = path.read_text().strip(), json.JSONDecoder(), []
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:].lstrip()
    return found


class Boot:
    """What one boot of a guest has told."""

    def __init__(self, path):
        about, *sections = objects(path)
        self.about = about
        # The number of instructions so far, at the beginning and at the end of each operation.
        marks = iter(next((it["marks"] for it in sections if "marks" in it), []))
        for section in sections:
            counts = [-next(marks, 0) + next(marks, 0) for _ in range(section.get("marked", 0))]
            # The median has no timer interrupts in it.
            if any(counts):
                section["instructions"] = round(statistics.median(counts))
        self.sections = {(it["workload"], it["lines"], it["chip"]): it for it in sections if "lines" in it}

    def median(self, key):
        return self.percentile(key, 50)

    def percentile(self, key, percent):
        section = self.sections.get(key, {})
        return section["ns"][percent] if section.get("ns") else None


def counted(section):
    """What the operations of a section have cost, each."""
    operations = section["operations"]
    if not operations or "after" not in section:
        return {}
    device = {}
    for queue in ("request_queue", "event_queue"):
        for counter in ("kicks", "signals"):
            after, before = (next(iter(section[when].values()))[queue][counter] for when in ("after", "before"))
            device[counter] = device.get(counter, 0) + after - before
    counts = {name: device[name] for name in ("kicks", "signals")}
    counts |= {name: section[name] for name in ("interrupts", "switches", "allocations") if name in section}
    return {name: count / operations for name, count in counts.items()}


class Guest:
    """All boots of one kind of guest."""

    def __init__(self, arch, boots):
        self.name = GUESTS[arch]
        mine = [boot for boot in boots if boot.about["arch"] == arch]
        self.timed = {driver: [] for driver in DRIVERS}
        self.counting, self.instructions = {}, {}
        for boot in sorted(mine, key=lambda boot: boot.about["pair"]):
            if boot.about["pass"] == "count":
                self.counting[boot.about["driver"]] = boot
            elif boot.about["pass"] == "insns":
                self.instructions[boot.about["driver"]] = boot
            else:
                self.timed[boot.about["driver"]].append(boot)
        self.keys = list(dict.fromkeys(key for boot in mine for key in boot.sections))
        self.sizes = {boot.about["driver"]: boot.about["size"] for boot in mine}

    def values(self, driver, key, percent):
        values = (boot.percentile(key, percent) for boot in self.timed[driver])
        return [value for value in values if value is not None]

    def median(self, driver, key, percent=50):
        values = self.values(driver, key, percent)
        return statistics.median(values) if values else None

    def ratios(self, key):
        """C over Rust, of boots that were paired."""
        pairs = zip(self.timed["c"], self.timed["rust"])
        medians = [(c.median(key), rust.median(key)) for c, rust in pairs]
        return sorted(c / rust for c, rust in medians if c and rust)

    def sum(self, driver, key, what):
        """Over all boots: edges that did not arrive, or tasks that failed."""
        return sum(boot.sections.get(key, {}).get(what, 0) for boot in self.timed[driver])

    def counted_by(self, driver, key):
        """The section of the boot that counts allocations."""
        boot = self.counting.get(driver)
        return boot.sections.get(key, {}) if boot else {}

    def instructions_of(self, driver, key):
        boot = self.instructions.get(driver)
        section = boot.sections.get(key, {}) if boot else {}
        return section.get("instructions")


class Table:
    def __init__(self, title, head):
        self.title, self.rows = title, [head]

    def add(self, *cells):
        self.rows.append([str(cell) for cell in cells])

    def widths(self):
        return [max(map(len, column)) for column in zip(*self.rows)]

    def markdown(self):
        head, *rows = ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join([f"**{self.title}**", "", head, "|---" * len(self.rows[0]) + "|", *rows, ""])

    def rst(self):
        rule = "  ".join("=" * width for width in self.widths())
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, self.widths())).rstrip() for row in self.rows]
        return "\n".join([f"{self.title}:", "", rule, lines[0], rule, *lines[1:], rule, ""])


def microseconds(value):
    if value is None:
        return "none"
    value /= 1000
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def each(value):
    if value is None:
        return "none"
    return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.2f}"


def shown(guest):
    def is_shown(workload, lines, chip):
        return workload in WORKLOADS and lines in SHOWN and chip in (64, lines)

    return [key for key in guest.keys if is_shown(*key)]


def times(guest):
    head = ["operation", "lines", "C, median us", "Rust, median us", "C, p99", "Rust, p99", "C / Rust", "of pairs"]
    table = Table(f"{guest.name}: time of an operation", head)
    for key in shown(guest):
        ratios = guest.ratios(key)
        table.add(
            WORKLOADS[key[0]],
            key[1],
            *(microseconds(guest.median(driver, key, p)) for p in (50, 99) for driver in DRIVERS),
            f"{statistics.median(ratios):.2f}" if ratios else "none",
            f"{ratios[0]:.2f} to {ratios[-1]:.2f}" if ratios else "none",
        )
    return table


def counts(guest):
    columns = {
        "kicks": "notifications",
        "signals": "signals of the device",
        "interrupts": "interrupts",
        "switches": "context switches",
        "allocations": "allocations",
        "instructions": "instructions",
    }
    columns = {name: title for name, title in columns.items() if name != "instructions" or guest.instructions}
    if not guest.counting:
        columns = {"instructions": "instructions"}
    table = Table(f"{guest.name}: counts of an operation, C / Rust", ["operation", "lines", *columns.values()])
    for key in shown(guest):
        of = {}
        for driver in DRIVERS:
            of[driver] = counted(guest.counted_by(driver, key) or {"operations": 0})
            of[driver]["instructions"] = guest.instructions_of(driver, key)
        if any(of[driver].get(name) is not None for driver in DRIVERS for name in columns):
            cells = (" / ".join(each(of[driver].get(name)) for driver in DRIVERS) for name in columns)
            table.add(WORKLOADS[key[0]], key[1], *cells)
    return table


def others(guests):
    """What is one figure for each driver."""
    table = Table("Other figures", ["guest", "figure", "C", "Rust"])

    def add(guest, figure, cells):
        cells = ["none" if cell is None else str(cell) for cell in cells]
        if any(cell != "none" for cell in cells):
            table.add(guest.name, figure, *cells)

    for guest in guests:
        timed = any(guest.timed.values())
        for lines in (512, 65535):
            add(guest, f"time of a get on a chip of {lines} lines, over one of 8",
                (growth(guest, driver, lines) for driver in DRIVERS))  # fmt: skip
        for lines in (8, 512, 65535):
            add(guest, f"instructions of a get on a chip of {lines} lines",
                (guest.instructions_of(driver, ("get", 1, lines)) for driver in DRIVERS))  # fmt: skip
        for lines in (1, 64):
            rates = (guest.median(driver, ("edge-rate", lines, 64)) for driver in DRIVERS)
            add(guest, f"edges per second, lines: {lines}", (rate and round(1e9 / rate) for rate in rates))
        for name, lines in (("edge-rate", 1), ("edge-rate", 64), ("edge-burst", 32)) if timed else ():
            lost = (guest.sum(driver, (name, lines, 64), "lost") for driver in DRIVERS)
            add(guest, f"edges lost, {name}, lines: {lines}", lost)
        if timed:
            failed = (guest.sum(driver, ("tasks", 4, 64), "failed") for driver in DRIVERS)
            add(guest, f"tasks that failed or hung, of {4 * len(guest.timed['c'])}", failed)
        for lines in (8, 64, 512, 1024, 65535):
            add(guest, f"bytes allocated by binding, lines: {lines}",
                (guest.counted_by(driver, ("memory", lines, lines)).get("bytes") for driver in DRIVERS))  # fmt: skip
        for part in ("text", "data"):
            add(guest, f"{part} of the driver", (guest.sizes.get(driver, {}).get(part) for driver in DRIVERS))
    return table


def growth(guest, driver, lines):
    boots = [(boot.median(("scale", 1, lines)), boot.median(("scale", 1, 8))) for boot in guest.timed[driver]]
    ratios = [large / small for large, small in boots if large and small]
    return f"{statistics.median(ratios):.3f}" if ratios else None


def plots(guests):
    """Cost over number of lines, and the distribution of one get; a panel for each guest."""
    time = Plot("get of several lines in one call", "lines", "median, us", log_x=True)
    latency = Plot("get of one line", "percentile", "us")
    work = Plot("get of several lines in one call", "lines", "instructions", log_x=True)
    for guest in guests:
        keys = [key for key in guest.keys if key[0] == "get" and key[2] == 64]
        for plot in (time, latency, work):
            plot.panel(guest.name)
        for driver, name in DRIVERS.items():
            medians = [(key[1], guest.median(driver, key)) for key in keys]
            time.curve(name, [(x, y / 1000) for x, y in medians if y])
            percentiles = [(p, guest.median(driver, ("get", 1, 64), p)) for p in range(100)]
            latency.curve(name, [(x, y / 1000) for x, y in percentiles if y])
            counts = [(key[1], guest.instructions_of(driver, key)) for key in keys]
            work.curve(name, [(x, y) for x, y in counts if y])
    return {
        "lines": (time, "Time of one call that gets several lines"),
        "latency": (latency, "Percentiles of the time that it takes to get one line"),
        "instructions": (work, "Instructions of one call that gets several lines"),
    }


def figures(facts, boots):
    """All boots without what can be told from the rest."""
    told = []
    for boot in boots:
        sections = []
        for (workload, lines, chip), section in boot.sections.items():
            it = {"workload": workload, "lines": lines, "chip": chip}
            kept = ("operations", "lost", "failed", "bytes", "sites")
            it |= {name: section[name] for name in kept if section.get(name)}
            if section.get("ns") and boot.about["pass"] == "time":
                it["us"] = {f"p{p}": round(section["ns"][p] / 1000, 2) for p in (1, 10, 50, 90, 99)}
            if "operations" in section:
                it |= {name: round(value, 3) for name, value in counted(section).items()}
            if "instructions" in section:
                it["instructions"] = section["instructions"]
            sections.append(it)
        told.append(boot.about | {"sections": sections})
    return {"facts": facts, "boots": told}


def summary(facts, boots):
    timed = [boot.about for boot in boots if boot.about["pass"] == "time"]
    words = f"Measured {facts['date']} at {facts['commit']}, Linux {facts['kernel']}, QEMU {facts['qemu']} (TCG)"
    words += f", on {facts['processors']} processors ({facts['processor']}), of which the device had one"
    words += f" and a guest in QEMU used {facts['smp']}"
    if timed:
        loads = [about["load"] for about in timed]
        words += f": {max(about['pair'] for about in timed)} pairs of boots"
        words += f", load average at their start {min(loads)} to {max(loads)}"
    return words + "."


def main():
    raw, documents, out = map(Path, sys.argv[1:])
    [facts] = objects(raw / "facts.json")
    boots = [Boot(path) for path in sorted(raw.glob("*-*-*-*.json"))]
    archs = [arch for arch in GUESTS if any(boot.about["arch"] == arch for boot in boots)]
    guests = [Guest(arch, boots) for arch in archs]
    tables = [times(guest) for guest in guests if any(guest.timed.values())]
    tables += [*map(counts, guests), others(guests)]

    print("\n".join([summary(facts, boots), "", *(table.markdown() for table in tables)]))
    rst = [".. SPDX-License-Identifier: GPL-2.0", "", summary(facts, boots), "", *(table.rst() for table in tables)]
    for name, (plot, caption) in plots(guests).items():
        path = documents / f"bench-{name}.svg"
        path.unlink(missing_ok=True)
        if plot:
            path.write_text(plot.svg())
            rst += [f".. kernel-figure:: {path.name}", f"   :alt: {caption}", "", f"   {caption}", ""]
    (documents / "bench-tables.txt").write_text("\n".join(rst))
    text = json.dumps(figures(facts, boots), separators=(",", ":"))
    (out / "results.json").write_text(text.replace('{"workload"', '\n{"workload"') + "\n")


if __name__ == "__main__":
    main()
