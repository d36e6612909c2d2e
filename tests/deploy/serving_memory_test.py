#!/usr/bin/env python3
"""The memory that tools/serving_memory.py computes is what `nestrec serve` takes: at the start, and beside sessions while a new model
takes the place of the old one.

    serving_memory_test.py PROGRAM SERVER      nestrec, and nestrec-serve, which has no libtorch
"""
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools"))
import serving_memory  # noqa: E402

PROGRAM, SERVER = (sys.argv.pop(1), sys.argv.pop(1)) if len(sys.argv) > 2 else ("", "")
SIZES = [8, 16, 32, 64, 128, 256]
MIB = 1 << 20
# What the test fills sessions up to, and with how many users.
STATES_MIB, EVENTS_MIB, USERS = 24, 32, 3000


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

    @contextlib.contextmanager
    def server(self, program, model, dim, index="auto", min_dim=None, more=()):
        """A server that serves, whose log is self.path("log")."""
        with open(self.path("tiers"), "w") as file:
            file.write(f'tiers {{ name: "t" min_dim: {min_dim or dim} max_dim: {dim} ' + (f'index: "{index}" ' if index != "auto" else "") + "}\n")
        port = self.path("port")
        if os.path.exists(port):
            os.remove(port)
        with open(self.path("log"), "w") as log:
            server = subprocess.Popen(
                [program, "serve", "--model", model, "--max-dim", str(dim), "--config", self.path("tiers"), "--index-folder", "none",
                 "--threads", "2", "--listen", "127.0.0.1:0", "--port-file", port, *more], stderr=log)
        try:
            self.wait(lambda: os.path.exists(port), "the server did not come up", server)
            yield server
        finally:
            server.terminate()
            server.wait()

    def wait(self, condition, complaint, server):
        deadline = time.monotonic() + 300
        while not condition():
            self.assertIsNone(server.poll(), self.log())
            self.assertLess(time.monotonic(), deadline, complaint + "\n" + self.log())
            time.sleep(0.1)

    def log(self):
        with open(self.path("log")) as log:
            return log.read()

    def peak(self, server):
        """Most resident MiB since the start."""
        with open(f"/proc/{server.pid}/status") as status:
            return int(re.search(r"^VmHWM:\s+(\d+) kB", status.read(), re.M).group(1)) / 1024

    def fields(self):
        """Bytes of an item's catalogue fields, by the log."""
        return int(re.search(r"catalogue_read .*?bytes=(\d+)", self.log()).group(1)) // self.items

    def measure(self, program, dim, index, min_dim, more=()):
        """Of a server that has loaded its model: (most resident MiB since the start, bytes of an item's catalogue fields, the parts
        of the model in bytes as the server itself had reckoned)."""
        with self.server(program, self.path("m.safetensors"), dim, index, min_dim, more) as server:
            peak = self.peak(server)
        reckoned = dict(re.findall(r"(\w+)_bytes=(\d+)", re.search(r"model_memory .*", self.log()).group(0)))
        return peak, self.fields(), {part: int(size) for part, size in reckoned.items()}

    def test_the_formula_is_what_a_server_takes(self):
        grown = {}
        for dim, index, min_dim in ((8, "auto", 8), (64, "auto", 64), (256, "auto", 64), (256, "Flat", 64), (256, "IVF64,Flat", 64),
                                    (256, "SQ8", 64), (256, "IVF64,PQ32x4fs", 64)):
            with self.subTest(dim=dim, index=index):
                measured, fields, reckoned = self.measure(PROGRAM, dim, index, min_dim)
                lean, _, _ = self.measure(SERVER, dim, index, min_dim)
                model = serving_memory.model_bytes(self.items, dim, SIZES, self.blocks, fields, index, min_dim)
                building = serving_memory.building_mib(self.items, dim, SIZES, index, min_dim)
                request = serving_memory.request_mib(model, versions=1, building=building)
                print(f"{self.items} items, dim {dim:3} {index:14}  model {model / 2**20:4.0f} MiB, measured {measured:4.0f} MiB, nestrec-serve {lean:4.0f} MiB, request {request:4} MiB")
                # What the server refuses by is this formula; of the fields it has a sample.
                self.assertAlmostEqual(sum(reckoned[part] for part in ("mapped", "index", "field")) / model, 1, delta=0.1)
                self.assertAlmostEqual(reckoned["building"] / MIB, building, delta=1)
                self.assertLess(measured, request)
                self.assertGreater(measured, 0.6 * request)
                # The program without libtorch takes no more, and what both hold is the model.
                self.assertLess(lean, measured + 12)
                self.assertGreater(lean, model / MIB)
                grown[dim, index] = measured, model / 2**20, building
        # The base apart: what a wider or another index adds is what the formula says.
        base, narrow, _ = grown[8, "auto"]
        for (dim, index), (measured, model, building) in grown.items():
            expected, slack = model - narrow, 12 + 0.25 * (model - narrow)
            # How much of what nested indexes are built with is there at one time differs from machine to machine: 139 and 169
            # MiB of growth were seen of the same server. That the request holds it all is checked above.
            most = expected + slack + building + (0.5 * serving_memory.NESTED_SCRATCH_MIB if serving_memory.is_nested(self.items, dim) else 0)
            with self.subTest("growth", dim=dim, index=index):
                self.assertGreater(measured - base, expected - slack)
                self.assertLess(measured - base, most)

    def test_items_in_float16_take_half(self):
        whole, fields, _ = self.measure(SERVER, 256, "auto", 64)
        halves, _, _ = self.measure(SERVER, 256, "auto", 64, ("--item-storage", "float16"))
        model = {storage: serving_memory.model_bytes(self.items, 256, SIZES, self.blocks, fields, "auto", 64, storage)
                 for storage in ("float32", "float16")}
        request = serving_memory.request_mib(model["float16"], versions=1, building=serving_memory.building_mib(self.items, 256, SIZES))
        print(f"{self.items} items, dim 256 float16: model {model['float16'] / MIB:4.0f} MiB, nestrec-serve {halves:4.0f} MiB "
              f"({whole:.0f} in float32), request {request} MiB")
        self.assertEqual(model["float32"] - model["float16"], self.items * 256 * 2)
        self.assertLess(halves, request)

    def test_a_new_model_fits_beside_the_old_one_and_full_sessions(self):
        os.makedirs(self.path("models"))
        shutil.copy(self.path("m.safetensors"), self.path("models/v1.safetensors"))
        http = self.path("http")
        more = ("--model-poll", "100ms", "--sessions", self.path("sessions"), "--session-bytes", str(EVENTS_MIB * MIB),
                "--session-state-bytes", str(STATES_MIB * MIB), "--http-listen", "127.0.0.1:0", "--http-port-file", http)
        with self.server(SERVER, self.path("models"), 256, "auto", 64, more) as server:
            with open(self.path("port")) as port, open(http) as http_port:
                address, page = f"127.0.0.1:{port.read().strip()}", f"http://127.0.0.1:{http_port.read().strip()}/metrics"

            def metric(name):
                with urllib.request.urlopen(page, timeout=60) as answer:
                    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", answer.read().decode(), re.M))

            alone = self.peak(server)
            load = subprocess.Popen([PROGRAM, "bench", "load", "--server", address, "--users", str(USERS), "--rate", "300", "--deadline", "30s",
                                     "--history", "200", "--model", self.path("m.safetensors"), "--dim", "256", "--duration", "600s"],
                                    stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            try:
                self.wait(lambda: load.poll() is not None or metric("nestrec_session_states") >= USERS * 0.9
                          or metric("nestrec_session_state_bytes") > 0.9 * STATES_MIB * MIB, "states were not made", server)
                self.assertIsNone(load.poll(), load.stderr.read() if load.poll() is not None else "")
                states, held = metric("nestrec_session_states"), metric("nestrec_session_state_bytes") / MIB
                events = metric("nestrec_session_log_bytes") / MIB
                with_sessions = self.peak(server)
                shutil.copy(self.path("m.safetensors"), self.path("models/.v2"))
                os.rename(self.path("models/.v2"), self.path("models/v2.safetensors"))
                self.wait(lambda: "model_unloaded" in self.log(), "the new model did not take over", server)
                most = self.peak(server)
            finally:
                load.kill()
                load.communicate()
        model = serving_memory.model_bytes(self.items, 256, SIZES, self.blocks, self.fields(), "auto", 64)
        request = serving_memory.request_mib(model, versions=2, states_mib=STATES_MIB + EVENTS_MIB,
                                             building=serving_memory.building_mib(self.items, 256, SIZES))
        print(f"{self.items} items, dim 256, nestrec-serve: {alone:.0f} MiB at the start; {with_sessions:.0f} with {states:.0f} states of {held:.0f} MiB "
              f"and events of {events:.0f} MiB; {most:.0f} after a reload; request {request} MiB")
        self.assertGreater(held + events, 0.2 * (STATES_MIB + EVENTS_MIB))
        self.assertLess(held, STATES_MIB * 1.01)
        self.assertLess(events, EVENTS_MIB * 1.01)
        self.assertLess(most, request)
        # Two models were there at a time.
        self.assertGreater(most, 2 * model / MIB)


if __name__ == "__main__":
    if not SERVER:
        sys.exit("usage: serving_memory_test.py PROGRAM SERVER")
    unittest.main()
