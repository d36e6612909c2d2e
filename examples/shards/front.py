#!/usr/bin/env python3
"""A front for a catalogue that is cut into shards: nestrec makes a history's vector, every shard finds its best
items for it, the front merges them. What it prints is what nestrec's Recommend returns.

    front.py split items.npy --model-version 0123456789abcdef --shards 3 --to shards
    front.py ask localhost:50051 shards --history N000431,N000791 --dim 64 --k 10

`nestrec export --embeddings -o items.npy` writes the vectors and prints their model version. Shards here are
NumPy files that are searched one by one, in threads; an engine of yours (FAISS, Milvus, Vespa, ...) takes the
place of the class Shard. Needs numpy, grpcio, and the stubs of nestrec/v1/recommend.proto (docs/clients.md).
"""
import argparse
import concurrent.futures
import heapq
import json
import sys
from pathlib import Path

import numpy

SECONDS = 5


def lines_of(path):
    return path.read_text(encoding="utf-8").split("\n")[:-1]


class Shard:
    """Some of the items of one model version: best(query, k) gives (score, id) pairs, the best k, best first."""

    def __init__(self, folder, name):
        self.vectors = numpy.load(folder / f"{name}.npy", mmap_mode="r")
        self.ids = [json.loads(line) for line in lines_of(folder / f"{name}.ids.jsonl")]

    def best(self, query, k):
        # The first columns of a wide vector are the vector of a narrow width.
        scores = self.vectors[:, : len(query)] @ query
        count = min(k, len(scores))
        places = numpy.argpartition(-scores, count - 1)[:count] if count else []
        return sorted(((float(scores[place]), self.ids[place]) for place in places), key=lambda pair: (-pair[0], pair[1]))


class Front:
    def __init__(self, service, shards_folder):
        self.service = service
        self.root = Path(shards_folder)
        self.shards = {}  # by model version

    def shards_of(self, version):
        if version not in self.shards:
            folder = self.root / version
            names = sorted(path.stem for path in folder.glob("shard*.npy"))
            if not names:
                raise LookupError(f"{self.root} has no shards of model version {version}, which the server answers with; "
                                  f"export that model's vectors and split them (it has: {sorted(path.name for path in self.root.glob('*'))})")
            self.shards[version] = [Shard(folder, name) for name in names]
        return self.shards[version]

    def ask(self, request, k):
        """EncodeRequest -> EncodeResponse, [(score, id)], best first."""
        request.return_seen = True
        encoded = self.service.Encode(request, timeout=SECONDS)
        query = numpy.asarray(encoded.vector, dtype=numpy.float32)
        seen = set(encoded.seen_item_ids)
        # Vectors of one version have nothing to say about items of another.
        shards = self.shards_of(encoded.served.model_version)
        # So many that k are left when those that were seen are taken out. A shard that fails fails the call: an
        # answer without its items would be another answer.
        with concurrent.futures.ThreadPoolExecutor(len(shards)) as pool:
            lists = list(pool.map(lambda shard: shard.best(query, k + len(seen)), shards))
        merged = heapq.merge(*lists, key=lambda pair: (-pair[0], pair[1]))
        return encoded, [pair for pair in merged if pair[1] not in seen][:k]


def split(args):
    vectors = numpy.load(args.vectors, mmap_mode="r")
    ids_file = Path(args.vectors).with_suffix(".ids.jsonl")
    ids = lines_of(ids_file)
    if len(ids) != len(vectors):
        sys.exit(f"{ids_file} has {len(ids)} ids, {args.vectors} {len(vectors)} vectors; export both anew")
    if not 1 <= args.shards <= len(vectors):
        sys.exit(f"--shards {args.shards}: 1 to {len(vectors)}, the number of items")
    folder = Path(args.to) / args.model_version
    folder.mkdir(parents=True)  # another split of this version may be in use
    for shard in range(args.shards):
        numpy.save(folder / f"shard{shard:03}.npy", vectors[shard :: args.shards])
        (folder / f"shard{shard:03}.ids.jsonl").write_text("".join(f"{line}\n" for line in ids[shard :: args.shards]), encoding="utf-8")
    print(f"wrote {args.shards} shards of {len(vectors)} items to {folder}")


def ask(args):
    import grpc
    from nestrec.v1 import recommend_pb2, recommend_pb2_grpc

    request = recommend_pb2.EncodeRequest(user_id=args.user, history_item_ids=[each for each in args.history.split(",") if each])
    if args.dim:
        request.dim = args.dim
    policy = (Path(__file__).resolve().parent.parent / "clients/service_config.json").read_text(encoding="utf-8")
    with grpc.insecure_channel(args.server, [("grpc.service_config", policy)]) as channel:
        try:
            encoded, items = Front(recommend_pb2_grpc.RecommendServiceStub(channel), args.shards).ask(request, args.k)
        except (grpc.RpcError, LookupError) as error:
            sys.exit(f"{error.code().name}: {error.details()}" if isinstance(error, grpc.RpcError) else error.args[0])
    for score, item in items:
        print(f"{item}\t{score:.6f}")
    print(f"dim {encoded.served.dim}, model {encoded.served.model_version}", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(required=True)
    splitting = commands.add_parser("split", help="deal exported vectors out to shards")
    splitting.add_argument("vectors", help="items.npy, with items.ids.jsonl beside it")
    splitting.add_argument("--model-version", required=True, help="as the export printed it")
    splitting.add_argument("--shards", type=int, default=3)
    splitting.add_argument("--to", required=True, help="folder of all versions")
    splitting.set_defaults(run=split)
    asking = commands.add_parser("ask", help="ask nestrec and the shards")
    asking.add_argument("server", help="host:port of a nestrec server")
    asking.add_argument("shards", help="folder of all versions")
    asking.add_argument("--history", default="", help="item ids, oldest first, separated by commas")
    asking.add_argument("--user", default="")
    asking.add_argument("--dim", type=int, help="no wider than the export")
    asking.add_argument("--k", type=int, default=10)
    asking.set_defaults(run=ask)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
