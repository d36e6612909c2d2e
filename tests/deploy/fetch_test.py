#!/usr/bin/env python3
"""The chart's download script.

    fetch_test.py [-k PATTERN]
"""
import os
import subprocess
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CHART = os.path.join(ROOT, "deploy/helm/nestrec")


class Fetch(unittest.TestCase):
    """files/fetch.sh, with a curl that copies files: what the list says ends up in the folder, whole, or not at all."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        for name in ("bin", "models", "web"):
            os.mkdir(self.path(name))
        with open(self.path("bin/curl"), "w") as file:
            file.write('#!/bin/sh\nfor each; do last=$each; [ "$before" = --output ] && out=$each; before=$each; done\n'
                       f'cp "{self.path("web")}/${{last##*/}}" "$out"\n')
        os.chmod(self.path("bin/curl"), 0o755)
        self.write("labels", "")

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def write(self, name, text):
        with open(self.path(name), "w") as file:
            file.write(text)

    def publish(self, name, text):
        self.write(f"web/{name}", text)
        digest = subprocess.run(["sha256sum", self.path(f"web/{name}")], capture_output=True, text=True, check=True).stdout.split()[0]
        return f"{name} https://a/{name} {digest}\n"

    def run_once(self, listed, **settings):
        self.write("versions", listed)
        environment = dict(os.environ, PATH=self.path("bin") + ":" + os.environ["PATH"], LABELS=self.path("labels"),
                           MODELS=self.path("models"), POLL_SECONDS="1", **{"LIST": self.path("versions"), **settings})
        return subprocess.run(["sh", os.path.join(CHART, "files/fetch.sh"), "once"], env=environment, capture_output=True, text=True)

    def models(self):
        return sorted(each for each in os.listdir(self.path("models")) if not each.startswith("."))

    def test_brings_what_is_listed_and_removes_what_is_not(self):
        one, two = self.publish("one", "1"), self.publish("two", "2")
        self.assertEqual(self.run_once(one).returncode, 0)
        self.assertEqual(self.models(), ["one.safetensors"])
        self.assertEqual(self.run_once(one + two).returncode, 0)
        self.assertEqual(self.models(), ["one.safetensors", "two.safetensors"])
        self.assertEqual(self.run_once(two).returncode, 0)
        self.assertEqual(self.models(), ["two.safetensors"])

    def test_refuses_another_content_than_listed(self):
        line = self.publish("one", "1")
        self.write("web/one", "tampered with")
        result = self.run_once(line)
        self.assertEqual(result.returncode, 1)
        self.assertIn("one is refused: its SHA-256 is", result.stderr)
        self.assertEqual(self.models(), [])

    def test_keeps_what_serves_while_the_new_one_cannot_be_fetched(self):
        one, two = self.publish("one", "1"), self.publish("two", "2")
        self.run_once(one)
        os.remove(self.path("web/two"))
        self.assertEqual(self.run_once(two).returncode, 1)
        self.assertEqual(self.models(), ["one.safetensors"])

    def test_without_a_list_it_fails_and_removes_nothing(self):
        one = self.publish("one", "1")
        self.write("labels", 'stable: "one"\n')
        self.run_once(one)
        for what, listed, settings, message in (
                ("missing", one, {"LIST": self.path("none")}, "cannot be read"),
                ("not set", one, {"LIST": ""}, "the list '' cannot be read"),
                ("a folder", one, {"LIST": self.path("models")}, "cannot be read"),
                ("empty", "", {}, "is empty"),
                ("blank", "\n  \n", {}, "is empty"),
                ("cut short", one[:-10], {}, "is not 'name url sha256'"),
                ("without a checksum", "two https://a/two\n", {}, "is not 'name url sha256'"),
                ("with too much", one.strip() + " and more\n", {}, "is not 'name url sha256'")):
            with self.subTest(what):
                result = self.run_once(listed, **settings)
                self.assertEqual(result.returncode, 1)
                self.assertIn(message, result.stderr)
                self.assertIn("nothing is fetched or removed", result.stderr)
                self.assertEqual(self.models(), ["labels.textproto", "one.safetensors"])

    def test_reads_a_last_line_without_an_end(self):
        one, two = self.publish("one", "1"), self.publish("two", "2")
        self.assertEqual(self.run_once(one + two.rstrip("\n")).returncode, 0)
        self.assertEqual(self.models(), ["one.safetensors", "two.safetensors"])

    def test_another_checksum_under_an_old_name_is_fetched_anew(self):
        one = self.publish("one", "1")
        self.run_once(one)
        self.assertNotIn("fetching", self.run_once(one).stderr)
        self.assertEqual(self.run_once(self.publish("one", "another")).returncode, 0)
        with open(self.path("models/one.safetensors")) as file:
            self.assertEqual(file.read(), "another")
        # The same of a file that lies there from elsewhere, without a note of its checksum.
        os.remove(self.path("models/.one.sha256"))
        self.assertEqual(self.run_once(one).returncode, 1, "the web has another content than the list says")
        with open(self.path("models/one.safetensors")) as file:
            self.assertEqual(file.read(), "another")

    def test_puts_labels_there_and_takes_them_away(self):
        one = self.publish("one", "1")
        self.write("labels", 'stable: "one"\n')
        self.run_once(one)
        self.assertEqual(self.models(), ["labels.textproto", "one.safetensors"])
        self.write("labels", "")
        self.run_once(one)
        self.assertEqual(self.models(), ["one.safetensors"])


if __name__ == "__main__":
    unittest.main()
