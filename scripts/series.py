#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Writes the repository as series of patches against a kernel tree, ready to be sent.

    series.py write KDIR DIRECTORY     one directory of patches for each part, with a cover letter
    series.py repository KDIR GIT      the same as commits, of the files that are touched only

series.toml lists the parts and their patches in order. A patch of scripts/patches changes files of
the kernel. A step, in scripts/steps, tells how the files of this repository came to be: after its
message, "whole: PATH" names a file (or a directory, with a slash at its end) that appears with it,
"before: FORM PATH" one that it replaces, which had been as the file FORM beside the step, and a diff
tells what it changes in other files of earlier steps. As the files themselves are the truth, and
are at the end of the series, steps are taken back, the last one first: a file appears in the form
that it has without what later steps change. The edits of graft.toml name the step that they belong
to. So the tree after the last patch is the grafted one, and a step that the files have moved away
from is refused. What scripts/patches-VERSION changes for a version of the kernel is merged into each
form of a file, as far as the form has it; steps that the version does not need are left out.
"""

import argparse
import functools
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from graft import PATCHES, REPO, SUBJECT, Overlay, Patch, Refusal, Tree, git_apply, insert, mode_of

PARTS = REPO / "scripts" / "series.toml"
STEPS = REPO / "scripts" / "steps"


def files_below(top):
    """The paths of all files below a directory, by their names relative to it."""
    return {str(path.relative_to(top)): path for path in top.rglob("*") if path.is_file()}


class Step(Patch):
    """A patch that the files of this repository are taken back by."""

    def __init__(self, path):
        super().__init__(path)
        self.name = str(path.relative_to(STEPS).with_suffix(""))
        head = self.diff.partition("diff --git ")[0]
        self.whole = re.findall(r"^whole: (\S+)$", head, re.MULTILINE)
        self.before = re.findall(r"^before: (\S+) (\S+)$", head, re.MULTILINE)

    def take_back(self, top):
        """Takes what it changes and adds out of the files below `top`."""
        if self.files:
            result = git_apply(str(top), self.path, "--reverse")
            if result.returncode:
                raise Refusal(f"scripts/steps/{self.name}: {result.stderr.strip().splitlines()[0]}")
        for name in self.whole:
            path = top / name
            files = [path] if path.is_file() else files_below(path).values()
            if not files or name.endswith("/") != path.is_dir():
                raise Refusal(f"scripts/steps/{self.name}: no file {name}, or an earlier step has it")
            for file in files:
                file.unlink()
        for form, name in self.before:
            (top / name).write_bytes((self.path.parent / form).read_bytes())


@functools.cache
def merge(form, last, ported):
    """Makes of a form of a file what `ported` makes of its last one. What the form has otherwise stays."""
    with tempfile.TemporaryDirectory() as top:
        names = ["form", "last", "ported"]
        for name, content in zip(names, (form, last, ported)):
            (Path(top) / name).write_bytes(content)
        return git(top, "merge-file", "--stdout", "--ours", *names).encode()


class Part:
    """Patches that are sent together."""

    def __init__(self, entry):
        self.name = entry["name"]
        self.subject = entry["subject"]
        self.cover = entry["cover"].strip()
        self.lists = entry["lists"]
        self.patches = []
        for name in entry["patches"]:
            kind, pattern = (Patch, name) if name.startswith("patches/") else (Step, f"steps/{name}.patch")
            paths = sorted((REPO / "scripts").glob(pattern))
            if not paths:
                raise Refusal(f"{PARTS.name}: there is no {name}")
            self.patches += map(kind, paths)


def states(tree, overlay, parts):
    """Yields (part, patch, files) in order; files are what the tree has after the patch, of all
    that the series touches, by path: content and mode."""
    order = [(part, patch) for part in parts for patch in part.patches]
    steps = [patch for _, patch in order if isinstance(patch, Step)]
    names = [step.name for step in steps]
    sent = [patch.path for _, patch in order]
    for patch in overlay.patches:
        if sent.count(patch.path) != 1:
            raise Refusal(f"{PARTS.name}: {patch.name} has to be in one part")
    for name, edits in overlay.edits.items():
        for edit in edits:
            if edit.get("step") not in names:
                raise Refusal(f"{PARTS.name} has no step '{edit.get('step')}' of an edit of {name}")

    ported = overlay.ported(tree)

    def form(name, path):
        content = path.read_bytes()
        if name in ported:
            content = merge(content, overlay.new[name].read_bytes(), ported[name])
        return content, mode_of(path)

    with tempfile.TemporaryDirectory() as top:
        top = Path(top)
        for name, source in overlay.new.items():
            path = top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source.read_bytes())
            path.chmod(mode_of(source))
        grown = {}
        for step in reversed(steps):
            grown[step] = {name: form(name, path) for name, path in files_below(top).items()}
            step.take_back(top)
        rest = files_below(top)
        if rest:
            raise Refusal(f"{PARTS.name}: no step adds {', '.join(sorted(rest))}")

    with tempfile.TemporaryDirectory() as top:
        changed = {name for patch in overlay.patches for name in patch.files} | set(overlay.edits)
        patched = {}
        for name in changed:
            content, mode = tree.original(name)
            patched[name] = content, mode
            (Path(top) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(top) / name).write_bytes(content)
        lacking = [patch.path for patch in overlay.lacking(top)]
        done = set()
        ours = {}
        yield None, None, patched
        for part, patch in order:
            if isinstance(patch, Step):
                done.add(patch.name)
                ours = grown[patch]
            elif patch.path in lacking:
                patch.apply(top, tree.root)
            else:
                continue
            files = dict(ours)
            for name, (_, mode) in patched.items():
                edits = [edit for edit in overlay.edits.get(name, []) if edit["step"] in done]
                text = (Path(top) / name).read_text()
                files[name] = insert(name, text, edits).encode(), mode
            yield part, patch, files


def git(directory, *args, **options):
    result = subprocess.run(["git", "-C", directory, *args], capture_output=True, text=True, check=False, **options)
    if result.returncode:
        raise Refusal(f"git {args[0]}: {result.stderr.strip().splitlines()[-1]}")
    return result.stdout


def commit_all(tree, overlay, parts, directory):
    """Makes a repository of the files that the series touches, a commit for each patch; returns
    the range of commits of each part."""
    directory.mkdir(parents=True, exist_ok=True)
    git(directory, "init", "--quiet", "--initial-branch=series")
    ranges = {}
    last = {}
    head = None
    for part, patch, files in states(tree, overlay, parts):
        for name in last.keys() - files.keys():
            (directory / name).unlink()
        for name, (content, mode) in files.items():
            if last.get(name) != (content, mode):
                path = directory / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                path.chmod(mode)
        last = files
        git(directory, "add", "--all", "--force")
        if patch is None:
            message = "The files of the kernel that the series changes"
        else:
            message = patch.message.removeprefix(SUBJECT)
            if not git(directory, "status", "--porcelain"):
                # An edit that this version of the kernel does not need.
                if overlay.ports and isinstance(patch, Step) and not patch.files and not patch.whole:
                    continue
                raise Refusal(f"{patch.path.name} changes nothing")
        git(directory, "commit", "--quiet", "--cleanup=whitespace", "--file=-", input=message)
        before, head = head, git(directory, "rev-parse", "HEAD").strip()
        if part:
            ranges[part] = ranges.get(part, (before,))[0], head
    return {part: "..".join(ends) for part, ends in ranges.items()}


def recipients(tree, maintainers, patches):
    """Whom get_maintainer.pl names for all patches of a part."""
    script = [tree.root / "scripts/get_maintainer.pl", "--nogit", "--nogit-fallback", "--norolestats", "--nor"]
    script += ["--multiline", "--no-substatus", f"--mpath={maintainers}", *patches]
    result = subprocess.run(script, cwd=tree.root, capture_output=True, text=True, check=False)
    if result.returncode:
        raise Refusal(f"get_maintainer.pl: {result.stderr.strip().splitlines()[-1]}")
    return result.stdout.splitlines()


def write(tree, overlay, parts, out):
    """Writes all parts below the directory `out`; returns the number of patches."""
    with tempfile.TemporaryDirectory() as top:
        repository = Path(top) / "series"
        ranges = commit_all(tree, overlay, parts, repository)
        for number, part in enumerate(parts, 1):
            if part not in ranges:
                continue
            directory = out / f"{number}-{part.name}"
            directory.mkdir(parents=True, exist_ok=True)
            for old in directory.glob("[0-9]*.patch"):
                old.unlink()
            format_patch = ["format-patch", "--quiet", "--signoff", "--no-renames"]
            mails = Path(top) / part.name
            git(repository, *format_patch, f"--output-directory={mails}", ranges[part])
            addresses = recipients(tree, repository / "MAINTAINERS", sorted(mails.iterdir()))
            for wanted in part.lists:
                if not any(wanted in address for address in addresses):
                    raise Refusal(f"MAINTAINERS does not lead from the part {part.name} to {wanted}")
            base = f"Applies to Linux {tree.release()}"
            base += f", after {number - 1}-{parts[number - 2].name}." if number > 1 else "."
            cover = Path(top) / "cover"
            cover.write_text(f"{part.subject}\n\n{part.cover}\n\n{base}\n")
            git(
                repository,
                *format_patch,
                f"--output-directory={directory}",
                "--cover-letter",
                "--cover-from-description=subject",
                f"--description-file={cover}",
                *(f"--{'to' if '<' in address else 'cc'}={address}" for address in addresses),
                ranges[part],
            )
        return int(git(repository, "rev-list", "--count", "HEAD")) - 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for command, text in ("write", "write the series"), ("repository", "write it as commits"):
        command = commands.add_parser(command, help=text)
        command.add_argument("kdir", metavar="KDIR")
        command.add_argument("directory", metavar="DIRECTORY", type=Path)
    args = parser.parse_args()
    try:
        parts = [Part(entry) for entry in tomllib.loads(PARTS.read_text())["part"]]
    except (OSError, tomllib.TOMLDecodeError) as err:
        raise Refusal(f"cannot read {PARTS}: {err}") from err
    with Tree(args.kdir).locked() as tree:
        overlay = Overlay(tree.version())
        tree.check_version(overlay.versions, True)
        if args.command == "repository":
            commit_all(tree, overlay, parts, args.directory)
            print(args.directory)
            return
        print(f"{args.directory}: {write(tree, overlay, parts, args.directory)} patches")


if __name__ == "__main__":
    try:
        main()
    except (Refusal, OSError) as err:
        sys.exit(f"error: {err}")
