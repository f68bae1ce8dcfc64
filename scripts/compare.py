#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Puts what kunit.py says of the drivers into one table, and fails if a test fails on the
driver in Rust. A test's name begins with the number of what it is about."""

import argparse
import datetime
import json
import re
import sys
from pathlib import Path

# The suites that know nothing of the driver, and what the numbers in their tests are those of.
SPECIFICATION = "Requirements of the specification"
FINDINGS = "Findings in the driver in C"
SUITES = {
    "gpio_virtio_spec": SPECIFICATION,
    "gpio_virtio_irq": FINDINGS,
    "gpio_virtio_life": FINDINGS,
    "gpio_virtio_faults": FINDINGS,
}
# The drivers, by the value of DRIVER, and the headings of their columns.
DRIVERS = {"c": "C", "c-fixed": "C, fixed", "rust": "Rust"}
# Without a status, the kernel has not come to the end of the test.
WORDS = {"PASS": "ok", "FAIL": "FAILED", "SKIP": "skipped", None: "HANGS"}


def results(directory):
    """The status of each test, by suite and name, from all runs; the last word on it counts."""
    names = [tuple(line.split(".")) for line in (directory / "tests").read_text().split() if "." in line]
    found = dict.fromkeys(name for name in names if name[0] in SUITES)

    def walk(group):
        for case in group["test_cases"]:
            key = group["name"], case["name"]
            if key in found and case["status"] in ("PASS", "FAIL", "SKIP"):
                found[key] = case["status"]
        for sub in group["sub_groups"]:
            walk(sub)

    for path in directory.glob("*.json"):
        walk(json.loads(path.read_text()))
    return found


def number_of(name):
    """Number and words of a test's name; those without check general behaviour."""
    match = re.fullmatch(r"([a-e])(\d+)_(.*)", name)
    if not match:
        return ("", 0), name.replace("_", " ")
    return (match[1].upper(), int(match[2])), match[3].replace("_", " ")


def table(found):
    """Rows by title, sorted by number: number, what was checked, and the results of each driver."""
    rows = {title: [] for title in SUITES.values()}
    for suite, name in found["rust"]:
        number, checked = number_of(name)
        rows[SUITES[suite]].append((number, checked, *(found[driver].get((suite, name)) for driver in DRIVERS)))
    for title in rows:
        rows[title].sort(key=lambda row: row[0])
    return rows


def label(number):
    return f"{number[0]}{number[1]}" if number[0] else ""


def passed(rows):
    """How many tests each driver passes, by its name, and how many there are."""
    every = [row[2:] for part in rows.values() for row in part]
    counts = (sum(status == "PASS" for status in column) for column in zip(*every))
    return dict(zip(DRIVERS, counts)), len(every)


def show(rows):
    width = max(len(row[1]) for part in rows.values() for row in part)
    for title, part in rows.items():
        print(" ".join([f"{title}\n{'No.':4} {'what was checked':{width}}", *(f" {name:11}" for name in DRIVERS.values())]))
        for number, checked, *every in part:
            print(" ".join([f"{label(number):4} {checked:{width}}", *(f" {WORDS[status]:11}" for status in every)]))
        print()


def write(rows, path, args):
    """The same for Documentation/."""
    today = datetime.date.today().isoformat()
    counts, total = passed(rows)
    heading = "The virtio GPIO drivers compared"
    lines = [
        ".. SPDX-License-Identifier: GPL-2.0",
        "",
        "=" * len(heading),
        heading,
        "=" * len(heading),
        "",
        "Results of the KUnit suites in ``drivers/gpio/gpio-virtio-kunit/``, which know nothing of",
        "the driver, on the driver in C, on that one with the fixes in ``scripts/patches``, and on",
        "the one in Rust. ``make compare`` runs them. The numbers are those in",
        "Documentation/project/c-driver.rst; tests without a number check general behaviour.",
        "",
        f"Measured on {today} with Linux {args.kernel}, ``ARCH={args.arch}``, the driver in Rust and",
        f"the fixes of commit {args.commit}. The driver in C passes {counts['c']} of {total} tests,",
        f"{counts['c-fixed']} with the fixes, and the driver in Rust {counts['rust']}.",
        "",
    ]
    for title, part in rows.items():
        lines += [title, "=" * len(title), "", ".. list-table::", "   :header-rows: 1", "   :widths: 8 50 14 14 14", ""]
        for row in [(None, "What was checked", *DRIVERS.values()), *part]:
            first = "No." if row[0] is None else label(row[0])
            cells = [first, row[1], *(cell if row[0] is None else WORDS[cell] for cell in row[2:])]
            lines += [f"   {'*' if n == 0 else ' '} - {cell}".rstrip() for n, cell in enumerate(cells)]
        lines.append("")
    path.write_text("\n".join(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    missing = commands.add_parser("missing", help="list the tests without a result")
    missing.add_argument("results", type=Path, help="directory with the list of tests, and the output of kunit.py")
    every = commands.add_parser("table", help="print the table")
    every.add_argument("--results", type=Path, required=True, help="directory with a directory for each driver")
    every.add_argument("--kernel", required=True, help="version of the kernel")
    every.add_argument("--commit", required=True, help="version of this repository")
    every.add_argument("--arch", required=True)
    every.add_argument("--rst", type=Path, help="file to write the table for the documentation to")
    args = parser.parse_args()

    if args.command == "missing":
        for name, status in results(args.results).items():
            if status is None:
                print(".".join(name))
        return 0
    rows = table({driver: results(args.results / driver) for driver in DRIVERS})
    show(rows)
    counts, total = passed(rows)
    for driver, name in DRIVERS.items():
        print(f"driver in {name}: {counts[driver]} of {total} passed")
    if args.rst:
        write(rows, args.rst, args)
    return counts["rust"] != total


if __name__ == "__main__":
    sys.exit(main())
