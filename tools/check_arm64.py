#!/usr/bin/env python3
"""Whether the sources compile for arm64, asked of a cross compiler on a machine that is none: every file of base/, index/, model/, server/
and cli/ that a configured build compiles. Files with kernels (Highway) are compiled as a whole, since much of what can be wrong with
them shows when code is generated; the others are parsed and checked. Nothing is linked and nothing runs.

    apt-get install g++-aarch64-linux-gnu
    tools/check_arm64.py build/release [PATH ...]       # paths of the project begin with one of these

The headers of libraries are this machine's, after the compiler's own: what they say of the processor is left to the macros of the compiler.
Prints the files that fail with the compiler's words; exit code 1 where there are any, 77 where the compiler is missing.
"""
import concurrent.futures
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

COMPILER = "aarch64-linux-gnu-g++"
PATHS = ("base/", "index/", "model/", "server/", "cli/")
# Of Debian's, in this order, when the compiler's own have nothing of that name.
HEADERS = ["-idirafter", "/usr/include", "-idirafter", "/usr/include/x86_64-linux-gnu"]


def commands(build, paths):
    """(path in the project, command, folder) of each file, a file once."""
    with open(os.path.join(build, "CMakeCache.txt")) as cache:
        source = re.search(r"^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$", cache.read(), re.M).group(1)
    with open(os.path.join(build, "compile_commands.json")) as file:
        found = {os.path.relpath(each["file"], source): each for each in json.load(file)}
    for path, each in sorted(found.items()):
        if path.startswith(tuple(paths)):
            yield path, shlex.split(each["command"])[1:], each["directory"], each["file"]


def check(path, flags, folder, file):
    with open(file, encoding="utf-8") as text:
        kernels = "hwy/" in text.read()
    end = flags.index("-o")
    how = ["-O2", "-c", "-o", os.devnull] if kernels else ["-fsyntax-only"]
    kept = [flag for flag in flags[:end] if not re.match(r"-O|-g|-Werror|-m", flag)]
    result = subprocess.run([COMPILER, *kept, *how, *HEADERS, file], cwd=folder, capture_output=True, text=True)
    return path, kernels, result.stderr if result.returncode else ""


def main():
    if len(sys.argv) < 2:
        sys.exit(f"usage: {sys.argv[0]} BUILD_FOLDER [PATH ...]")
    if not shutil.which(COMPILER):
        print(f"skipped: {COMPILER} is not there; apt-get install g++-aarch64-linux-gnu")
        sys.exit(77)
    paths = sys.argv[2:] or PATHS
    checked = compiled = failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, kernels, complaint in pool.map(lambda each: check(*each), commands(sys.argv[1], paths)):
            checked, compiled, failed = checked + 1, compiled + kernels, failed + bool(complaint)
            if complaint:
                print(f"{path}: " + "\n".join(complaint.splitlines()[:8]), flush=True)
    print(f"{checked} files of {', '.join(paths)}: {compiled} compiled, {checked - compiled} parsed, {failed} of them with errors")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
