#!/usr/bin/env python3
"""The tables of flags and keys in docs/operations.md and docs/commands.md are those of the program, and so is the chart's list of flags.

    operations_page_test.py PROGRAM

With NESTREC_WRITE_DOCS in the environment (make reference) it writes the tables in place of comparing them.
"""
import functools
import os
import re
import subprocess
import sys
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WRITE = "NESTREC_WRITE_DOCS" in os.environ
PROGRAM = sys.argv.pop(1) if len(sys.argv) > 1 else ""
END = "<!-- end -->\n"

# Where the documentation has more about a flag of serve.
MORE = {
    "--model": "[models.md](models.md)",
    "--admin-listen": "[models.md](models.md#asking-and-telling-a-server)",
    "--config": "[Tiers](#tiers)",
    "--memory-limit": "[Memory](#memory)",
    "--max-call-memory": "[Memory](#memory)",
    "--own-cores": "[performance.md](performance.md#a-call-of-the-server)",
    "--index-folder": "[Kept indexes](#kept-indexes)",
    "--items-folder": "[live_items.md](live_items.md)",
    "--http-listen": "[Metrics and probes](#metrics-and-probes)",
    "--health-listen": "[Health](#health-reflection-shutdown)",
    "--channelz-listen": "[Health](#health-reflection-shutdown)",
    "--log-format": "[Logs](#logs)",
    "--quality-share": "[Live quality](#live-quality)",
    "--request-log": "[The request log](#the-request-log)",
    "--sessions": "[sessions.md](sessions.md)",
    "--tls-cert": "[security.md](security.md)",
    "--token-file": "[security.md](security.md)",
}
COMMANDS_HEAD = """# Every command and its flags

What `nestrec COMMAND --help` says, as tables. `nestrec serve` is in [operations.md](operations.md#flags-of-nestrec-serve), what training's
flags are for in [training.md](training.md#recipes).
"""


def read(path):
    with open(os.path.join(ROOT, path)) as file:
        return file.read()


def write(path, text):
    with open(os.path.join(ROOT, path), "w") as file:
        file.write(text)


@functools.cache
def help_of(*command):
    return subprocess.run([PROGRAM, *command, "--help"], capture_output=True, text=True, check=True).stdout


def commands(*above):
    """The names below a command, each with its line of help."""
    listed = re.search(r"^Subcommands:\n(.*)", help_of(*above), re.M | re.S)
    return re.findall(r"^  ([a-z][a-z-]*) +(.*)$", listed.group(1), re.M) if listed else []


class Option:
    """A line of CLI11's help: names, type, default and meaning."""

    def __init__(self, left, meaning):
        words = left.split(" ", 1)
        self.names = re.sub(r"\{\w+\}", "", words[0])
        rest = words[1] if len(words) > 1 else ""
        rest = re.sub(r" ?(Excludes|Needs):( --[a-z-]+)+", "", rest)
        environment = re.search(r"\(Env:(\w+)\)", rest)
        rest = re.sub(r" ?\(Env:\w+\)", "", rest)
        required = "REQUIRED" in rest
        rest = rest.replace(" REQUIRED", "").replace("REQUIRED", "").strip()
        default = re.match(r"[A-Z]+(?::[^=]*)?=(.*(?<!\.\.\.))$", rest)
        in_words = re.search(r" \(default: ([^()]*)\)", meaning)
        self.default = (
            "required" if required
            else f"`{default.group(1)}`" if default
            else in_words.group(1) if in_words
            else "" if not rest
            else "none")
        if in_words and not default:
            meaning = meaning.replace(in_words.group(0), "")
        choices = re.search(r"\{([^}]*)\}", rest)
        between = re.search(r"in \[(.*) - (.*)\]", rest)
        if environment:
            meaning += f"; or the environment's `{environment.group(1)}`"
        if choices and not all(word in meaning for word in choices.group(1).split(",")):
            meaning += ": " + choices.group(1).replace(",", ", ")
        if between:
            meaning += f" ({between.group(1)} to {between.group(2)})"
        self.meaning = meaning.replace("|", "\\|").replace("<", "&lt;")

    def row(self, more=""):
        names = ", ".join(f"`{name}`" for name in self.names.split(","))
        return f"| {names} | {self.default} | {self.meaning}{': ' + more if more else ''} |\n"


COLUMN = 36  # where CLI11 begins meanings, on the line of the name or on the next one


def options(lines):
    """Of a list in a page of help: names with types, and meanings."""
    lines = re.sub(rf"\n {{{COLUMN}}}(?=\S)", "\0", lines)
    found = []
    for line in lines.splitlines():
        left, _, meaning = line.partition("\0") if "\0" in line else (line[:COLUMN], "", line[COLUMN:])
        found.append((left.strip(), meaning.strip()))
    return [each for each in found if not each[0].startswith("-h,")]


