#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Puts this repository into a kernel tree, and takes it out again.

    graft.py graft [--copy] [--force] [--without NUMBER] KDIR     put it in, or refresh it
    graft.py ungraft KDIR                                         restore the tree byte for byte

New files become links (or copies) at the same path in the tree. Existing files of the tree
are changed in two ways: by the patches in scripts/patches, which fix bugs of the kernel,
and then by inserting the lines declared in graft.toml. A patch that the tree already has
is skipped. A tree that a patch does not fit is refused: the abstractions are sound only
with these fixes, so the tree must not build without them; those of the driver in C can be
left out. The new files are for the first version in graft.toml; scripts/patches-VERSION changes
them for another one, in copies. All checks come before the first change. The original state of
the tree is kept in KDIR/.graft: `original/` holds the edited files, `state.json` says, path by
path, what was there and what we may have put there. That file is written before the tree is
touched, so an interrupted run is finished, or undone, by the next one.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
TABLE = REPO / "scripts" / "graft.toml"
PATCHES = REPO / "scripts" / "patches"
SUBJECT = "Subject: [PATCH] "
ABSENT = "absent"


class Refusal(Exception):
    """The one line that tells why nothing was done."""


@dataclass(frozen=True)
class Wanted:
    """What a path of the tree is to be: a link to `target`, or a file of `content`."""

    content: bytes = b""
    target: str = ""
    mode: int = 0o644

    def fingerprint(self):
        return f"link {self.target}" if self.target else fingerprint_of(self.content)


def fingerprint_of(content):
    return f"file {hashlib.sha256(content).hexdigest()}"


def fingerprint(path):
    if path.is_symlink():
        return f"link {os.readlink(path)}"
    if path.is_file():
        return fingerprint_of(path.read_bytes())
    return "something else" if path.exists() else ABSENT


def put(path, wanted):
    """Replaces `path` in one step: never writes through a hard link or a symlink."""
    fd, name = tempfile.mkstemp(prefix=".graft-", dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(fd, "wb") as out:
            out.write(wanted.content)
        if wanted.target:
            part.unlink()
            part.symlink_to(wanted.target)
        else:
            part.chmod(wanted.mode)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def mode_of(path):
    return path.stat().st_mode & 0o777


def insert(name, text, edits):
    """Applies the edits of one file; each anchor is looked up in the text without them."""
    pieces = []
    for edit in edits:
        found = list(re.finditer(edit["anchor"], text, re.MULTILINE))
        if len(found) != 1:
            often = "is not in it" if not found else f"is in it {len(found)} times"
            raise Refusal(f"{name} does not fit: the anchor '{edit['anchor']}' {often}")
        start = text.rfind("\n", 0, found[0].start()) + 1
        end = text.find("\n", max(found[0].end() - 1, start)) + 1 or len(text)
        where = edit["where"]
        cut = {"before": (start, start), "after": (end, end), "replace": (start, end)}[where]
        pieces.append((*cut, edit["text"]))
    at = 0
    out = []
    for start, end, new in sorted(pieces, key=lambda piece: piece[0]):
        if start < at:
            raise Refusal(f"{TABLE.name}: two edits of {name} overlap")
        out.append(text[at:start])
        if start == len(text) and not text.endswith("\n"):
            out.append("\n")
        out.append(new)
        at = end
    return "".join(out) + text[at:]


def git_apply(directory, patch, *options):
    """Applies a patch below `directory`, to all its files or to none; no fuzz."""
    # Within a work tree git would leave out files that it takes to be outside of it.
    env = {**os.environ, "LC_ALL": "C", "GIT_CEILING_DIRECTORIES": os.path.dirname(directory)}
    command = ["git", "apply", "--whitespace=nowarn", *options, str(patch)]
    return subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, check=False)


def number(version):
    """What versions are compared by."""
    return [int(part) for part in version.split(".")]


