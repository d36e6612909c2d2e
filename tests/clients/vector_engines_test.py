#!/usr/bin/env python3
"""Items in engines of others, asked with nestrec's Encode, give what Recommend gives.

    vector_engines_test.py PROGRAM

A shop is made, trained on, exported and served. Then: the front of examples/shards over three shards, FAISS in
this process, and Milvus (milvus-lite, its embedded form) as three collections. Skipped without protoc's Python
plugin, or where the packages below can neither be imported nor be installed into a venv of its own under
${NESTREC_CACHE:-~/.cache/nestrec}. NESTREC_VECTOR_ENGINES names a Python that has them.
"""
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FRONT = os.path.join(ROOT, "examples/shards/front.py")
PROGRAM = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else ""
SKIP = 77
PACKAGES = ("numpy", "grpcio", "faiss-cpu==1.15.1", "pymilvus==3.0.2", "milvus-lite==3.2.2", "setuptools")
IMPORTS = "import numpy, grpc, faiss, pymilvus, milvus_lite"
DIMS = (8, 16, 32, 64)
K = 20


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIP)


def python_with_engines():
    cache = os.environ.get("NESTREC_CACHE") or os.path.expanduser("~/.cache/nestrec")
    own = os.path.join(cache, "vector-engines", "bin", "python3")
    for python in (os.environ.get("NESTREC_VECTOR_ENGINES"), sys.executable, own):
        if python and os.path.exists(python) and subprocess.run([python, "-c", IMPORTS], capture_output=True).returncode == 0:
            return python
    made = subprocess.run([sys.executable, "-m", "venv", os.path.dirname(os.path.dirname(own))], capture_output=True, text=True)
    if made.returncode != 0:
        skip(f"no FAISS and Milvus, and no venv can be made: {made.stderr.strip()[-200:]}")
    installed = subprocess.run([own, "-m", "pip", "install", "-q", *PACKAGES], capture_output=True, text=True)
    if installed.returncode != 0 or subprocess.run([own, "-c", IMPORTS], capture_output=True).returncode != 0:
        skip(f"no FAISS and Milvus, and pip cannot install them: {installed.stderr.strip()[-200:]}")
    return own


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def scores_of(response):
    return [(item.item_id, item.score) for item in response.items]


