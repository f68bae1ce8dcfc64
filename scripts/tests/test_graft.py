#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Tests of graft.py: on a small tree made for each test, and with the real table on the kernel
trees that are in the directory GRAFT_PRISTINE."""

import contextlib
import importlib.util
import io
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

SCRIPTS = Path(__file__).resolve().parent.parent

TABLE = r"""
versions = ["7.2"]

[[new]]
from = "drivers"

[[new]]
from = "Kconfig"
to = "drivers/gpio/Kconfig.ours"

[[edit]]
file = "drivers/gpio/Kconfig"
step = "ours/02-two"
anchor = '^config GPIO_B$'
where = "before"
text = '''
source "drivers/gpio/Kconfig.ours"

'''

[[edit]]
file = "rust/lib.rs"
step = "ours/01-one"
anchor = '^pub mod b;$'
where = "after"
text = '''
pub mod c;
'''

[[edit]]
file = "rust/lib.rs"
step = "ours/02-two"
anchor = '^pub mod a;$'
where = "replace"
text = '''
pub mod aa;
'''
"""

TREE = {
    "Makefile": "# SPDX\nVERSION = 7\nPATCHLEVEL = 2\nSUBLEVEL = 12\n",
    "Kbuild": "",
    "drivers/gpio/Kconfig": "config GPIO_A\n\tbool\n\nconfig GPIO_B\n\tbool\n",
    "rust/lib.rs": "pub mod a;\npub mod b;",
    "kernel/core.c": "int f(int n)\n{\n\tint m;\n\n\tm = g(n);\n\treturn m;\n}\n",
}

PATCH = """\
Subject: [PATCH] core: check the number

Why.
---
 kernel/core.c | 2 ++
 1 file changed, 2 insertions(+)

diff --git a/kernel/core.c b/kernel/core.c
--- a/kernel/core.c
+++ b/kernel/core.c
@@ -2,5 +2,7 @@
 {
 \tint m;
 
+\tif (n > 4)
+\t\treturn 0;
 \tm = g(n);
 \treturn m;
"""

# Of two files, the first of which the table edits, and the other the patch before.
SECOND_PATCH = """\
Subject: [PATCH] gpio: add AB

Why.
---
diff --git a/drivers/gpio/Kconfig b/drivers/gpio/Kconfig
--- a/drivers/gpio/Kconfig
+++ b/drivers/gpio/Kconfig
@@ -1,5 +1,8 @@
 config GPIO_A
 \tbool
 
+config GPIO_AB
+\tbool
+
 config GPIO_B
 \tbool
diff --git a/kernel/core.c b/kernel/core.c
--- a/kernel/core.c
+++ b/kernel/core.c
@@ -4,6 +4,6 @@
 
 \tif (n > 4)
-\t\treturn 0;
+\t\treturn -1;
 \tm = g(n);
 \treturn m;
 }
"""

# What another version needs of a new file.
PORT = """\
Subject: [PATCH] ours: follow the change of one

