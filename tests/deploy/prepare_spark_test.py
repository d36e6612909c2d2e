#!/usr/bin/env python3
"""tools/prepare_spark.py writes what `nestrec prepare` writes, byte for byte; Spark runs as local[2].

    prepare_spark_test.py PROGRAM

Skipped without Java, or where pyspark can neither be imported nor be installed into a venv of its own under
${NESTREC_CACHE:-~/.cache/nestrec}. NESTREC_PYSPARK names a Python that has it.
"""
import gzip
import os
import random
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOOL = os.path.join(ROOT, "tools/prepare_spark.py")
PROGRAM = sys.argv.pop(1) if len(sys.argv) > 1 else ""
SKIP = 77
PYSPARK = "pyspark==3.5.3"

sys.path.insert(0, os.path.dirname(TOOL))
import prepare_spark  # noqa: E402


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIP)


def python_with_pyspark():
    cache = os.environ.get("NESTREC_CACHE") or os.path.expanduser("~/.cache/nestrec")
    own = os.path.join(cache, "pyspark", "bin", "python3")
    for python in (os.environ.get("NESTREC_PYSPARK"), sys.executable, own):
        if python and os.path.exists(python) and subprocess.run([python, "-c", "import pyspark"], capture_output=True).returncode == 0:
            return python
    made = subprocess.run([sys.executable, "-m", "venv", os.path.join(cache, "pyspark")], capture_output=True, text=True)
    if made.returncode != 0:
        skip(f"no pyspark, and no venv can be made: {made.stderr.strip()[-200:]}")
    installed = subprocess.run([own, "-m", "pip", "install", "-q", PYSPARK], capture_output=True, text=True)
    if installed.returncode != 0:
        skip(f"no pyspark, and pip cannot install it: {installed.stderr.strip()[-200:]}")
    return own


class Text(unittest.TestCase):
    """The parts that have to write as the C++ does."""

    def test_numbers_are_written_with_the_shortest_digits(self):
        for value, text in ((1.0, "1.0"), (-0.0, "-0.0"), (0.1, "0.1"), (12.5, "12.5"), (1e15, "1e+15"), (123456789012345.0, "123456789012345.0"),
                            (1e16, "1e+16"), (1.5e300, "1.5e+300"), (0.0001, "0.0001"), (0.00001, "1e-05"), (1.25e-7, "1.25e-07"),
                            (-3.14, "-3.14"), (100.0, "100.0"), (5e-324, "5e-324")):
            self.assertEqual(prepare_spark.dump_float(value), text)

    def test_times_are_compared_exactly(self):
        for text, time in (("17", (17, 0)), (" -17 ", (-17, 0)), ("1.5", (1, 500000000)), ("-1.25", (-2, 750000000)),
                           ("2014-07-01", (1404172800, 0)), ("2014-07-01T12:30:15Z", (1404217815, 0)),
                           ("2014-07-01 12:30:15.25+02:00", (1404210615, 250000000)), ("1.4e9", (1400000000, 0))):
            self.assertEqual(prepare_spark.parse_time(text), time)
        for text in ("", "yesterday", "2014-13-01", "1e30", "99999999999999999999"):
            self.assertRaises(prepare_spark.BadLine, prepare_spark.parse_time, text)

    def test_white_space_in_user_ids_is_escaped(self):
        self.assertEqual(prepare_spark.encode_user_id("Ann Lee\t100%\u3000\u00e9"), "Ann%20Lee%09100%25%E3%80%80\u00e9")


