#!/usr/bin/env python3
"""What a change of models costs those who call meanwhile, what it leaves in memory, and how long a start takes.

    bench/reload_bench.py --model m.safetensors [--large big.safetensors]

Three tables, each with its baseline in the same run:

  calls    latencies at one rate, first undisturbed, then while a version after the other comes into the server's model
           folder; server on one core, generator on another
  memory   resident bytes after 5, 20 and 100 reloads
  start    from the start of the program to the first answer, for --model and for --large, over the time that
           `nestrec inspect` takes, which opens and verifies the same file and builds nothing

It needs nothing but Python, the program, and two cores.
"""
import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nestrec", default=str(ROOT / "build/release/cli/nestrec"), help="the program")
    parser.add_argument("--model", required=True, help="checkpoint")
    parser.add_argument("--large", help="another one, for the start alone")
    parser.add_argument("--rate", type=float, default=500, help="calls per second (default: %(default)s)")
    parser.add_argument("--duration", type=int, default=20, help="seconds of each measurement (default: %(default)s)")
    parser.add_argument("--every", type=float, default=4, help="seconds between versions (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="medians are over so many (default: %(default)s)")
    parser.add_argument("--reloads", type=int, default=100, help="for the memory (default: %(default)s)")
    parser.add_argument("--cores", default=None, help="server's and generator's core (default: the first two allowed)")
    parser.add_argument("--json", action="store_true", help="one object per row instead of the tables")
    return parser.parse_args()


class Server:
    """`nestrec serve` for the length of a with block."""

    def __init__(self, args, model, core=None):
        self.args, self.model, self.core = args, model, core

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        port = Path(self.folder.name, "port")
        command = ["taskset", "-c", str(self.core)] if self.core is not None else []
        command += [self.args.nestrec, "serve", "--model", str(self.model), "--listen", "127.0.0.1:0", "--port-file", str(port),
                    "--admin-listen", "127.0.0.1:0", "--model-poll", "100ms", "--index-folder", "none"]
        self.log = open(Path(self.folder.name, "log"), "w+")
        begun = time.monotonic()
        self.process = subprocess.Popen(command, stderr=self.log)
        serving = None
        while serving is None:
            serving = re.search(r" serving .*?admin_address=(\S+)", Path(self.log.name).read_text())
            if self.process.poll() is not None:
                sys.exit(f"reload_bench: the server did not come up:\n{Path(self.log.name).read_text()}")
            time.sleep(0.005)
        self.ready_seconds = time.monotonic() - begun
        self.address, self.admin = f"127.0.0.1:{port.read_text().strip()}", serving.group(1)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.log.close()
        self.folder.cleanup()

    def resident_mib(self):
        """The least of a second: what the last model had goes back to the system behind all other work."""
        def now():
            time.sleep(0.05)
            with open(f"/proc/{self.process.pid}/status") as status:
                return int(re.search(r"^VmRSS:\s+(\d+) kB", status.read(), re.M).group(1)) / 1024
        return min(now() for _ in range(20))

    def wait_for(self, version):
        """Until this version serves and the one before is gone from memory."""
        end = time.monotonic() + 600
        while time.monotonic() < end:
            page = run(self.args, "admin", "status", "--server", self.admin)
            if re.search(rf"^{re.escape(version)}\s.*stable", page, re.M) and not re.search(r"\bdraining\b", page, re.I):
                return
            time.sleep(0.05)
        sys.exit(f"reload_bench: {version} does not serve alone after 600 s:\n{page}")


def run(args, *arguments):
    result = subprocess.run([args.nestrec, *arguments], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"reload_bench: nestrec {' '.join(arguments)}:\n{result.stderr}")
    return result.stdout


def put(model, folder, number):
    """A new version appears as a whole, under a name that sorts last."""
    name = f"v{number:04}.safetensors"
    part = Path(folder, f".{name}.part")
    shutil.copyfile(model, part)
    part.rename(Path(folder, name))
    for old in sorted(Path(folder).glob("v*.safetensors"))[:-2]:
        old.unlink()
    return name.removesuffix(".safetensors")


def load(args, server, core):
    output = subprocess.run(
        ["taskset", "-c", str(core), args.nestrec, "bench", "load", "--server", server.address, "--json", "--rate", str(args.rate),
         "--duration", f"{args.duration}s", "--warmup", "2s", "--model", str(args.model)], capture_output=True, text=True)
    if output.returncode != 0:
        sys.exit(f"reload_bench: nestrec bench load:\n{output.stderr}")
    return json.loads(output.stdout.splitlines()[-1])


def measure_calls(args, cores):
    rows = {"undisturbed": [], "while models change": []}
    reloads = 0
    with tempfile.TemporaryDirectory() as folder:
        put(args.model, folder, 0)
        with Server(args, folder, cores[0]) as server:
            number = 0
            for _ in range(args.rounds):
                rows["undisturbed"].append(load(args, server, cores[1]))
                done = threading.Event()
                before = number

                def keep_putting():
                    nonlocal number
                    while not done.wait(args.every):
                        number += 1
                        put(args.model, folder, number)

                putting = threading.Thread(target=keep_putting)
                putting.start()
                rows["while models change"].append(load(args, server, cores[1]))
                done.set()
                putting.join()
                server.wait_for(f"v{number:04}")
                reloads += number - before
    base = statistics.median(row["latency_ms"]["p99"] for row in rows["undisturbed"])
    for name, of_name in rows.items():
        p99 = statistics.median(row["latency_ms"]["p99"] for row in of_name)
        yield {"table": "calls", "row": name, "reloads": 0 if name == "undisturbed" else reloads,
               "p50_ms": statistics.median(row["latency_ms"]["p50"] for row in of_name), "p99_ms": p99, "p99_ratio": p99 / base,
               "failed": sum(sum(row["errors"].values()) + row["not_sent"] for row in of_name),
               "answered": sum(row["answered"] for row in of_name)}


def measure_memory(args):
    with tempfile.TemporaryDirectory() as folder:
        put(args.model, folder, 0)
        with Server(args, folder) as server:
            base = None
            for number in range(1, args.reloads + 1):
                server.wait_for(put(args.model, folder, number))
                if number in (5, 20, args.reloads):
                    resident = server.resident_mib()
                    base = base or resident
                    yield {"table": "memory", "row": f"after {number} reloads", "mib": resident, "ratio": resident / base}


def measure_start(args):
    for model in filter(None, (args.model, args.large)):
        ready, inspected = [], []
        for _ in range(args.rounds):
            begun = time.monotonic()
            run(args, "inspect", str(model))
            inspected.append(time.monotonic() - begun)
            with Server(args, model) as server:
                ready.append(server.ready_seconds)
        items = re.search(r"^items +(\d+)", run(args, "inspect", "--no-verify", str(model)), re.M).group(1)
        yield {"table": "start", "row": f"{items} items, {os.path.getsize(model) / 2**20:.0f} MiB", "ready_s": statistics.median(ready),
               "of_inspect": statistics.median(ready) / statistics.median(inspected)}


HEADS = {"calls": "| calls | reloads | p50 ms | p99 ms | of undisturbed | failed |\n|---|---|---|---|---|---|",
         "memory": "| memory | MiB | ratio |\n|---|---|---|",
         "start": "| start to first answer | seconds | of nestrec inspect |\n|---|---|---|"}
ROWS = {"calls": "| {row} | {reloads} | {p50_ms:.2f} | {p99_ms:.2f} | {p99_ratio:.2f} | {failed} of {answered} |",
        "memory": "| {row} | {mib:.0f} | {ratio:.3f} |", "start": "| {row} | {ready_s:.2f} | {of_inspect:.1f} |"}


def main():
    args = arguments()
    cores = [int(core) for core in args.cores.split(",")] if args.cores else sorted(os.sched_getaffinity(0))
    cores = [cores[0], cores[1 % len(cores)]]
    for measurement in (measure_calls(args, cores), measure_memory(args), measure_start(args)):
        headed = False
        for row in measurement:
            if args.json:
                print(json.dumps(row), flush=True)
                continue
            if not headed:
                print(f"\n{HEADS[row['table']]}")
            headed = True
            print(ROWS[row["table"]].format(**row), flush=True)


if __name__ == "__main__":
    main()
