#!/usr/bin/env python3
"""What a call of the server costs, beside the cheapest call that there is.

    bench/load_bench.py --model m.safetensors

starts `nestrec serve` on one core and `nestrec bench load` on another, and prints a table: the calls per second that the
server sustains at every dim, with the history in a session and sent along, as a share of what it sustains of GetModelInfo,
which runs no model; and the tail at half of that load. The shares are of one run, so that a slower machine, or one that does
something else at the same time, changes both sides of each. Every figure is the median of the rounds.

It needs nothing but Python, the program, and two cores (with one, both share it, and the table says so).
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nestrec", default=str(ROOT / "build/release/cli/nestrec"), help="the program")
    parser.add_argument("--model", required=True, help="checkpoint")
    parser.add_argument("--dims", help="such as 8,64 (default: all of the model)")
    parser.add_argument("--index", default="auto", help="index of every dim (default: %(default)s, the server's choice)")
    parser.add_argument("--own-cores", action="store_true", help="start the server with --own-cores")
    parser.add_argument("--users", type=int, default=1000, help="sessions (default: %(default)s)")
    parser.add_argument("--history", type=int, default=50, help="items of a history (default: %(default)s)")
    parser.add_argument("--k", type=int, default=10, help="items to ask for (default: %(default)s)")
    parser.add_argument("--duration", default="3s", help="of each rate that is tried (default: %(default)s)")
    parser.add_argument("--within", default="50ms", help="later answers do not count (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="medians are over so many (default: %(default)s)")
    parser.add_argument("--cores", default=None, help="server's and generator's core (default: the first two allowed)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    return parser.parse_args()


class Server:
    """`nestrec serve` on one core, for the length of a with block."""

    def __init__(self, args, core, folder):
        self.args, self.core, self.folder = args, core, folder

    def __enter__(self):
        config = self.folder / "tiers.textproto"
        dims = dims_of(self.args)
        config.write_text("".join(
            f'tiers {{ name: "dim{dim}" dim: {dim} index: "{self.args.index}" }}\n' for dim in dims))
        port_file = self.folder / "port"
        self.log = open(self.folder / "server.log", "w+")
        self.process = subprocess.Popen(
            ["taskset", "-c", str(self.core), self.args.nestrec, "serve", "--model", self.args.model, "--config", str(config),
             "--listen", "127.0.0.1:0", "--port-file", str(port_file), "--threads", "1", "--index-folder", "none",
             "--sessions", str(self.folder / "sessions"), *(["--own-cores"] if self.args.own_cores else [])],
            stderr=self.log)
        end = time.monotonic() + 600
        while not (port_file.exists() and port_file.read_text().strip()):
            if self.process.poll() is not None or time.monotonic() > end:
                self.log.seek(0)
                sys.exit(f"load_bench: the server did not come up:\n{self.log.read()}")
            time.sleep(0.05)
        self.address = f"127.0.0.1:{port_file.read_text().strip()}"
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.log.close()


def dims_of(args):
    if args.dims:
        return [int(dim) for dim in args.dims.split(",")]
    output = subprocess.run([args.nestrec, "inspect", args.model], check=True, capture_output=True, text=True).stdout
    line = next(line for line in output.splitlines() if line.startswith("sizes"))
    return [int(dim) for dim in line.split()[1].split(",")]


def load(args, server, core, *flags):
    """The rows of one `nestrec bench load`."""
    command = ["taskset", "-c", str(core), args.nestrec, "bench", "load", "--server", server.address, "--json",
               "--duration", args.duration, "--warmup", "500ms", "--within", args.within, "--connections", "1", *flags]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"load_bench: {' '.join(command)}:\n{result.stderr}")
    return [json.loads(line) for line in result.stdout.splitlines()]


def measure(args, server, core, flags, first_rate):
    """Saturation, then the latencies at half of it."""
    sweep = load(args, server, core, *flags, "--sweep", "--rate", str(first_rate))
    sustained = sweep[-1]["sustained_per_second"]
    if sustained == 0:
        sys.exit(f"load_bench: the server sustains no load with {' '.join(flags)}")
    half = load(args, server, core, *flags, "--rate", str(sustained / 2))[0]
    latency = half["latency_ms"]
    return {"sustained": sustained, "p50": latency["p50"], "p99": latency["p99"],
            "generator": max(row["generator_cpu"] for row in sweep if "generator_cpu" in row)}


def median_of(rounds):
    return {key: statistics.median(of_round[key] for of_round in rounds) for key in rounds[0]}


def main():
    args = arguments()
    cores = [int(core) for core in args.cores.split(",")] if args.cores else sorted(os.sched_getaffinity(0))
    server_core, generator_core = cores[0], cores[1 % len(cores)]
    kinds = [("empty", None, ["--rpc", "info"])]
    for dim in dims_of(args):
        mix = ["--tier", f"dim{dim}", "--k", str(args.k), "--history", str(args.history), "--model", args.model]
        kinds.append(("session", dim, [*mix, "--users", str(args.users)]))
        kinds.append(("stateless", dim, mix))
    rounds = {(kind, dim): [] for kind, dim, _ in kinds}
    with tempfile.TemporaryDirectory() as folder, Server(args, server_core, Path(folder)) as server:
        for _ in range(args.rounds):
            rate = 1000
            for kind, dim, flags in kinds:
                result = measure(args, server, generator_core, flags, rate)
                rounds[kind, dim].append(result)
                rate = max(50, result["sustained"] / 4)
                print(f"load_bench: {kind} {dim or ''}: {result}", file=sys.stderr)
    results = {key: median_of(of_kind) for key, of_kind in rounds.items()}
    if args.json:
        print(json.dumps([{"kind": kind, "dim": dim, **result} for (kind, dim), result in results.items()]))
        return
    empty = results["empty", None]
    print(f"GetModelInfo: {empty['sustained']:.0f} calls/s; at half load p50 {empty['p50']:.2f} ms, p99 {empty['p99']:.2f} ms, "
          f"p99/p50 {empty['p99'] / empty['p50']:.1f}. "
          f"{'Server and generator on a core each' if server_core != generator_core else 'Server and generator share a core'}, "
          f"{'threads do not interrupt each other, ' if args.own_cores else ''}index {args.index}, k {args.k}, histories of {args.history}, within {args.within}.\n")
    print("| dim | session, calls/s | of GetModelInfo's | p50 ms | p99 ms | p99/p50 | stateless, calls/s | of GetModelInfo's | p99/p50 |")
    print("|---|---|---|---|---|---|---|---|---|")
    for dim in dims_of(args):
        session, stateless = results["session", dim], results["stateless", dim]
        print(f"| {dim} | {session['sustained']:.0f} | {session['sustained'] / empty['sustained']:.0%} | {session['p50']:.2f} | "
              f"{session['p99']:.2f} | {session['p99'] / session['p50']:.1f} | {stateless['sustained']:.0f} | "
              f"{stateless['sustained'] / empty['sustained']:.0%} | {stateless['p99'] / stateless['p50']:.1f} |")
    busiest = max(result["generator"] for result in results.values())
    if busiest > 0.9:
        print(f"\nThe generator was {busiest:.0%} busy: it may have been what limited.")


if __name__ == "__main__":
    main()