class Prepare(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8", newline="") as file:
            file.write(text)
        return self.path(name)

    def spark(self, *flags):
        return subprocess.run([PYTHON, TOOL, "--master", "local[2]", *flags], capture_output=True, text=True,
                              env=dict(os.environ, SPARK_LOCAL_IP="127.0.0.1", PYSPARK_PYTHON=PYTHON))

    def expect_the_same(self, *flags):
        ours = subprocess.run([PROGRAM, "prepare", *flags, "--no-text", "--out", self.path("ours"), "--overwrite"], capture_output=True, text=True)
        self.assertEqual(ours.returncode, 0, ours.stderr)
        theirs = self.spark(*flags, "--out", self.path("theirs"), "--overwrite")
        self.assertEqual(theirs.returncode, 0, theirs.stderr[-2000:])
        for name in ("interactions.txt", "items.jsonl"):
            with open(os.path.join(self.path("ours"), name), "rb") as a, open(os.path.join(self.path("theirs"), name), "rb") as b:
                self.assertEqual(a.read(), b.read(), name)

    def test_two_logs_with_all_that_logs_have(self):
        random.seed(3)
        users = [f"u{n}" for n in range(40)] + ["Ann Lee", "100%", "zoë", "a,b", 'say "hi"', "\u3000wide"]
        lines = ["Rating,User_ID,Item,Timestamp"]
        for _ in range(900):
            user, item = random.choice(users), f"i{int(random.random() ** 2 * 60)}"
            time = random.choice([str(random.randrange(50)), f"{random.randrange(50)}.5", "1970-01-01T00:00:20Z"])
            quoted = '"' + user.replace('"', '""') + '"' if any(each in user for each in ',"\u3000') else user
            lines.append(f"{random.randrange(1, 6)}, {quoted} ,{item},{time}")
        lines[20:20] = ["", "not,enough", "3,u1,i1,soon", "x,u1,i1,4"]
        lines += lines[30:60]  # duplicates
        first = self.write("a.csv", "\ufeff" + "\r\n".join(lines))
        records = [f'{{"user": "u{random.randrange(40)}", "asin": "i{random.randrange(60)}", "ts": {random.randrange(50)}, "overall": 4.5}}'
                   for _ in range(200)] + ['{"user": 7, "item": 2.50, "time": 3, "rating": 5}'] * 6 + ["{broken"]
        second = self.write("b.jsonl", "\n".join(records) + "\n")
        catalogue = self.write("c.jsonl", "\n".join(
            [f'{{"asin": "i{n}", "title": "No. {n} \\u00e9\\ud83d\\ude00", "price": {n / 7}, "id": {n}, "tags": ["a", null, true]}}' for n in range(50)]
            + ['{"asin": "i3", "title": "second record of one item"}', "{'asin': 'i55', 'title': u'Python\\'s', 'related': None, 'x': (1, 2.0)}",
               '{"item_id": "i56", "id": "i56", "big": 12345678901234567890, "tiny": 1e-7, "q": "\\u0001\\u007f/\\\\"}', '{"none": 1}']) + "\n")
        self.expect_the_same("--events", first, second, "--catalogue", catalogue)
        self.expect_the_same("--events", second, first, "--catalogue", catalogue, "--min-rating", "3", "--repeats", "last", "--k-core", "3")

    def test_a_log_without_header_and_times(self):
        random.seed(4)
        log = self.write("ratings.dat", "".join(f"{random.randrange(20)}::{random.randrange(30)}::5\n" for _ in range(400)))
        self.expect_the_same("--events", log, "--columns", "user,item,rating", "--no-timestamps", "--k-core", "0", "--repeats", "first")

    def test_compressed_logs_and_items_without_metadata(self):
        random.seed(5)
        names = ("events.jsonl.gz", "more.csv.gz", "catalogue.jsonl.gz")
        with gzip.open(self.path(names[0]), "wt", encoding="utf-8") as log:
            for _ in range(600):
                log.write(f'{{"user": "u{random.randrange(20)}", "item": "i{random.randrange(24)}", "ts": {random.randrange(50)}}}\n')
        with gzip.open(self.path(names[1]), "wt", encoding="utf-8", newline="") as log:
            log.write("user,item,time\r\n" + "".join(f"u{random.randrange(20)},i{random.randrange(24)},{random.randrange(50)}\r\n" for _ in range(300)))
            log.write("bad\r\n" * 3)
        records = ['"title": "Soap"', '"title": ""', '"price": 0', '"price": null', '"categories": []', '"categories": [""]', '"categories": ["", ""]',
                   '"categories": [[], {"a": null}]', '"categories": [[], {"a": "b"}]', '"brand": false', '"colour": "red"', '"title": "", "brand": " "',
                   '"title": null, "categories": [["Bath"], 5]', '"price": 1e999',
                   f'"price": {"9" * 400}', '"price": 123456789012345678901234567890']
        with gzip.open(self.path(names[2]), "wt", encoding="utf-8") as catalogue:
            catalogue.writelines(f'{{"asin": "i{n}", {record}}}\n' for n, record in enumerate(records))
            catalogue.write('{"asin": "i1", "title": "Only the first record of an item counts"}\n')
        events = ("--events", self.path(names[0]), self.path(names[1]), "--catalogue", self.path(names[2]), "--k-core", "2")
        self.expect_the_same(*events)
        self.expect_the_same(*events, "--drop-without-metadata", "--max-bad-lines", "3")
        self.expect_the_same(*events, "--drop-without-metadata", "--text-fields", "colour,brand")
        for flags, message in ((["--max-bad-lines", "2"], "3 of 903 lines of the logs cannot be used, and 2 may be bad"),
                               (["--strict"], "and none may be bad"),
                               (["--drop-without-metadata", "--text-fields", "size"], "no item of the logs has metadata")):
            result = self.spark(*events, *flags, "--out", self.path("out"))
            self.assertEqual(result.returncode, 1, result.stderr[-500:])
            self.assertIn(message, result.stderr)

    def test_refuses_what_it_cannot_do_and_says_why(self):
        log = self.write("events.csv", 'user,item,timestamp\n"one\nuser",i,1\n')
        for flags, message in ((["--events", log], "does not end in its line"), (["--events", self.path("none.csv")], "none.csv is not there"),
                               (["--events", self.write("x.csv", "a,b\n1,2\n")], "has no user column")):
            result = self.spark(*flags, "--out", self.path("out"))
            self.assertEqual(result.returncode, 1, result.stderr[-500:])
            self.assertIn("error: ", result.stderr)
            self.assertIn(message, result.stderr)


if __name__ == "__main__":
    if not PROGRAM:
        sys.exit("usage: prepare_spark_test.py PROGRAM")
    if not shutil.which("java"):
        skip("java is not there; apt-get install default-jre-headless")
    PYTHON = python_with_pyspark()
    unittest.main()
