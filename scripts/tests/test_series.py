#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Tests of series.py on the small tree that the tests of graft.py use."""

import importlib.util
import os
import shutil
import subprocess
import sys
import unittest
from pathlib import Path
from unittest import mock

import test_graft
from test_graft import SECOND_PATCH, TREE, snapshot, write

SCRIPTS = Path(__file__).resolve().parent.parent

SERIES = """
[[part]]
name = "fixes"
subject = "core: fixes"
cover = "For whom."
lists = ["list@vger.kernel.org"]
patches = ["patches/0001-*.patch"]

[[part]]
name = "ours"
subject = "gpio: ours"
cover = "For whom."
lists = ["list@vger.kernel.org"]
patches = ["ours/01-one", "ours/02-two"]
"""

# The second step has a part of one.rs, another form of four.rs before it, and the rest.
STEPS = {
    "drivers/gpio/ours/one.rs": "// One.\n\nfn one() {}\n// End.\n",
    "drivers/gpio/ours/four.rs": "// Four.\n",
    "scripts/series.toml": SERIES,
    "scripts/steps/ours/four.rs": "// Less than four.\n",
    "scripts/steps/ours/01-one.patch": """\
Subject: [PATCH] gpio: add one

Why.
---
whole: drivers/gpio/ours/one.rs
whole: drivers/gpio/ours/four.rs
""",
    "scripts/steps/ours/02-two.patch": """\
Subject: [PATCH] gpio: add two

Why.
---
whole: drivers/gpio/ours/two.rs
whole: drivers/gpio/Kconfig.ours
before: four.rs drivers/gpio/ours/four.rs

diff --git a/drivers/gpio/ours/one.rs b/drivers/gpio/ours/one.rs
--- a/drivers/gpio/ours/one.rs
+++ b/drivers/gpio/ours/one.rs
@@ -1,3 +1,4 @@
 // One.
 
+fn one() {}
 // End.
""",
}

PORT = test_graft.PORT.replace("@@ -1 +1 @@", "@@ -1,2 +1,2 @@") + " \n"

MAINTAINER = "#!/bin/sh\necho 'A Maintainer <a@maintainer.invalid>'\necho list@vger.kernel.org\n"