Why.
---
diff --git a/drivers/gpio/ours/one.rs b/drivers/gpio/ours/one.rs
--- a/drivers/gpio/ours/one.rs
+++ b/drivers/gpio/ours/one.rs
@@ -1 +1 @@
-// One.
+// Ported.
"""

PATCHED = TREE["kernel/core.c"].replace("\tm =", "\tif (n > 4)\n\t\treturn 0;\n\tm =")

OURS = {
    "Kconfig": "config OURS\n\tbool\n",
    "drivers/gpio/ours/one.rs": "// One.\n",
    "drivers/gpio/ours/two.rs": "// Two.\n",
    "drivers/gpio/ours/.two.rs.swp": "an editor's",
    "scripts/patches/0001-core-check-the-number.patch": PATCH,
}


def write(top, files):
    for name, text in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def snapshot(top):
    """Every path below, with its kind, mode and content."""
    seen = {}
    for path in sorted(top.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            content = os.readlink(path)
        else:
            content = path.read_bytes() if stat.S_ISREG(mode) else None
        seen[str(path.relative_to(top))] = mode, content
    return seen


def load(repo):
    spec = importlib.util.spec_from_file_location("graft", repo / "scripts" / "graft.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["graft"] = module
    spec.loader.exec_module(module)
    return module


class SmallTree(unittest.TestCase):
    def setUp(self):
        self.top = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.repo = self.make_repo("repo")
        self.tree = self.top / "tree"
        write(self.tree, TREE)
        (self.tree / "rust/lib.rs").chmod(0o640)
        self.before = snapshot(self.tree)

    def make_repo(self, name):
        repo = self.top / name
        write(repo, OURS)
        write(repo, {"scripts/graft.toml": TABLE})
        shutil.copy(SCRIPTS / "graft.py", repo / "scripts")
        return repo

    def run_graft(self, *args, repo=None):
        """Exit status, and all that was printed."""
        module = load(repo or self.repo)
        out = io.StringIO()
        with mock.patch.object(sys, "argv", ["graft.py", *map(str, args)]), contextlib.redirect_stdout(out):
            try:
                module.main()
            except module.Refusal as err:
                return 1, str(err)
        return 0, out.getvalue()

    def graft(self, *args):
        status, text = self.run_graft("graft", *args, self.tree)
        self.assertEqual(status, 0, text)
        return text

    def ungraft(self):
        status, text = self.run_graft("ungraft", self.tree)
        self.assertEqual(status, 0, text)
        self.assertEqual(snapshot(self.tree), self.before)

    def assert_refused(self, because, *args, repo=None):
        """The command fails with one line of the given content, and changes nothing."""
        before = snapshot(self.tree)
        status, text = self.run_graft(*(args or ("graft", self.tree)), repo=repo)
        self.assertEqual(status, 1, text)
        self.assertIn(because, text)
        self.assertNotIn("\n", text)
        self.assertEqual(snapshot(self.tree), before)

    def edit_table(self, old, new):
        table = self.repo / "scripts/graft.toml"
        self.assertIn(old, table.read_text())
        table.write_text(table.read_text().replace(old, new))

    def core(self):
        return (self.tree / "kernel/core.c").read_text()

    def add_patch(self, text, name="0002-gpio-add-ab.patch"):
        write(self.repo, {f"scripts/patches/{name}": text})

    def test_round_trip(self):
        self.graft()
        self.assertEqual(self.core(), PATCHED)
        self.assertEqual(
            (self.tree / "drivers/gpio/Kconfig").read_text(),
            'config GPIO_A\n\tbool\n\nsource "drivers/gpio/Kconfig.ours"\n\nconfig GPIO_B\n\tbool\n',
        )
        self.assertEqual((self.tree / "rust/lib.rs").stat().st_mode & 0o777, 0o640)
        self.assertEqual(os.readlink(self.tree / "drivers/gpio/ours/one.rs"), f"{self.repo}/drivers/gpio/ours/one.rs")
        self.assertTrue((self.tree / "drivers/gpio/Kconfig.ours").is_symlink())
        self.assertFalse((self.tree / "drivers/gpio/ours/.two.rs.swp").exists())
        self.ungraft()

    def test_last_line_without_newline(self):
        self.graft()
        self.assertEqual((self.tree / "rust/lib.rs").read_text(), "pub mod aa;\npub mod b;\npub mod c;\n")
        self.ungraft()

    def test_hard_links_keep_their_content(self):
        twin = self.top / "twin"
        subprocess.run(["cp", "-al", self.tree, twin], check=True)
        self.graft()
        self.assertEqual(snapshot(twin), self.before)
        self.ungraft()
        self.assertEqual(snapshot(twin), self.before)

    def test_second_graft_changes_nothing(self):
        self.graft()
        times = {path: path.lstat().st_mtime_ns for path in self.tree.rglob("*") if ".graft" not in path.parts}
        after = snapshot(self.tree)
        self.assertIn(": 0 paths", self.graft())
        self.assertEqual(snapshot(self.tree), after)
        for path, time in times.items():
            if not path.is_dir() or path.is_symlink():
                self.assertEqual(path.lstat().st_mtime_ns, time, path)

    def test_refresh(self):
        self.graft()
        write(self.repo, {"drivers/gpio/ours/deep/three.rs": "// Three.\n"})
        (self.repo / "drivers/gpio/ours/one.rs").unlink()
        self.edit_table("pub mod c;", "pub mod cc;")
        self.edit_table("drivers/gpio/Kconfig.ours", "drivers/gpio/Kconfig.new")
        self.graft()
        self.assertTrue((self.tree / "drivers/gpio/ours/deep/three.rs").exists())
        self.assertFalse((self.tree / "drivers/gpio/ours/one.rs").is_symlink())
        self.assertFalse((self.tree / "drivers/gpio/Kconfig.ours").is_symlink())
        self.assertIn("pub mod cc;", (self.tree / "rust/lib.rs").read_text())
        self.assertNotIn("pub mod c;", (self.tree / "rust/lib.rs").read_text())
        self.ungraft()

    def test_refresh_takes_back_an_edit_that_is_no_longer_wanted(self):
        self.graft()
        text = TABLE.split("[[edit]]")
        (self.repo / "scripts/graft.toml").write_text("[[edit]]".join(text[:2]))
        self.graft()
        self.assertEqual((self.tree / "rust/lib.rs").read_text(), TREE["rust/lib.rs"])
        self.ungraft()

    def test_patches_follow_each_other_and_come_before_the_edits(self):
        self.add_patch(SECOND_PATCH)
        self.edit_table("^config GPIO_B$", "^config GPIO_AB$")
        self.graft()
        self.assertEqual(self.core(), PATCHED.replace("return 0;", "return -1;"))
        self.assertEqual(
            (self.tree / "drivers/gpio/Kconfig").read_text(),
            'config GPIO_A\n\tbool\n\nsource "drivers/gpio/Kconfig.ours"\n\n'
            "config GPIO_AB\n\tbool\n\nconfig GPIO_B\n\tbool\n",
        )
        self.ungraft()

    def test_refresh_takes_a_changed_patch(self):
        self.graft()
        self.add_patch(PATCH.replace("> 4", "> 5"), "0001-core-check-the-number.patch")
        self.graft()
        self.assertEqual(self.core(), PATCHED.replace("> 4", "> 5"))
        self.ungraft()

    def test_refresh_takes_back_a_patch_that_is_gone(self):
        self.add_patch(SECOND_PATCH)
        self.graft()
        (self.repo / "scripts/patches/0002-gpio-add-ab.patch").unlink()
        self.graft()
        self.assertEqual(self.core(), PATCHED)
        (self.repo / "scripts/patches/0001-core-check-the-number.patch").unlink()
        self.graft()
        self.assertEqual(self.core(), TREE["kernel/core.c"])
        self.assertFalse((self.tree / ".graft/original/kernel/core.c").exists())
        self.ungraft()

    def set_version(self, version):
        write(self.tree, {"Makefile": TREE["Makefile"].replace("PATCHLEVEL = 2", f"PATCHLEVEL = {version[2:]}")})
        self.before = snapshot(self.tree)

    def port(self, text=PORT):
        write(self.repo, {"scripts/patches-7.3/0001-ours-follow-the-change.patch": text})

    def test_edits_are_those_of_the_version(self):
        edit = '[[edit]]\nversions = ["{}"]\nfile = "rust/lib.rs"\nanchor = "^pub mod b;"\nwhere = "before"\ntext = "// {}\\n"\n'
        self.edit_table('versions = ["7.2"]\n', 'versions = ["7.2", "7.3"]\n')
        with (self.repo / "scripts/graft.toml").open("a") as table:
            table.write(edit.format("7.2", "Two.") + edit.format("7.3", "Three."))
        for version, word, other in ("7.2", "Two.", "Three."), ("7.3", "Three.", "Two."):
            self.set_version(version)
            self.graft()
            text = (self.tree / "rust/lib.rs").read_text()
            self.assertIn(f"// {word}\npub mod b;", text)
            self.assertNotIn(other, text)
            self.ungraft()

    def test_new_files_are_those_of_the_version(self):
        self.edit_table('versions = ["7.2"]\n', 'versions = ["7.2", "7.3"]\n')
        self.port()
        one = self.tree / "drivers/gpio/ours/one.rs"
        # An unknown version has the files of the last one before it.
        for version, text in ("7.1", "// One.\n"), ("7.2", "// One.\n"), ("7.3", "// Ported.\n"), ("7.10", "// Ported.\n"):
            self.set_version(version)
            for _ in range(2):
                self.graft("--force")
                self.assertEqual(one.read_text(), text)
                self.assertEqual(one.is_symlink(), text == "// One.\n")
                self.assertTrue((self.tree / "drivers/gpio/ours/two.rs").is_symlink())
            self.ungraft()
        self.assertEqual((self.repo / "drivers/gpio/ours/one.rs").read_text(), "// One.\n")

    def test_refuses_new_files_that_the_version_does_not_fit(self):
        self.edit_table('versions = ["7.2"]\n', 'versions = ["7.2", "7.3"]\n')
        self.port()
        self.set_version("7.3")
        write(self.repo, {"drivers/gpio/ours/one.rs": "// Changed.\n"})
        self.assert_refused("patch 0001-ours-follow-the-change.patch does not apply to drivers/gpio/ours/one.rs")
        self.port(PATCH)
        self.assert_refused("kernel/core.c is none of the new files in graft.toml")

    def test_skips_a_patch_that_the_tree_has(self):
        write(self.tree, {"kernel/core.c": PATCHED})
        self.before = snapshot(self.tree)
        self.graft()
        self.assertEqual(self.core(), PATCHED)
        self.ungraft()

    def test_skips_patches_of_one_file_that_the_tree_has(self):
        self.add_patch(SECOND_PATCH)
        both = PATCHED.replace("return 0;", "return -1;")
        kconfig = TREE["drivers/gpio/Kconfig"].replace("config GPIO_B", "config GPIO_AB\n\tbool\n\nconfig GPIO_B")
        for core, lacking in ((TREE["kernel/core.c"], 2), (PATCHED, 1), (both, 0)):
            write(self.tree, {"kernel/core.c": core})
            write(self.tree, {"drivers/gpio/Kconfig": TREE["drivers/gpio/Kconfig"] if lacking else kconfig})
            self.before = snapshot(self.tree)
            for _ in range(2):
                self.graft()
                self.assertEqual(self.core(), both)
            self.assertEqual((self.tree / ".graft/original/kernel/core.c").exists(), lacking > 0)
            self.ungraft()

    def test_patches_can_be_left_out(self):
        self.add_patch(SECOND_PATCH)
        self.graft()
        self.graft("--without", "00")
        self.assertEqual(self.core(), TREE["kernel/core.c"])
        self.graft("--without", "0002")
        self.assertEqual(self.core(), PATCHED)
        self.graft()
        self.assertEqual(self.core(), PATCHED.replace("return 0;", "return -1;"))
        self.ungraft()

    def test_patch_finds_lines_that_have_moved(self):
        write(self.tree, {"kernel/core.c": f"// Moved.\n{TREE['kernel/core.c']}"})
        self.before = snapshot(self.tree)
        self.graft()
        self.assertEqual(self.core(), f"// Moved.\n{PATCHED}")
        self.ungraft()

    def test_refuses_a_tree_that_a_patch_does_not_fit(self):
        # The first and the last line of the context, which a patch with fuzz does not look at.
        for old, new in ("{", "{ // Changed."), ("return m;", "return m + 1;"):
            write(self.tree, {"kernel/core.c": TREE["kernel/core.c"].replace(old, new)})
            self.assert_refused(
                f"KDIR={self.tree} does not fit: "
                "patch 0001-core-check-the-number.patch does not apply to kernel/core.c"
            )

    def test_refuses_a_patch_of_which_the_tree_has_a_part(self):
        self.add_patch(SECOND_PATCH)
        write(self.tree, {"drivers/gpio/Kconfig": "config GPIO_A\n\tbool\n\nconfig GPIO_AB\n\tbool\n\nconfig GPIO_B\n\tbool\n"})
        self.assert_refused("patch 0002-gpio-add-ab.patch does not apply to drivers/gpio/Kconfig")

    def test_refuses_a_tree_without_a_patched_file(self):
        (self.tree / "kernel/core.c").unlink()
        self.assert_refused("has no file kernel/core.c")

    def test_refuses_a_broken_patch(self):
        self.add_patch("diff --git a/kernel/core.c b/kernel/core.c\n")
        self.assert_refused("0002-gpio-add-ab.patch has to begin with 'Subject: [PATCH] '")
        self.add_patch(PATCH.replace("@@ -2,5 +2,7 @@", "@@ -2,9 +2,11 @@"))
        self.assert_refused("0002-gpio-add-ab.patch: error: corrupt patch")
        self.add_patch("Subject: [PATCH] nothing\n---\n")
        self.assert_refused("0002-gpio-add-ab.patch: error: No valid patches in input")

    def test_applies_patches_within_a_work_tree(self):
        # Where temporary files are made in a git work tree, git would apply nothing, with success.
        subprocess.run(["git", "init", "-q", self.top], check=True)
        with mock.patch.object(tempfile, "tempdir", str(self.top)):
            self.graft()
        self.assertEqual(self.core(), PATCHED)

    def test_switch_between_links_and_copies(self):
        self.graft("--copy")
        copy = self.tree / "drivers/gpio/ours/one.rs"
        self.assertFalse(copy.is_symlink())
        write(self.repo, {"drivers/gpio/ours/one.rs": "// Changed.\n"})
        self.graft("--copy")
        self.assertEqual(copy.read_text(), "// Changed.\n")
        self.graft()
        self.assertTrue(copy.is_symlink())
        self.ungraft()

    def test_refuses_what_is_not_a_kernel_tree(self):
        self.assert_refused("not a Linux kernel source tree", "graft", self.repo)
        self.assert_refused("No such file", "graft", self.top / "nowhere")
        self.assert_refused("Not a directory", "graft", self.tree / "Makefile")

    def test_refuses_another_version_unless_forced(self):
        write(self.tree, {"Makefile": TREE["Makefile"].replace("PATCHLEVEL = 2", "PATCHLEVEL = 1")})
        self.assert_refused("is Linux 7.1, this fits 7.2")
        self.before = snapshot(self.tree)
        self.graft("--force")
        self.ungraft()

    def test_refuses_a_missing_anchor(self):
        self.edit_table("^pub mod b;$", "^pub mod z;$")
        self.assert_refused("rust/lib.rs does not fit: the anchor '^pub mod z;$' is not in it")

    def test_refuses_an_ambiguous_anchor(self):
        self.edit_table("^pub mod b;$", "^pub mod .;$")
        self.assert_refused("is in it 2 times")

    def test_refuses_overlapping_edits(self):
        self.edit_table("'^pub mod b;$'\nwhere = \"after\"", "'^pub mod a;$'\nwhere = \"replace\"")
        self.assert_refused("two edits of rust/lib.rs overlap")

    def test_refuses_a_tree_without_an_edited_file(self):
        (self.tree / "rust/lib.rs").unlink()
        self.assert_refused("has no file rust/lib.rs")

    def test_refuses_a_new_file_that_is_there_already(self):
        write(self.tree, {"drivers/gpio/ours/two.rs": "// Other.\n"})
        self.assert_refused("already has drivers/gpio/ours/two.rs")

    def test_refuses_the_tree_of_another_checkout(self):
        self.graft()
        other = self.make_repo("other")
        self.assert_refused(f"is grafted from {self.repo}", "graft", self.tree, repo=other)
        self.assert_refused(f"is grafted from {self.repo}", "ungraft", self.tree, repo=other)
        # Where that checkout is gone, its graft may be taken over.
        shutil.rmtree(self.repo)
        self.repo = other
        self.graft()
        self.ungraft()

    def test_refuses_to_lose_a_users_change(self):
        self.graft("--copy")
        for name in "rust/lib.rs", "drivers/gpio/ours/one.rs":
            path = self.tree / name
            ours = path.read_text()
            path.write_text(f"{ours}// Mine.\n")
            self.assert_refused("was changed since the graft")
            self.assert_refused("was changed since the graft", "ungraft", self.tree)
            path.write_text(ours)
        self.ungraft()

    def test_refuses_to_restore_from_a_damaged_original(self):
        self.graft()
        (self.tree / ".graft/original/rust/lib.rs").write_text("damaged")
        self.assert_refused("cannot be restored", "ungraft", self.tree)

    def test_refuses_to_ungraft_what_is_not_grafted(self):
        self.assert_refused("is not grafted", "ungraft", self.tree)

    def test_refuses_a_broken_table(self):
        (self.repo / "scripts/graft.toml").write_text("versions = [")
        self.assert_refused("cannot read")

    def interrupted(self, command, after):
        """Runs a command that dies at its n-th write; False where it needs fewer."""
        module = load(self.repo)
        real = module.put
        left = after

        def put(*args):
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            real(*args)

        module.put = put
        argv = ["graft.py", command, str(self.tree)]
        with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(io.StringIO()):
            try:
                module.main()
            except KeyboardInterrupt:
                return True
        return False

    def test_interrupted_graft_can_be_undone(self):
        after = 0
        while self.interrupted("graft", after):
            if (self.tree / ".graft/state.json").exists():
                self.ungraft()
            else:
                # Died before the tree was touched.
                shutil.rmtree(self.tree / ".graft", ignore_errors=True)
                self.assertEqual(snapshot(self.tree), self.before)
            after += 1
        self.assertGreater(after, 5)

    def test_interrupted_graft_can_be_finished(self):
        self.graft()
        whole = snapshot(self.tree)
        self.ungraft()
        after = 0
        while self.interrupted("graft", after):
            self.graft()
            self.assertEqual(snapshot(self.tree), whole)
            self.ungraft()
            after += 1
        self.assertGreater(after, 5)

    def test_interrupted_ungraft_can_be_finished(self):
        self.graft()
        after = 0
        while self.interrupted("ungraft", after):
            self.ungraft()
            self.graft()
            after += 1
        self.assertGreater(after, 1)
        self.assertEqual(snapshot(self.tree), self.before)


class RealTree(unittest.TestCase):
    def round_trip(self, version):
        pristine = Path(os.environ.get("GRAFT_PRISTINE", "/nowhere")) / f"linux-source-{version}"
        if not pristine.is_dir():
            self.skipTest(f"there is no {pristine}")
        top = self.enterContext(tempfile.TemporaryDirectory(dir=pristine.parent))
        tree = Path(top) / "tree"
        # Hard links, as the trees of the checkouts are made.
        subprocess.run(["cp", "-al", pristine, tree], check=True)
        for step in (["graft", tree], ["graft", tree], ["ungraft", tree]):
            subprocess.run([sys.executable, SCRIPTS / "graft.py", *step], check=True, stdout=subprocess.DEVNULL)
            if step[0] == "graft":
                self.assertTrue((tree / ".graft/state.json").exists())
        subprocess.run(["diff", "-r", "--no-dereference", pristine, tree], check=True)

    def test_round_trip(self):
        self.round_trip("7.2")

    def test_round_trip_of_the_next_kernel(self):
        self.round_trip("7.3")


if __name__ == "__main__":
    unittest.main()
