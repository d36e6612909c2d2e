#!/usr/bin/env python3
"""The memory that tools/serving_memory.py computes is what `nestrec serve` takes.

    serving_memory_test.py PROGRAM
"""
import os
import re
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools"))
import serving_memory  # noqa: E402

PROGRAM = sys.argv.pop(1) if len(sys.argv) > 1 else ""
SIZES = [8, 16, 32, 64, 128, 256]


def run(*arguments):
    result = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True)
    assert result.returncode == 0, f"{arguments}: {result.stderr}"
    return result.stdout


class ServingMemory(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        run("make-shop", "--out", cls.path("raw"), "--items", "40000", "--users", "12000")
        run("prepare", "--events", cls.path("raw/events.csv"), "--catalogue", cls.path("raw/catalogue.jsonl"), "--out", cls.path("shop"),
            "--k-core", "0", "--text-width", "16")
        run("train", "--data", cls.path("shop"), "-o", cls.path("m.safetensors"), "--dim", "256", "--epochs", "1", "--batch-size", "512",
            "--sampled-items", "200")
        page = run("inspect", cls.path("m.safetensors"))
        cls.items = int(re.search(r"^items +(\d+)", page, re.M).group(1))
        cls.blocks = int(re.search(r"^blocks +(\d+)", page, re.M).group(1))

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder.name, name)

    def measure(self, dim, index, min_dim):
        """Of a server that has loaded its model: (most resident MiB since the start, bytes of an item's catalogue fields, the parts
        of the model in bytes as the server itself had reckoned)."""
        with open(self.path("tiers"), "w") as file:
            file.write(f'tiers {{ name: "t" min_dim: {min_dim or dim} max_dim: {dim} ' + (f'index: "{index}" ' if index != "auto" else "") + "}\n")
        port = self.path("port")
        if os.path.exists(port):
            os.remove(port)
        with open(self.path("log"), "w") as log:
            server = subprocess.Popen(
                [PROGRAM, "serve", "--model", self.path("m.safetensors"), "--max-dim", str(dim), "--config", self.path("tiers"),
                 "--index-folder", "none", "--threads", "2", "--listen", "127.0.0.1:0", "--port-file", port], stderr=log)
        try:
            deadline = time.monotonic() + 300
            while not os.path.exists(port):
                with open(self.path("log")) as log:
                    self.assertIsNone(server.poll(), log.read())
                self.assertLess(time.monotonic(), deadline, "the server did not come up")
                time.sleep(0.1)
            with open(f"/proc/{server.pid}/status") as status:
                peak = int(re.search(r"^VmHWM:\s+(\d+) kB", status.read(), re.M).group(1)) / 1024
        finally:
            server.terminate()
            server.wait()
        with open(self.path("log")) as log:
            lines = log.read()
        fields = int(re.search(r"catalogue_read .*?bytes=(\d+)", lines).group(1)) // self.items
        reckoned = dict(re.findall(r"(\w+)_bytes=(\d+)", re.search(r"model_memory .*", lines).group(0)))
        return peak, fields, {part: int(size) for part, size in reckoned.items()}

    def test_the_formula_is_what_a_server_takes(self):
        grown = {}
        for dim, index, min_dim in ((8, "auto", 8), (64, "auto", 64), (256, "auto", 64), (256, "Flat", 64), (256, "IVF64,Flat", 64)):
            with self.subTest(dim=dim, index=index):
                measured, fields, reckoned = self.measure(dim, index, min_dim)
                model = serving_memory.model_bytes(self.items, dim, SIZES, self.blocks, fields, index, min_dim)
                nested = serving_memory.is_nested(self.items, dim)
                request = serving_memory.request_mib(model, versions=1, nested=nested)
                print(f"{self.items} items, dim {dim:3} {index:10}  model {model / 2**20:4.0f} MiB, measured {measured:4.0f} MiB, request {request:4} MiB")
                # What the server refuses by is this formula; of the fields it has a sample.
                self.assertAlmostEqual(sum(reckoned[part] for part in ("mapped", "index", "field")) / model, 1, delta=0.1)
                self.assertLess(measured, request)
                self.assertGreater(measured, 0.6 * request)
                grown[dim, index] = measured, model / 2**20
        # The base apart: what a wider or another index adds is what the formula says.
        base, narrow = grown[8, "auto"]
        for (dim, index), (measured, model) in grown.items():
            expected, slack = model - narrow, 12 + 0.25 * (model - narrow)
            # How much of what nested indexes are built with is there at one time differs from machine to machine: 139 and 169
            # MiB of growth were seen of the same server. That the request holds it all is checked above.
            most = expected + slack + (1.5 * serving_memory.NESTED_SCRATCH_MIB if serving_memory.is_nested(self.items, dim) else 0)
            with self.subTest("growth", dim=dim, index=index):
                self.assertGreater(measured - base, expected - slack)
                self.assertLess(measured - base, most)


if __name__ == "__main__":
    if not PROGRAM:
        sys.exit("usage: serving_memory_test.py PROGRAM")
    unittest.main()