NOBODY = {f"GIT_{who}_{what}": "nobody" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


class Series(test_graft.SmallTree):
    def setUp(self):
        super().setUp()
        write(self.repo, STEPS)
        shutil.copy(SCRIPTS / "series.py", self.repo / "scripts")
        write(self.tree, {"scripts/get_maintainer.pl": MAINTAINER})
        (self.tree / "scripts/get_maintainer.pl").chmod(0o755)
        self.before = snapshot(self.tree)
        self.enterContext(mock.patch.dict(os.environ, NOBODY))

    def run_graft(self, *args, repo=None):
        """As of the class above, but runs series.py if it is one of its commands."""
        if args[0] not in ("write", "repository"):
            return super().run_graft(*args, repo=repo)
        test_graft.load(repo or self.repo)
        spec = importlib.util.spec_from_file_location("series", self.repo / "scripts/series.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with mock.patch.object(test_graft, "load", lambda repo: module):
            return super().run_graft(*args, repo=repo)

    def write_series(self, name="out"):
        out = self.top / name
        status, text = self.run_graft("write", self.tree, out)
        self.assertEqual(status, 0, text)
        return sorted(out.rglob("*.patch"))

    def assert_no_series(self, because):
        self.assert_refused(because, "write", self.tree, self.top / "out")

    def apply(self, patches, name="patched"):
        """What git am makes of a tree that has never seen the repository."""
        tree = self.top / name
        write(tree, TREE)
        (tree / "rust/lib.rs").chmod(0o640)
        subprocess.run(["git", "init", "--quiet", tree], check=True)
        for step in (["add", "."], ["commit", "--quiet", "--message", "tree"], ["am", "--quiet", *patches]):
            subprocess.run(["git", "-C", tree, *step], check=True)
        return tree

    def test_gives_the_grafted_tree(self):
        for grafted in False, True:
            if grafted:
                self.graft()
            patches = self.write_series(f"out-{grafted}")
            self.assertEqual(
                [f"{path.parent.name}/{path.name}" for path in patches],
                [
                    "1-fixes/0000-cover-letter.patch",
                    "1-fixes/0001-core-check-the-number.patch",
                    "2-ours/0000-cover-letter.patch",
                    "2-ours/0001-gpio-add-one.patch",
                    "2-ours/0002-gpio-add-two.patch",
                ],
            )
            tree = self.apply([path for path in patches if "cover" not in path.name], f"patched-{grafted}")
            self.graft("--copy")
            for path in tree.rglob("*"):
                if path.is_file() and ".git" not in path.parts:
                    twin = self.tree / path.relative_to(tree)
                    self.assertEqual(path.read_bytes(), twin.read_bytes(), path)
            self.ungraft()

    def test_grows_step_by_step(self):
        patches = [path for path in self.write_series() if "cover" not in path.name]
        tree = self.apply(patches[:2])
        self.assertEqual((tree / "drivers/gpio/ours/one.rs").read_text(), "// One.\n\n// End.\n")
        self.assertEqual((tree / "drivers/gpio/ours/four.rs").read_text(), "// Less than four.\n")
        self.assertEqual((tree / "rust/lib.rs").read_text(), "pub mod a;\npub mod b;\npub mod c;\n")
        self.assertFalse((tree / "drivers/gpio/ours/two.rs").exists())

    def test_ports_each_form_of_a_file(self):
        self.edit_table('versions = ["7.2"]\n', 'versions = ["7.2", "7.3"]\n')
        self.port(PORT)
        self.set_version("7.3")
        patches = [path for path in self.write_series() if "cover" not in path.name]
        for count, text in (2, "// Ported.\n\n// End.\n"), (3, "// Ported.\n\nfn one() {}\n// End.\n"):
            tree = self.apply(patches[:count], f"patched-{count}")
            self.assertEqual((tree / "drivers/gpio/ours/one.rs").read_text(), text)

    def test_refuses_a_step_that_a_version_leaves_nothing_of(self):
        self.edit_table('versions = ["7.2"]\n', 'versions = ["7.2", "7.3"]\n')
        self.set_version("7.3")
        steps = SERIES.replace('"ours/02-two"', '"ours/02-two", "ours/03-none"')
        none = {"scripts/steps/ours/03-none.patch": "Subject: [PATCH] gpio: add nothing\n\nWhy.\n---\n"}
        write(self.repo, {"scripts/series.toml": steps, **none})
        self.assert_no_series("03-none.patch changes nothing")
        self.port(PORT)
        self.assertEqual(len(self.write_series()), 5)

    def test_is_addressed_and_signed_off(self):
        cover, first = self.write_series()[:2]
        self.assertIn("Subject: [PATCH 0/1] core: fixes", cover.read_text())
        self.assertIn("Applies to Linux 7.2.12.", cover.read_text())
        self.assertIn("To: A Maintainer <a@maintainer.invalid>\nCc: list@vger.kernel.org\n", first.read_text())
        self.assertIn("\nSigned-off-by: nobody <nobody>\n", first.read_text())

    def test_leaves_out_a_patch_that_the_tree_has(self):
        write(self.tree, {"kernel/core.c": test_graft.PATCHED})
        self.before = snapshot(self.tree)
        self.assertEqual([path.parent.name for path in self.write_series()], ["2-ours"] * 3)

    def test_leaves_out_patches_of_one_file_that_the_tree_has(self):
        self.add_patch(SECOND_PATCH)
        write(self.repo, {"scripts/series.toml": SERIES.replace("0001-*", "000*")})
        self.assertEqual([path.parent.name for path in self.write_series("all")], ["1-fixes"] * 3 + ["2-ours"] * 3)
        write(self.tree, {"kernel/core.c": test_graft.PATCHED.replace("return 0;", "return -1;")})
        kconfig = TREE["drivers/gpio/Kconfig"].replace("config GPIO_B", "config GPIO_AB\n\tbool\n\nconfig GPIO_B")
        write(self.tree, {"drivers/gpio/Kconfig": kconfig})
        self.before = snapshot(self.tree)
        self.assertEqual([path.parent.name for path in self.write_series("none")], ["2-ours"] * 3)

    def test_refuses_a_step_that_the_files_have_left_behind(self):
        write(self.repo, {"drivers/gpio/ours/one.rs": "// One.\nfn two() {}\n// End.\n"})
        self.assert_no_series("scripts/steps/ours/02-two: error: patch failed: drivers/gpio/ours/one.rs:1")

    def test_refuses_a_file_without_a_step(self):
        write(self.repo, {"drivers/gpio/ours/three.rs": "// Three.\n"})
        self.assert_no_series("series.toml: no step adds drivers/gpio/ours/three.rs")

    def test_refuses_a_step_without_its_file(self):
        (self.repo / "drivers/gpio/ours/two.rs").unlink()
        self.assert_no_series("scripts/steps/ours/02-two: no file drivers/gpio/ours/two.rs")

    def test_refuses_an_edit_without_a_step(self):
        self.edit_table('step = "ours/01-one"', 'step = "ours/03-three"')
        self.assert_no_series("series.toml has no step 'ours/03-three' of an edit of rust/lib.rs")

    def test_refuses_a_patch_in_no_part(self):
        self.add_patch(SECOND_PATCH)
        self.assert_no_series("series.toml: 0002-gpio-add-ab.patch has to be in one part")

    def test_refuses_a_list_that_maintainers_do_not_lead_to(self):
        series = self.repo / "scripts/series.toml"
        series.write_text(series.read_text().replace("list@vger", "other@vger"))
        self.assert_no_series("MAINTAINERS does not lead from the part fixes to other@vger.kernel.org")

    def test_refuses_a_part_without_its_patch(self):
        (self.repo / "scripts/steps/ours/01-one.patch").unlink()
        self.assert_no_series("series.toml: there is no ours/01-one")


# Those of graft.py run by themselves.
for test in dir(test_graft.SmallTree):
    if test.startswith("test_"):
        setattr(Series, test, None)


if __name__ == "__main__":
    sys.exit(unittest.main())
