#!/usr/bin/env python3
"""What a server does with three times the load that it can bear, and how soon it is itself again.

    bench/overload_bench.py --model m.safetensors

starts `nestrec serve` on one core with a tier that has all widths, and `nestrec bench load` on another. It looks for the load that
saturates the tier's narrowest width and its widest, then sends a tenth of the latter all the time and, for a while, calls
on top up to three times the former, all with a latency budget and a deadline. It prints, all of one run:

  goodput   answers within the budget, of what the narrowest width sustains
  p99       of what was answered, of the budget
  refused   calls turned away; other errors apart
  memory    resident bytes at the end of the overload, of those before
  recovery  seconds from the end of the overload to the last answer that was not of full width

It needs nothing but Python, the program, and two cores.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nestrec", default=str(ROOT / "build/release/cli/nestrec"), help="the program")
    parser.add_argument("--model", required=True, help="checkpoint")
    parser.add_argument("--min-dim", type=int, help="the tier's narrowest width (default: the model's)")
    parser.add_argument("--own-cores", action="store_true", help="start the server with --own-cores")
    parser.add_argument("--times", type=float, default=3, help="the overload, of what the narrowest width bears (default: %(default)s)")
    parser.add_argument("--budget", type=int, default=50, help="milliseconds (default: %(default)s)")
    parser.add_argument("--duration", type=int, default=10, help="seconds of the overload (default: %(default)s)")
    parser.add_argument("--history", type=int, default=50, help="items of a history (default: %(default)s)")
    parser.add_argument("--k", type=int, default=10, help="items to ask for (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=4, help="of the overload (default: %(default)s)")
    parser.add_argument("--cores", default=None, help="server's and generator's core (default: the first two allowed)")
    parser.add_argument("--json", action="store_true", help="one object instead of the table")
    return parser.parse_args()


def sizes_of(args):
    output = subprocess.run([args.nestrec, "inspect", "--no-verify", args.model], check=True, capture_output=True, text=True).stdout
    return [int(dim) for dim in next(line for line in output.splitlines() if line.startswith("sizes")).split()[1].split(",")]


class Server:
    """`nestrec serve` on one core, for the length of a with block."""

    def __init__(self, args, core, dims, folder):
        config = folder / "tiers.textproto"
        config.write_text(f'tiers {{ name: "all" min_dim: {dims[0]} max_dim: {dims[-1]} queue_share: 1 }}\n')
        self.log = folder / "log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                ["taskset", "-c", str(core), args.nestrec, "serve", "--model", args.model, "--config", str(config), "--threads", "1",
                 "--index-folder", "none", "--listen", "127.0.0.1:0", "--port-file", str(folder / "port"),
                 "--http-listen", "127.0.0.1:0", "--http-port-file", str(folder / "http"), *(["--own-cores"] if args.own_cores else [])],
                stderr=log)
        self.address, self.http = (f"127.0.0.1:{self.port(folder / name)}" for name in ("port", "http"))

    def port(self, file):
        while not (file.exists() and file.read_text().strip()):
            if self.process.poll() is not None:
                sys.exit(f"overload_bench: the server did not come up:\n{self.log.read_text()}")
            time.sleep(0.05)
        return file.read_text().strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def resident_mib(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"^VmRSS:\s+(\d+) kB", status.read(), re.M).group(1)) / 1024

    def narrower(self, full):
        """Answers so far of less than full width."""
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=10) as answer:
            served = re.findall(r'^nestrec_served_total\{dim="(\d+)",.*?\} (\d+)', answer.read().decode(), re.M)
        return sum(int(count) for dim, count in served if int(dim) < full)


def start(args, server, core, *flags):
    return subprocess.Popen(
        ["taskset", "-c", str(core), args.nestrec, "bench", "load", "--server", server.address, "--json", "--model", args.model,
         "--k", str(args.k), "--history", str(args.history), "--within", f"{args.budget}ms", *flags],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def rows(load):
    output, error = load.communicate()
    if load.returncode != 0:
        sys.exit(f"overload_bench: nestrec bench load:\n{error}")
    return [json.loads(line) for line in output.splitlines()]


def sustained(args, server, core, dim, first_rate):
    row = rows(start(args, server, core, "--dim", str(dim), "--sweep", "--rate", str(first_rate), "--duration", "2s", "--warmup", "500ms"))[-1]
    if row["sustained_per_second"] == 0:
        sys.exit(f"overload_bench: the server sustains no load at dim {dim}")
    return row["sustained_per_second"]


def recovery(server, full):
    """Seconds from now to the last answer of less than full width, of the next three."""
    began = time.monotonic()
    before, last = server.narrower(full), 0.0
    while time.monotonic() < began + 3:
        time.sleep(0.02)
        now = server.narrower(full)
        if now > before:
            before, last = now, time.monotonic() - began
    return last


def measure(args, cores):
    sizes = sizes_of(args)
    dims = [dim for dim in sizes if dim >= (args.min_dim or sizes[0])]
    with tempfile.TemporaryDirectory() as folder, Server(args, cores[0], dims, Path(folder)) as server:
        widest = sustained(args, server, cores[1], dims[-1], 200)
        peak = sustained(args, server, cores[1], dims[0], widest / 2)
        mix = ["--tier", "all", "--latency-budget", f"{args.budget}ms", "--deadline", f"{2 * args.budget}ms", "--warmup", "0s"]
        base = start(args, server, cores[1], *mix, "--rate", str(widest / 10), "--duration", f"{args.duration + 8}s")
        time.sleep(3)
        memory = server.resident_mib()
        load = start(args, server, cores[1], *mix, "--rate", str(args.times * peak - widest / 10), "--duration", f"{args.duration}s",
                     "--connections", str(args.connections))
        time.sleep(args.duration)
        grown = server.resident_mib()
        over = rows(load)[0]
        recovered = recovery(server, dims[-1])
        base = rows(base)[0]
    refused = over["errors"].get("RESOURCE_EXHAUSTED", 0)
    return {"min_dim": dims[0], "max_dim": dims[-1], "widest_per_second": widest, "narrowest_per_second": peak,
            "offered_per_second": over["offered_per_second"] + widest / 10,
            # What the steady calls added in that time is not told apart, so that this is the least that it can have been.
            "goodput_ratio": over["goodput_per_second"] / peak, "p50_ms": over["latency_ms"]["p50"], "p99_ms": over["latency_ms"]["p99"],
            "p99_of_budget": over["latency_ms"]["p99"] / args.budget, "dims": over["dims"],
            "refused": refused, "other_errors": {code: count for code, count in over["errors"].items() if code != "RESOURCE_EXHAUSTED"},
            "not_sent": over["not_sent"], "memory_ratio": grown / memory, "recovery_s": recovered,
            "steady": {key: base[key] for key in ("answered", "errors", "dims")}, "generator_cpu": over["generator_cpu"]}


def main():
    args = arguments()
    cores = [int(core) for core in args.cores.split(",")] if args.cores else sorted(os.sched_getaffinity(0))
    row = measure(args, [cores[0], cores[1 % len(cores)]])
    if args.json:
        print(json.dumps(row))
        return
    print(f"A tier of dims {row['min_dim']} to {row['max_dim']}, which alone sustain {row['narrowest_per_second']:.0f} and "
          f"{row['widest_per_second']:.0f} calls/s within {args.budget} ms; {row['offered_per_second']:.0f} calls/s for {args.duration} s\n")
    print("| goodput, of the narrowest's | p50 ms | p99 ms | p99, of the budget | refused | other errors | memory, of before | full width after |")
    print("|---|---|---|---|---|---|---|---|")
    print(f"| {row['goodput_ratio']:.0%} | {row['p50_ms']:.1f} | {row['p99_ms']:.1f} | {row['p99_of_budget']:.0%} | {row['refused']} | "
          f"{row['other_errors'] or 0} | {row['memory_ratio']:.3f} | {row['recovery_s']:.2f} s |")
    print(f"\nDims answered: {row['dims']}; the generator was {row['generator_cpu']:.0%} busy and sent {row['not_sent']} calls too late to count.")
    if row["generator_cpu"] > 0.8:
        print("So much that it sends late: of the server this says little. A tier whose narrowest width is more work (--min-dim) is measured well.")


if __name__ == "__main__":
    main()