class Patch:
    """A patch, with the message that it is sent with."""

    def __init__(self, path):
        self.path = path
        self.name = path.name
        self.message, found, self.diff = path.read_text().partition("\n---\n")
        if not self.message.startswith(SUBJECT) or not found:
            raise Refusal(f"{self.name} has to begin with '{SUBJECT}', and its message to end with '---'")
        self.files = re.findall(r"^\+\+\+ b/(.*?)(?:\t.*)?$", self.diff, re.MULTILINE)

    def apply(self, directory, kdir):
        """Patches the files below `directory`."""
        result = git_apply(directory, self.path)
        if result.returncode:
            errors = result.stderr.strip() or "git failed without a word"
            bad = re.search(r"^error: (.+): patch does not apply$", errors, re.MULTILINE)
            if not bad:
                raise Refusal(f"{self.name}: {errors.splitlines()[0]}")
            raise Refusal(f"KDIR={kdir} does not fit: patch {self.name} does not apply to {bad[1]}")


def put_files(top, patches, read):
    """Puts all files that patches are for below `top`."""
    for name in sorted({name for patch in patches for name in patch.files}):
        path = Path(top) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(read(name))


def apply_all(top, patches, kdir):
    """Applies patches to the files below `top`, and returns the files."""
    for patch in patches:
        patch.apply(top, kdir)
    return {name: (Path(top) / name).read_bytes() for patch in patches for name in patch.files}


class Overlay:
    """What the repository adds to a kernel tree, read from the table and the work tree."""

    def __init__(self, version=None, without=None):
        """For a tree of `version`. Leaves out the patches whose names begin with `without`."""
        try:
            table = tomllib.loads(TABLE.read_text())
        except (OSError, tomllib.TOMLDecodeError) as err:
            raise Refusal(f"cannot read {TABLE}: {err}") from err
        self.versions = table["versions"]
        # A version that is none of these is taken for the last one before it.
        before = [known for known in self.versions if version and number(known) <= number(version)]
        version = before[-1] if before else self.versions[0]
        paths = [path for path in sorted(PATCHES.glob("*.patch")) if not without or not path.name.startswith(without)]
        self.patches = [Patch(path) for path in paths]
        self.ports = [Patch(path) for path in sorted(Path(f"{PATCHES}-{version}").glob("*.patch"))]
        self.edits = {}
        for edit in table.get("edit", []):
            if version in edit.get("versions", [version]):
                self.edits.setdefault(edit["file"], []).append(edit)
        self.new = {}
        for entry in table["new"]:
            self.add(REPO / entry["from"], entry.get("to", entry["from"]))

    def add(self, source, to):
        if source.is_file():
            self.new[to] = source
        elif source.is_dir():
            for child in sorted(source.iterdir()):
                # What editors and interpreters leave lying about is not ours.
                if not re.search(r"^\.|~$|\.orig$|\.rej$|^__pycache__$", child.name):
                    self.add(child, f"{to}/{child.name}")

    def lacking(self, directory):
        """The patches that the files below `directory` lack."""
        with tempfile.TemporaryDirectory() as top:
            shutil.copytree(directory, top, dirs_exist_ok=True)
            # A patch may change what one before it has added, so the last one is looked for first.
            had = [git_apply(top, patch.path, "--reverse").returncode == 0 for patch in reversed(self.patches)]
        return [patch for patch, had in zip(self.patches, reversed(had)) if not had]

    def patched(self, tree):
        """What the patches that the tree lacks make of its own files."""
        with tempfile.TemporaryDirectory() as top:
            put_files(top, self.patches, lambda name: tree.original(name)[0])
            return apply_all(top, self.lacking(top), tree.root)

    def ported(self, tree):
        """What the patches for the version make of the new files."""

        def read(name):
            if name not in self.new:
                raise Refusal(f"{PATCHES.name}-*: {name} is none of the new files in {TABLE.name}")
            return self.new[name].read_bytes()

        with tempfile.TemporaryDirectory() as top:
            put_files(top, self.ports, read)
            return apply_all(top, self.ports, tree.root)

    def wanted(self, tree, copy):
        """All paths and what they are to be."""
        result = {}
        ported = self.ported(tree)
        for path, source in self.new.items():
            if copy or path in ported:
                result[path] = Wanted(ported.get(path, source.read_bytes()), mode=mode_of(source))
            else:
                result[path] = Wanted(target=str(source))
        patched = self.patched(tree)
        for path in {**patched, **self.edits}:
            content, mode = tree.original(path)
            text = patched.get(path, content).decode()
            result[path] = Wanted(insert(path, text, self.edits.get(path, [])).encode(), mode=mode)
        return result


