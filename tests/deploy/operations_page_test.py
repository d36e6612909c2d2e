#!/usr/bin/env python3
"""docs/operations.md has every flag of `nestrec serve` and every key of its config, and no others.

    operations_page_test.py PROGRAM
"""
import os
import re
import subprocess
import sys
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = sys.argv.pop(1) if len(sys.argv) > 1 else ""


def text(path):
    with open(os.path.join(ROOT, path)) as file:
        return file.read()


def section(title):
    return re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## )", text("docs/operations.md"), re.M | re.S).group(1)


class OperationsPage(unittest.TestCase):
    def test_has_every_flag_of_serve_once_and_no_other(self):
        page = subprocess.run([PROGRAM, "serve", "--help"], capture_output=True, text=True, check=True).stdout
        flags = set(re.findall(r"^ +(?:-\w,)?(--[a-z0-9-]+)", page, re.M)) - {"--help"}
        self.assertGreater(len(flags), 40, page)
        documented = re.findall(r"^\| `(--[a-z0-9-]+)` \|", section("Flags of `nestrec serve`"), re.M)
        self.assertEqual(sorted(documented), sorted(flags))

    def test_has_every_key_of_the_config_and_examples_name_no_other(self):
        proto = text("proto/nestrec/v1/server_config.proto")
        keys = set(re.findall(r"^ +(?:repeated |optional )?\w+ (\w+) = \d+;", proto, re.M))
        self.assertIn("latency_budget", keys)
        page = section("Tiers")
        for key in keys:
            with self.subTest(key):
                self.assertRegex(page, rf"\b{key}\b")
        for line in re.findall(r"^    (?!#)(\S.*)$", page, re.M):
            for key in re.findall(r"\b([a-z_]+):? *[{:]", line) if "tiers {" in line else []:
                with self.subTest(line):
                    self.assertIn(key, keys)


if __name__ == "__main__":
    if not PROGRAM:
        sys.exit("usage: operations_page_test.py PROGRAM")
    unittest.main()
