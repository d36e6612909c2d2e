#!/usr/bin/env python3
"""What other libraries take for the vectors that index_bench kept: faiss-cpu and usearch from PyPI.

  build/release/bench/index_bench --model m.safetensors --vectors folder ...
  bench/index_peers.py folder --k 100 [--queries 32] [--examples 1000] [--json]

One thread. Every query alone, methods in turns, medians. A library that is not installed is named
and left out. Methods that hold a copy of the vectors are built one after the other, so that memory
for the file and two copies is enough.
"""

import argparse
import json
import sys
import time
from pathlib import Path

try:
    import numpy as np
except ImportError:
    sys.exit("index_peers: numpy is not installed; pip install numpy faiss-cpu usearch")


def faiss_methods(items):
    """Yields (name, make), make returning a search of one query."""
    try:
        import faiss
    except ImportError:
        print("left out: faiss-cpu is not installed (pip install faiss-cpu)", file=sys.stderr)
        return
    faiss.omp_set_num_threads(1)
    dim = items.shape[1]

    def flat(make):
        def build():
            index = make()
            for begin in range(0, len(items), 100_000):
                index.add(np.ascontiguousarray(items[begin : begin + 100_000]))
            return lambda query, k: index.search(query[None], k)[1][0]

        return build

    version = faiss.__version__
    yield f"faiss-cpu {version} IndexFlatIP", flat(lambda: faiss.IndexFlatIP(dim))
    if not hasattr(faiss, "IndexFlatIPPanorama"):
        print(f"left out: faiss-cpu {version} has no IndexFlatIPPanorama", file=sys.stderr)
        return
    levels = max(1, min(16, dim // 64))

    def panorama():
        # Its bounds want the energy in front: the rotation that its documentation advises.
        rotation = faiss.PCAMatrix(dim, dim)
        rotation.train(np.ascontiguousarray(items[: min(len(items), 20_000)]))
        matrix = faiss.vector_to_array(rotation.A).reshape(dim, dim)
        index = faiss.IndexFlatIPPanorama(dim, levels)
        for begin in range(0, len(items), 100_000):
            index.add(np.ascontiguousarray(items[begin : begin + 100_000] @ matrix.T))
        # A rotation alone, without the centre, keeps inner products.
        return lambda query, k: index.search((matrix @ query)[None], k)[1][0]

    yield f"faiss-cpu {version} IndexFlatIPPanorama({levels})", flat(
        lambda: faiss.IndexFlatIPPanorama(dim, levels)
    )
    yield f"faiss-cpu {version} PCA + IndexFlatIPPanorama({levels})", panorama


def usearch_methods(items):
    try:
        import usearch
        from usearch.index import MetricKind, search
    except ImportError:
        print("left out: usearch is not installed (pip install usearch)", file=sys.stderr)
        return

    def exact():
        copy = np.ascontiguousarray(items)
        return lambda query, k: search(
            copy, query, k, MetricKind.IP, exact=True, threads=1
        ).keys

    yield f"usearch {usearch.__version__} exact search", exact


def truth(items, queries, k):
    best = []
    scores = np.concatenate(
        [queries @ items[begin : begin + 50_000].T for begin in range(0, len(items), 50_000)], 1
    )
    for row in scores:
        best.append(set(np.argpartition(-row, k - 1)[:k].tolist()))
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--queries", type=int, default=16)
    parser.add_argument("--examples", type=int, default=1000, help="rows of queries.npy to skip")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    items = np.load(arguments.folder / "items.npy", mmap_mode="r")
    queries = np.load(arguments.folder / "queries.npy")
    queries = queries[min(arguments.examples, len(queries) - 1) :][: arguments.queries]
    k = min(arguments.k, len(items))
    best = truth(items, queries, k)
    flat_seconds = None
    if not arguments.json:
        print(f"{len(items)} items of dim {items.shape[1]}, top {k}, {len(queries)} queries, one thread")
    for source in (faiss_methods, usearch_methods):
        for name, make in source(items):
            begin = time.perf_counter()
            search = make()
            build_seconds = time.perf_counter() - begin
            search(queries[0], k)
            seconds, found = [], 0
            for query, expected in zip(queries, best):
                begin = time.perf_counter()
                result = search(query, k)
                seconds.append(time.perf_counter() - begin)
                found += len(expected.intersection(int(item) for item in result))
            del search
            median = sorted(seconds)[len(seconds) // 2]
            flat_seconds = flat_seconds or median
            row = {
                "method": name,
                "milliseconds": round(1e3 * median, 3),
                "of_flat": round(flat_seconds / median, 2),
                "recall": round(found / (k * len(queries)), 4),
                "build_seconds": round(build_seconds, 1),
            }
            if arguments.json:
                print(json.dumps(row), flush=True)
            else:
                print(
                    f"{name:48} {row['milliseconds']:10.2f} ms {row['of_flat']:7.2f}x "
                    f"recall {row['recall']:.4f}  built in {row['build_seconds']} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
