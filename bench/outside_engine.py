#!/usr/bin/env python3
"""What serving with items in another engine costs: the two halves of a call, apart (docs/scaling.md).

    bench/outside_engine.py calls --model m.safetensors --dims 64,256
    bench/outside_engine.py engine --items 10000000 --dim 64

  calls    Recommend and Encode of the same histories in turns: the server's own time, medians, and its processor's time per call, all of gRPC
           included; then what a server and one with --encode-only have resident once both have answered the same number of Encode calls
  engine   FAISS, one thread: bytes an item and time a query of IVF<lists>,PQ<dim/2>x4fs (4 bits a code of two columns), --share of the lists looked at.
           Vectors are random around 10,000 centres: what the search reads and takes does not depend on them, its recall does and is not told.

`calls` needs grpcio, protobuf, protoc and grpc_python_plugin, `engine` numpy and faiss-cpu.
"""
import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    calls = commands.add_parser("calls")
    calls.add_argument("--nestrec", default=str(ROOT / "build/release/cli/nestrec"), help="the program")
    calls.add_argument("--model", required=True, help="checkpoint")
    calls.add_argument("--dims", default="64", help="widths, separated by commas (default: %(default)s)")
    calls.add_argument("--history", type=int, default=20, help="items of a history (default: %(default)s)")
    calls.add_argument("--calls", type=int, default=2000, help="of each kind and width (default: %(default)s)")
    calls.set_defaults(run=run_calls)
    engine = commands.add_parser("engine")
    engine.add_argument("--items", type=int, default=1_000_000, help="(default: %(default)s)")
    engine.add_argument("--dim", type=int, default=64, help="(default: %(default)s)")
    engine.add_argument("--lists", type=int, default=4096, help="(default: %(default)s)")
    engine.add_argument("--share", type=float, default=0.01, help="of the lists that a query looks at (default: %(default)s)")
    engine.add_argument("--queries", type=int, default=200, help="(default: %(default)s)")
    engine.set_defaults(run=run_engine)
    return parser.parse_args()


class Server:
    """`nestrec serve` with one worker, for the length of a with block."""

    def __init__(self, args, *flags):
        self.command = [args.nestrec, "serve", "--model", args.model, "--listen", "127.0.0.1:0", "--threads", "1", *flags]

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        port = Path(self.folder.name, "port")
        self.process = subprocess.Popen([*self.command, "--port-file", str(port)], stderr=subprocess.DEVNULL)
        while not port.exists():
            if self.process.poll() is not None:
                sys.exit(f"outside_engine: the server ended: {' '.join(self.command)}")
            time.sleep(0.05)
        self.address = f"127.0.0.1:{port.read_text().strip()}"
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mib(self):
        kib = {line.split(":")[0]: int(line.split()[1]) for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines() if "kB" in line}
        return kib["RssAnon"] / 1024, kib["RssFile"] / 1024


def run_calls(args):
    import grpc
    with tempfile.TemporaryDirectory() as stubs:
        subprocess.run(["protoc", "-I", str(ROOT / "proto"), f"--python_out={stubs}", f"--grpc_python_out={stubs}",
                        f"--plugin=protoc-gen-grpc_python={shutil.which('grpc_python_plugin')}", "nestrec/v1/recommend.proto"], check=True)
        sys.path.insert(0, stubs)
        from nestrec.v1 import recommend_pb2 as v1
        from nestrec.v1 import recommend_pb2_grpc
    random.seed(1)

    def service_of(server):
        return recommend_pb2_grpc.RecommendServiceStub(grpc.insecure_channel(server.address))

    print("| dim | Recommend, 10 items | Encode | processor time, Recommend | Encode |\n|---|---|---|---|---|")
    with Server(args) as server:
        service = service_of(server)
        info = service.GetModelInfo(v1.GetModelInfoRequest())
        # Every item of the catalogue by name, from the widest answer that one call gives.
        ids = [item.item_id for item in service.Recommend(v1.RecommendRequest(k=1000)).items]
        histories = [random.sample(ids, args.history) for _ in range(args.calls)]
        for dim in (int(text) for text in args.dims.split(",")):
            kinds = {"Recommend": lambda history: service.Recommend(v1.RecommendRequest(history_item_ids=history, dim=dim)),
                     "Encode": lambda history: service.Encode(v1.EncodeRequest(history_item_ids=history, dim=dim))}
            times, cpu = {kind: [] for kind in kinds}, dict.fromkeys(kinds, 0.0)
            for begin in range(0, args.calls, 100):  # in turns, so that both meet the same neighbours
                for kind, call in kinds.items():
                    before = server.cpu_seconds()
                    times[kind] += [call(history).served.timings.total.ToNanoseconds() for history in histories[begin:begin + 100]]
                    cpu[kind] += server.cpu_seconds() - before
            print(f"| {dim} |" + "".join(f" {statistics.median(times[kind]) / 1e3:.0f} us |" for kind in kinds)
                  + "".join(f" {cpu[kind] / args.calls * 1e6:.0f} us |" for kind in kinds), flush=True)
    widest = max(int(text) for text in args.dims.split(","))
    print(f"\n{info.item_count} items, histories of {args.history}, one worker\n\n| --max-dim {widest} | own memory | pages of files |\n|---|---|---|")
    for name, flags in (("all calls", ()), ("--encode-only", ("--encode-only",))):
        with Server(args, "--max-dim", str(widest), *flags) as server:
            service = service_of(server)
            for history in histories:
                service.Encode(v1.EncodeRequest(history_item_ids=history))
            anonymous, files = server.resident_mib()
            print(f"| {name} | {anonymous:.0f} MiB | {files:.0f} MiB |", flush=True)


def run_engine(args):
    import faiss
    import numpy
    faiss.omp_set_num_threads(1)
    rng = numpy.random.default_rng(1)
    centres = rng.standard_normal((10_000, args.dim), dtype=numpy.float32)

    def vectors(count):
        return centres[rng.integers(len(centres), size=count)] + 0.5 * rng.standard_normal((count, args.dim), dtype=numpy.float32)

    name = f"IVF{args.lists},PQ{args.dim // 2}x4fs"
    index = faiss.index_factory(args.dim, name, faiss.METRIC_INNER_PRODUCT)
    begun = time.monotonic()
    index.train(vectors(min(args.items, 40 * args.lists)))
    trained = time.monotonic()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for begin in range(0, args.items, 100_000):
        index.add(vectors(min(100_000, args.items - begin)))
    added = time.monotonic()
    index.nprobe = max(1, round(args.share * args.lists))
    queries = vectors(args.queries)
    times = []
    for query in queries:
        start = time.monotonic()
        index.search(query[None], 1000)
        times.append(time.monotonic() - start)
    lists = index.invlists
    held = sum(lists.list_size(number) for number in range(lists.nlist)) * (index.code_size + 8)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident) * 1024
    times.sort()
    print(json.dumps({"index": name, "items": args.items, "dim": args.dim, "nprobe": index.nprobe, "bytes_per_item": round(held / args.items, 1),
                      "resident_bytes_per_item": round(grown / args.items, 1), "query_ms_p50": round(1e3 * times[len(times) // 2], 3),
                      "query_ms_p95": round(1e3 * times[int(0.95 * len(times))], 3), "train_s": round(trained - begun, 1),
                      "add_us_per_item": round(1e6 * (added - trained) / args.items, 2), "faiss": faiss.__version__}))


if __name__ == "__main__":
    args = arguments()
    args.run(args)