class Engines(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.path = staticmethod(lambda name: os.path.join(folder.name, name))
        run = cls.run_program
        run("make-shop", "--out", cls.path("raw"), "--items", "2000", "--users", "2000")
        run("prepare", "--events", cls.path("raw/events.csv"), "--catalogue", cls.path("raw/catalogue.jsonl"), "--out", cls.path("shop"),
            "--k-core", "0", "--text-width", "64")
        model = cls.path("m.safetensors")
        run("train", "--data", cls.path("shop"), "-o", model, "--dim", "64", "--epochs", "1", "--batch-size", "512", "--sampled-items", "200")
        cls.exported = run("export", "--embeddings", "--model", model, "--dim", "64", "-o", cls.path("items.npy"))
        cls.log = open(cls.path("log"), "w")
        cls.addClassCleanup(cls.log.close)
        cls.server = subprocess.Popen([PROGRAM, "serve", "--model", model, "--listen", "127.0.0.1:0", "--port-file", cls.path("port"), "--threads", "1",
                                       "--index-folder", "none", "--sessions", cls.path("sessions")], stderr=cls.log)
        cls.addClassCleanup(cls.server.wait)
        cls.addClassCleanup(cls.server.terminate)
        until = time.monotonic() + 120
        while not (os.path.exists(cls.path("port")) and read(cls.path("port")).strip()):
            assert cls.server.poll() is None and time.monotonic() < until, read(cls.path("log"))
            time.sleep(0.05)
        cls.address = f"127.0.0.1:{read(cls.path('port')).strip()}"
        channel = grpc.insecure_channel(cls.address)
        cls.addClassCleanup(channel.close)
        cls.service = recommend_pb2_grpc.RecommendServiceStub(channel)
        cls.version = cls.service.GetModelInfo(recommend_pb2.GetModelInfoRequest(), timeout=30).model_version
        cls.vectors = numpy.load(cls.path("items.npy"))
        cls.ids = [json.loads(line) for line in read(cls.path("items.ids.jsonl")).splitlines()]
        random.seed(7)
        cls.histories = [[]] + [random.sample(cls.ids, random.randrange(1, 12)) for _ in range(24)]

    @staticmethod
    def run_program(*arguments):
        result = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True)
        assert result.returncode == 0, f"{arguments}: {result.stdout}{result.stderr}"
        return result.stdout

    def encode(self, history, dim):
        return self.service.Encode(recommend_pb2.EncodeRequest(history_item_ids=history, dim=dim, return_seen=True), timeout=30)

    def recommend(self, history, dim, **more):
        return self.service.Recommend(recommend_pb2.RecommendRequest(history_item_ids=history, dim=dim, k=K, **more), timeout=30)

    def expect_same(self, recommended, found):
        """Scores agree to float32's rounding, and items where no neighbour's score is as near."""
        expected = scores_of(recommended)
        self.assertEqual(len(expected), len(found))
        near = 1e-5 * max(1, max(abs(score) for _, score in expected))
        for place, ((item, score), (engine_score, engine_item)) in enumerate(zip(expected, found)):
            self.assertAlmostEqual(score, engine_score, delta=near)
            around = expected[max(0, place - 1):place] + expected[place + 1:place + 2]
            if all(abs(score - other) > 2 * near for _, other in around) and place + 1 < len(expected):
                self.assertEqual(item, engine_item, f"place {place} of {expected}")

    def test_the_example_front_merges_shards_to_what_recommend_returns(self):
        self.assertIn(f"model version {self.version}", self.exported)
        subprocess.run([sys.executable, FRONT, "split", self.path("items.npy"), "--model-version", self.version, "--shards", "3",
                        "--to", self.path("shards")], check=True, capture_output=True)
        asked = front.Front(self.service, self.path("shards"))
        for dim in DIMS:
            for history in self.histories:
                encoded, found = asked.ask(recommend_pb2.EncodeRequest(history_item_ids=history, dim=dim), K)
                self.assertEqual(encoded.served.dim, dim)
                self.expect_same(self.recommend(history, dim), found)

    def test_the_front_leaves_out_what_a_session_has_seen(self):
        subprocess.run([sys.executable, FRONT, "split", self.path("items.npy"), "--model-version", self.version, "--shards", "2",
                        "--to", self.path("for-sessions")], check=True, capture_output=True)
        for first in (0, 500):  # the second time with more to leave out
            self.service.RecordEvents(recommend_pb2.RecordEventsRequest(user_id="ann", item_ids=self.ids[first:first + 60]), timeout=30)
            more = self.ids[100:103]
            _, found = front.Front(self.service, self.path("for-sessions")).ask(
                recommend_pb2.EncodeRequest(user_id="ann", history_item_ids=more, dim=64), K)
            self.expect_same(self.recommend(more, 64, user_id="ann"), found)

    def test_the_example_is_a_program_and_says_what_it_lacks(self):
        def run(*arguments):
            return subprocess.run([sys.executable, FRONT, *arguments], capture_output=True, text=True, env=dict(os.environ, PYTHONPATH=STUBS))
        shards = self.path("by-program")
        made = run("split", self.path("items.npy"), "--model-version", self.version, "--shards", "4", "--to", shards)
        self.assertEqual(made.returncode, 0, made.stderr)
        history = self.ids[5:8]
        asked = run("ask", self.address, shards, "--history", ",".join(history), "--dim", "32", "--k", "5")
        self.assertEqual(asked.returncode, 0, asked.stderr)
        found = [line.split("\t")[0] for line in asked.stdout.splitlines()]
        self.assertEqual(found, [item for item, _ in scores_of(self.recommend(history, 32))][:5])
        os.rename(os.path.join(shards, self.version), os.path.join(shards, "another"))
        lacking = run("ask", self.address, shards, "--history", history[0])
        self.assertEqual(lacking.returncode, 1)
        self.assertIn(f"no shards of model version {self.version}", lacking.stderr)
        refused = run("ask", self.address, shards, "--history", history[0], "--dim", "7")
        self.assertIn("INVALID_ARGUMENT", refused.stderr)
        self.assertIn("--shards 0", run("split", self.path("items.npy"), "--model-version", "x", "--shards", "0", "--to", shards).stderr)

    def test_faiss_finds_the_same_items(self):
        for dim in DIMS:
            flat = faiss.IndexFlatIP(dim)
            flat.add(numpy.ascontiguousarray(self.vectors[:, :dim]))
            graph = faiss.IndexHNSWFlat(dim, 32, faiss.METRIC_INNER_PRODUCT)
            graph.hnsw.efConstruction = graph.hnsw.efSearch = 200
            graph.add(numpy.ascontiguousarray(self.vectors[:, :dim]))
            recalled = 0
            for history in self.histories:
                encoded = self.encode(history, dim)
                query = numpy.asarray([encoded.vector], dtype=numpy.float32)
                seen = set(encoded.seen_item_ids)
                recommended = self.recommend(history, dim)

                def best(index):
                    scores, rows = index.search(query, K + len(seen))
                    pairs = [(float(score), self.ids[row]) for score, row in zip(scores[0], rows[0]) if row >= 0]
                    return [pair for pair in pairs if pair[1] not in seen][:K]
                self.expect_same(recommended, best(flat))
                recalled += len({item for item, _ in scores_of(recommended)} & {item for _, item in best(graph)})
            recall = recalled / (K * len(self.histories))
            print(f"FAISS {faiss.__version__}, HNSW32, dim {dim}: recall@{K} {recall:.4f} of Recommend's items")
            self.assertGreater(recall, 0.9)

    def test_milvus_finds_the_same_items_in_three_collections(self):
        client = pymilvus.MilvusClient(self.path("milvus.db"))
        self.addCleanup(client.close)
        dim, shards = 32, 3
        for shard in range(shards):
            schema = client.create_schema(auto_id=False)
            schema.add_field("item_id", pymilvus.DataType.VARCHAR, is_primary=True, max_length=256)
            schema.add_field("vector", pymilvus.DataType.FLOAT_VECTOR, dim=dim)
            indexes = client.prepare_index_params()
            indexes.add_index("vector", index_type="FLAT", metric_type="IP")
            client.create_collection(f"items{shard}", schema=schema, index_params=indexes)
            rows = [{"item_id": item, "vector": vector[:dim].tolist()} for item, vector in zip(self.ids[shard::shards], self.vectors[shard::shards])]
            client.insert(f"items{shard}", rows)
            client.load_collection(f"items{shard}")
        for history in self.histories:
            encoded = self.encode(history, dim)
            seen = json.dumps(list(encoded.seen_item_ids))
            found = []
            for shard in range(shards):
                hits = client.search(f"items{shard}", data=[list(encoded.vector)], limit=K, filter=f"item_id not in {seen}" if history else "")
                found += [(hit["distance"], hit["item_id"]) for hit in hits[0]]
            self.expect_same(self.recommend(history, dim), sorted(found, key=lambda pair: -pair[0])[:K])


if __name__ == "__main__":
    if not PROGRAM:
        sys.exit(__doc__)
    for tool in ("protoc", "grpc_python_plugin"):
        if shutil.which(tool) is None:
            skip(f"{tool} is not installed (protobuf-compiler, protobuf-compiler-grpc)")
    python = python_with_engines()
    if os.path.realpath(sys.prefix) != os.path.realpath(os.path.dirname(os.path.dirname(python))) and python != sys.executable:
        os.execv(python, [python, os.path.abspath(__file__), PROGRAM, *sys.argv[1:]])
    import faiss
    import grpc
    import numpy
    import pymilvus
    with tempfile.TemporaryDirectory() as STUBS:
        subprocess.run(["protoc", "-I", os.path.join(ROOT, "proto"), f"--python_out={STUBS}", f"--grpc_python_out={STUBS}",
                        f"--plugin=protoc-gen-grpc_python={shutil.which('grpc_python_plugin')}", "nestrec/v1/recommend.proto"], check=True)
        sys.path[:0] = [STUBS, os.path.dirname(FRONT)]
        import front
        from nestrec.v1 import recommend_pb2, recommend_pb2_grpc
        unittest.main()