def sections(page):
    """The lists of a page of help: positionals, options, groups; not the commands below it."""
    page = page.split("\nSubcommands:\n")[0]
    return re.findall(r"^(\w[^\n]*):\n(.*?)(?=\n\n|\n\w|\Z)", page, re.M | re.S)


def table(command, more=None):
    rows = []
    shared = command == ["experiment"]  # the recipe's flags are those of train
    for title, lines in sections(help_of(*command)):
        if shared and title == "Recipe":
            continue
        rows += [Option(*each) for each in options(lines)]
    if not rows:
        return ""
    head = "| flag | default | meaning |\n|---|---|---|\n"
    made = head + "".join(row.row((more or {}).get(row.names, "")) for row in rows)
    return made + ("\nAnd the recipe's, from `--recipe` on, as of [nestrec train](#nestrec-train).\n" if shared else "")


def all_commands():
    page = COMMANDS_HEAD

    def add(path, line):
        nonlocal page
        if path != ["serve"]:
            page += f"\n## nestrec {' '.join(path)}\n\n{line}.\n"
            rows = table(path)
            page += f"\n{rows}" if rows else ""
        for name, below in commands(*path):
            add(path + [name], below)

    for name, line in commands():
        add([name], line)
    return page


def keys():
    """Of the config file, with the comments of the schema that the program reads it by."""
    rows, comment, message = "| key | in | meaning |\n|---|---|---|\n", [], ""
    for line in read("proto/nestrec/v1/server_config.proto").splitlines():
        line = line.strip()
        field = re.match(r"(?:repeated |optional )?\w+ (\w+) = \d+;", line)
        if line.startswith("//"):
            comment.append(line[2:].strip())
        elif line.startswith("message "):
            message = {"ServerConfig": "the file", "Tier": "`tiers`"}[line.split()[1]]
            comment = []
        elif field:
            rows += f"| `{field.group(1)}` | {message} | {' '.join(comment) or 'see above'} |\n"
            comment = []
        else:
            comment = []
    return rows


class OperationsPage(unittest.TestCase):
    maxDiff = None

    def compare(self, path, mark, made):
        page = read(path)
        begin = page.index(mark) + len(mark) if mark else 0
        end = page.index(END, begin) if mark else len(page)
        if WRITE:
            write(path, page[:begin] + made + page[end:])
        else:
            self.assertEqual(page[begin:end], made, f"{path}: make reference brings it up to date")

    def test_has_the_flags_of_serve(self):
        made = table(["serve"], MORE)
        self.assertGreater(made.count("\n"), 40, made)
        for flag in MORE:
            self.assertIn(f"| `{flag}` |", made)
        self.compare("docs/operations.md", "<!-- flags: from nestrec serve --help -->\n", made)

    def test_the_chart_knows_the_flags_of_serve(self):
        made = ""
        for title, lines in sections(help_of("serve")):
            for left, _ in options(lines):
                kind = re.match(r"(--[a-z-]+)(?: ([A-Z]+)(?![a-z]))?", left)
                made += " ".join(word for word in kind.groups() if word) + "\n"
        self.assertIn("--max-k INT\n", made)
        self.assertIn("--own-cores\n", made)
        self.assertIn("--encode-only\n", made)
        if WRITE:
            write("deploy/helm/nestrec/files/serve_flags.txt", "")
        self.compare("deploy/helm/nestrec/files/serve_flags.txt", "", made)

    def test_has_the_keys_of_the_config(self):
        made = keys()
        self.assertIn("latency_budget", made)
        self.compare("docs/operations.md", "<!-- keys: from server_config.proto -->\n", made)

    def test_examples_of_tiers_name_no_other_key(self):
        known = re.findall(r"^\| `(\w+)` \|", keys(), re.M)
        tiers = re.search(r"^## Tiers\n(.*?)(?=^## )", read("docs/operations.md"), re.M | re.S).group(1)
        named = [key for line in re.findall(r"^    (tiers \{.*)$", tiers, re.M) for key in re.findall(r"\b([a-z_]+):? *[{:]", line)]
        self.assertGreater(len(named), 5)
        for key in named:
            self.assertIn(key, known)

    def test_the_page_of_commands_has_every_command(self):
        made = all_commands()
        self.assertIn("## nestrec bench load", made)
        if WRITE and not os.path.exists(os.path.join(ROOT, "docs/commands.md")):
            write("docs/commands.md", "")
        self.compare("docs/commands.md", "", made)


if __name__ == "__main__":
    if not PROGRAM:
        sys.exit("usage: operations_page_test.py PROGRAM")
    unittest.main()