class Tree:
    """A kernel tree, locked against a second run for as long as this object is used."""

    def __init__(self, kdir):
        self.root = Path(kdir).absolute()
        self.keep = self.root / ".graft"
        self.state_file = self.keep / "state.json"
        self.state = {"checkout": str(REPO), "copy": False, "paths": {}, "directories": []}

    @contextlib.contextmanager
    def locked(self):
        try:
            fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as err:
            raise Refusal(f"KDIR={self.root}: {err.strerror}") from err
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if self.state_file.exists():
                self.state = json.loads(self.state_file.read_text())
            yield self
        finally:
            os.close(fd)

    def grafted(self):
        return self.state_file.exists()

    def check_owner(self):
        owner = self.state["checkout"]
        if owner != str(REPO) and Path(owner).exists():
            raise Refusal(f"KDIR={self.root} is grafted from {owner}: run 'make ungraft' there first")

    def release(self):
        """The version, to the last part: 7.2.12, or 7.3.0-rc7."""
        try:
            head = (self.root / "Makefile").read_text()[:2000]
            (self.root / "Kbuild").stat()
        except (OSError, UnicodeDecodeError):
            head = ""
        parts = dict(re.findall(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) =[ \t]*(\S*)$", head, re.MULTILINE))
        if not (parts.get("VERSION") and parts.get("PATCHLEVEL")):
            raise Refusal(f"KDIR={self.root} is not a Linux kernel source tree")
        return f"{parts['VERSION']}.{parts['PATCHLEVEL']}.{parts.get('SUBLEVEL', 0)}{parts.get('EXTRAVERSION', '')}"

    def version(self):
        return ".".join(self.release().split(".")[:2])

    def check_version(self, versions, force):
        if self.version() not in versions and not force:
            raise Refusal(
                f"KDIR={self.root} is Linux {self.version()}, this fits {' and '.join(versions)}: "
                "take another tree, or try it with FORCE=1"
            )

    def original(self, path):
        """Content and mode that the tree's own file has without us."""
        here = self.root / path
        if self.state["paths"].get(path, {}).get("original", ABSENT) != ABSENT:
            saved = self.keep / "original" / path
            if saved.exists():
                here = saved
        if here.is_symlink() or not here.is_file():
            raise Refusal(f"KDIR={self.root} does not fit: it has no file {path}")
        return here.read_bytes(), mode_of(here)

    def check(self, path, may_be):
        if fingerprint(self.root / path) in may_be:
            return
        if path in self.state["paths"]:
            raise Refusal(
                f"{self.root / path} was changed since the graft: "
                "move your change elsewhere, then undo it there and try again"
            )
        raise Refusal(f"KDIR={self.root} already has {path}, which is not ours: nothing was changed")

    def check_kept(self, path):
        """The saved original, if needed to restore the path, is unmodified."""
        original = self.state["paths"][path]["original"]
        if original not in (ABSENT, fingerprint(self.root / path)):
            if fingerprint_of(self.original(path)[0]) != original:
                raise Refusal(f"{self.keep}/original/{path} was changed, {path} cannot be restored from it")

    def known(self, path):
        entry = self.state["paths"][path]
        return [entry["original"], *entry["ours"]]

    def save_state(self):
        self.keep.mkdir(exist_ok=True)
        put(self.state_file, Wanted(json.dumps(self.state, indent=1).encode()))

    def make_parents(self, path):
        for parent in reversed(Path(path).parents):
            here = self.root / parent
            if not here.is_dir():
                # Noted first: a directory that an interrupted run made is removed as well.
                if str(parent) not in self.state["directories"]:
                    self.state["directories"].append(str(parent))
                    self.save_state()
                here.mkdir()

    def graft(self, overlay, copy):
        wanted = overlay.wanted(self, copy)
        paths = self.state["paths"]
        for path in {**paths, **wanted}:
            if path in paths:
                self.check(path, self.known(path))
                self.check_kept(path)
            elif path in overlay.new:
                self.check(path, [ABSENT])
            else:
                self.check(path, [fingerprint_of(self.original(path)[0])])

        gone = [path for path in paths if path not in wanted]
        for path, want in wanted.items():
            if path not in paths:
                original = ABSENT
                if path not in overlay.new:
                    content, mode = self.original(path)
                    saved = self.keep / "original" / path
                    saved.parent.mkdir(parents=True, exist_ok=True)
                    put(saved, Wanted(content, mode=mode))
                    original = fingerprint_of(content)
                paths[path] = {"original": original, "ours": []}
            if want.fingerprint() not in paths[path]["ours"]:
                paths[path]["ours"].append(want.fingerprint())
        self.state.update(checkout=str(REPO), copy=copy)
        self.save_state()

        changed = 0
        for path, want in wanted.items():
            if fingerprint(self.root / path) != want.fingerprint():
                self.make_parents(path)
                put(self.root / path, want)
                changed += 1
        changed += self.restore(gone)
        for path, want in wanted.items():
            paths[path]["ours"] = [want.fingerprint()]
        self.save_state()
        return changed

    def ungraft(self):
        for path in self.state["paths"]:
            self.check(path, self.known(path))
            self.check_kept(path)
        changed = self.restore(list(self.state["paths"]))
        # The state goes last: as long as it is there, an interrupted run can be repeated.
        shutil.rmtree(self.keep / "original", ignore_errors=True)
        self.state_file.unlink()
        self.keep.rmdir()
        return changed

    def restore(self, gone):
        for path in gone:
            here = self.root / path
            if self.state["paths"][path]["original"] == ABSENT:
                here.unlink(missing_ok=True)
            elif fingerprint(here) != self.state["paths"][path]["original"]:
                content, mode = self.original(path)
                put(here, Wanted(content, mode=mode))
        for directory in sorted(self.state["directories"], reverse=True):
            with contextlib.suppress(OSError):
                (self.root / directory).rmdir()
                self.state["directories"].remove(directory)
        for path in gone:
            del self.state["paths"][path]
            (self.keep / "original" / path).unlink(missing_ok=True)
        if gone:
            self.save_state()
        return len(gone)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    graft = commands.add_parser("graft", help="put the overlay into a tree, or refresh it")
    graft.add_argument("--copy", action="store_true", help="copy files in place of linking them")
    graft.add_argument("--force", action="store_true", help="graft into a tree of another version if the patches apply")
    graft.add_argument("--without", metavar="NUMBER", help="leave out the patches whose names begin with it")
    ungraft = commands.add_parser("ungraft", help="restore a tree byte for byte")
    for command in graft, ungraft:
        command.add_argument("kdir", metavar="KDIR")
    args = parser.parse_args()

    with Tree(args.kdir).locked() as tree:
        if args.command == "ungraft":
            if not tree.grafted():
                raise Refusal(f"KDIR={tree.root} is not grafted")
            tree.check_owner()
            print(f"{tree.root}: {tree.ungraft()} paths restored")
            return
        overlay = Overlay(tree.version(), args.without)
        tree.check_version(overlay.versions, args.force)
        tree.check_owner()
        print(f"{tree.root}: {tree.graft(overlay, args.copy)} paths changed")


if __name__ == "__main__":
    try:
        main()
    except (Refusal, OSError) as err:
        sys.exit(f"error: {err}")
