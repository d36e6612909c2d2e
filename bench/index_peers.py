#!/usr/bin/env python3
"""Exact searches of other libraries and of index_bench in turns, on the same vectors: faiss-cpu and usearch from PyPI.

  build/release/bench/index_bench --model m.safetensors --data data --items 1000000 --vectors folder --queries 32 ...
  bench/index_peers.py folder --bench build/release/bench/index_bench --model m.safetensors --data data [--core 1]

index_bench runs beside this program and searches when it is told to (--pipe). Every query is asked of a peer, of FAISS's flat scan (1.7.3,
AVX2 build) and of the nested index, one after the other, before the next query comes; who begins changes from query to query. Peers hold a
copy of the vectors each, so they are built one after the other, and each has turns of its own with index_bench. One thread, figures are medians. A library
that is not installed is named and left out.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

try:
    import numpy as np
except ImportError:
    sys.exit("index_peers: numpy is not installed; pip install numpy faiss-cpu usearch")

ROWS_AT_ONCE = 100_000


def added(index, items, change=lambda rows: rows):
    for begin in range(0, len(items), ROWS_AT_ONCE):
        index.add(np.ascontiguousarray(change(items[begin : begin + ROWS_AT_ONCE])))
    return index


def faiss_peers(items):
    """Yields (name, make), make returning a search of one query."""
    try:
        import faiss
    except ImportError:
        print("left out: faiss-cpu is not installed (pip install faiss-cpu)", file=sys.stderr)
        return
    faiss.omp_set_num_threads(1)
    dim = items.shape[1]
    levels = max(1, min(16, dim // 64))

    def flat(make):
        def build():
            index = added(make(), items)
            return lambda query, k: index.search(query[None], k)[1][0]

        return build

    def turned():
        # Its bounds want the energy in front: the rotation that its documentation advises.
        rotation = faiss.PCAMatrix(dim, dim)
        rotation.train(np.ascontiguousarray(items[: min(len(items), 20_000)]))
        matrix = faiss.vector_to_array(rotation.A).reshape(dim, dim)
        index = added(faiss.IndexFlatIPPanorama(dim, levels), items, lambda rows: rows @ matrix.T)
        # A rotation alone, without the centre, keeps inner products.
        return lambda query, k: index.search((matrix @ query)[None], k)[1][0]

    version = f"faiss-cpu {faiss.__version__}"
    yield f"{version} IndexFlatIP", flat(lambda: faiss.IndexFlatIP(dim))
    if not hasattr(faiss, "IndexFlatIPPanorama"):
        print(f"left out: {version} has no IndexFlatIPPanorama", file=sys.stderr)
        return
    yield f"{version} IndexFlatIPPanorama({levels})", flat(lambda: faiss.IndexFlatIPPanorama(dim, levels))
    yield f"{version} PCA, IndexFlatIPPanorama({levels})", turned


def usearch_peers(items):
    try:
        import usearch
        from usearch.index import MetricKind, search
    except ImportError:
        print("left out: usearch is not installed (pip install usearch)", file=sys.stderr)
        return

    def exact():
        copy = np.ascontiguousarray(items)
        return lambda query, k: search(copy, query, k, MetricKind.IP, exact=True, threads=1).keys

    yield f"usearch {usearch.__version__} exact", exact


class IndexBench:
    """index_bench as a process beside this one."""

    WANTED = ("faiss IndexFlatIP", "nested, exact", "nested, recall 0.99")

    def __init__(self, arguments, items):
        command = [arguments.bench, "--model", arguments.model, "--vectors", str(arguments.folder), "--pipe"]
        command += ["--items", str(len(items)), "--dim", str(items.shape[1]), "--k", str(arguments.k)]
        command += ["--queries", str(arguments.queries), "--examples", str(arguments.examples)]
        for flag in ("data", "codes"):
            if getattr(arguments, flag):
                command += [f"--{flag}", getattr(arguments, flag)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        ready = self.process.stdout.readline()
        if not ready:
            sys.exit(f"index_peers: {arguments.bench} ended with {self.process.wait()}")
        names = [method["name"] for method in json.loads(ready)["methods"]]
        self.methods = {name: names.index(name) for name in self.WANTED}

    def search(self, name, row):
        """Seconds, as index_bench measured them, and item rows."""
        self.process.stdin.write(f"{self.methods[name]} {row}\n")
        self.process.stdin.flush()
        seconds, *found = self.process.stdout.readline().split()
        return float(seconds), [int(item) - 1 for item in found]

    def end(self):
        self.process.stdin.close()
        return self.process.wait()


def truth(items, queries, k):
    best = []
    scores = np.concatenate([queries @ items[begin : begin + 50_000].T for begin in range(0, len(items), 50_000)], 1)
    for row in scores:
        best.append(set(np.argpartition(-row, k - 1)[:k].tolist()))
    return best


def turns(name, search, bench, queries, best, arguments):
    """A row of figures for each method, all of the same turns."""

    def of_peer(i):
        begin = time.perf_counter()
        found = search(queries[i], arguments.k)
        return time.perf_counter() - begin, found

    def of_bench(method):
        return lambda i: bench.search(method, arguments.examples + i)

    methods = [(name, of_peer)] + [(method, of_bench(method)) for method in bench.WANTED]
    for _, ask in methods:
        ask(0)
    seconds = [[] for _ in methods]
    hits = [0 for _ in methods]
    for i in range(len(queries)):
        for turn in range(len(methods)):
            at = (turn + i) % len(methods)
            took, found = methods[at][1](i)
            seconds[at].append(took)
            hits[at] += len(best[i].intersection(int(item) for item in found))
    medians = [sorted(each)[len(each) // 2] for each in seconds]
    for at, (method, _) in enumerate(methods):
        yield {
            "turns_with": name,
            "method": method,
            "milliseconds": round(1e3 * medians[at], 3),
            "of_flat": round(medians[1] / medians[at], 2),
            "of_peer": round(medians[0] / medians[at], 2),
            "recall": round(hits[at] / (arguments.k * len(queries)), 4),
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="where index_bench --vectors kept items.npy and queries.npy")
    parser.add_argument("--bench", required=True, help="the program index_bench")
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", help="as index_bench was given it: the queries must be the same")
    parser.add_argument("--codes", help="folder in which index_bench keeps codes")
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--queries", type=int, default=32, help="as index_bench was given it")
    parser.add_argument("--examples", type=int, default=1000, help="as index_bench was given it")
    parser.add_argument("--core", type=int, help="the one that both programs search on (default: any)")
    parser.add_argument("--only", default="", help="only peers whose name holds this")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    items = np.load(arguments.folder / "items.npy", mmap_mode="r")
    bench = IndexBench(arguments, items)
    queries = np.load(arguments.folder / "queries.npy")[arguments.examples :]
    best = truth(items, queries, arguments.k)
    if not arguments.json:
        print(f"{len(items)} items of dim {items.shape[1]}, top {arguments.k}, {len(queries)} queries, one thread")
    for source in (faiss_peers, usearch_peers):
        for name, make in source(items):
            if arguments.only not in name:
                continue
            begin = time.perf_counter()
            search = make()
            build_seconds = time.perf_counter() - begin
            cores = os.sched_getaffinity(0)
            for process in (0, bench.process.pid):
                if arguments.core is not None:
                    os.sched_setaffinity(process, {arguments.core})
            if not arguments.json:
                print(f"\nin turns with {name}, built in {build_seconds:.1f} s", flush=True)
            for row in turns(name, search, bench, queries, best, arguments):
                if arguments.json:
                    print(json.dumps(row), flush=True)
                else:
                    print(
                        f"{row['method']:48} {row['milliseconds']:10.3f} ms {row['of_flat']:7.2f}x of IndexFlatIP "
                        f"{row['of_peer']:7.2f}x of the peer  recall {row['recall']:.4f}",
                        flush=True,
                    )
            os.sched_setaffinity(0, cores)
            del search
    return bench.end()


if __name__ == "__main__":
    sys.exit(main())
