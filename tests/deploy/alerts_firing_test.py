#!/usr/bin/env python3
"""Every alert of deploy/prometheus/nestrec.rules.yml, fired by a real Prometheus over a real server that is in that trouble.

    alerts_firing_test.py PROGRAM

The rules are those of the file but for their clock, which runs a hundred times as fast: 5m are 3s. Where `prometheus` or
`redis-server` is missing the test says so and is skipped.
"""
import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = sys.argv.pop(1) if len(sys.argv) > 1 else ""
FASTER = 100
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
PATIENCE = 120  # for what is due in a few seconds, on a machine that does other things


def quicker(rules):
    """The same with all durations shorter. Yesterday is a minute ago, so that one run sees both."""
    def shorter(match):
        milliseconds = int(match.group(1)) * SECONDS[match.group(2)] * 1000 // FASTER
        return "60s" if match.group(2) == "d" else f"{milliseconds}ms"
    return re.sub(r"\b(\d+)([smhd])\b(?=\]|\)|\s)", shorter, rules)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what()}"
        time.sleep(0.2)


class Prometheus:
    def __init__(self, folder):
        self.folder = folder
        self.targets = os.path.join(folder, "targets.json")
        self.watch(None)
        with open(os.path.join(ROOT, "deploy/prometheus/nestrec.rules.yml")) as rules, open(os.path.join(folder, "rules.yml"), "w") as file:
            file.write(quicker(rules.read()))
        with open(os.path.join(folder, "prometheus.yml"), "w") as file:
            json.dump({
                "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
                "rule_files": ["rules.yml"],
                # One server that is started anew, whatever port it has.
                "scrape_configs": [{"job_name": "nestrec", "file_sd_configs": [{"files": [self.targets]}],
                                    "relabel_configs": [{"target_label": "instance", "replacement": "server"}]}],
            }, file)
        self.address = f"127.0.0.1:{free_port()}"
        self.log = open(os.path.join(folder, "prometheus.log"), "w")
        self.process = subprocess.Popen(
            ["prometheus", "--config.file", os.path.join(folder, "prometheus.yml"), "--storage.tsdb.path", os.path.join(folder, "tsdb"),
             "--web.listen-address", self.address], stdout=self.log, stderr=self.log)
        wait_until(lambda: self.answers("/-/ready"), lambda: "Prometheus is ready")

    def watch(self, port):
        """What is scraped from now on."""
        whole = self.targets + ".part"
        with open(whole, "w") as file:
            json.dump([{"targets": [f"127.0.0.1:{port}"]}] if port else [], file)
        os.rename(whole, self.targets)

    def answers(self, path):
        assert self.process.poll() is None, open(os.path.join(self.folder, "prometheus.log")).read()[-2000:]
        try:
            with urllib.request.urlopen(f"http://{self.address}{path}", timeout=5) as answer:
                return answer.read()
        except OSError:
            return None

    def firing(self):
        alerts = json.loads(self.answers("/api/v1/alerts"))["data"]["alerts"]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}

    def sees(self, name):
        """Whether it has a value of the series by now."""
        return bool(json.loads(self.answers(f"/api/v1/query?query={name}"))["data"]["result"])

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


class Server:
    """`nestrec serve`, watched by Prometheus."""

    def __init__(self, test, *flags, limits=()):
        self.folder = tempfile.mkdtemp(dir=test.path(""))
        self.log = open(os.path.join(self.folder, "log"), "w")

        def limit():
            for which, value in limits:
                resource.setrlimit(which, (value, value))
        self.process = subprocess.Popen(
            [PROGRAM, "serve", "--model", test.path("models"), "--model-poll", "200ms", "--threads", "1", "--index-folder", "none",
             "--listen", "127.0.0.1:0", "--port-file", os.path.join(self.folder, "port"),
             "--http-listen", "127.0.0.1:0", "--http-port-file", os.path.join(self.folder, "http"), *flags],
            stderr=self.log, preexec_fn=limit)
        wait_until(lambda: self.port("http"), self.said)
        test.prometheus.watch(self.port("http"))

    def port(self, name):
        assert self.process.poll() is None, self.said()
        try:
            with open(os.path.join(self.folder, name)) as file:
                return int(file.read() or 0)
        except FileNotFoundError:
            return 0

    def said(self):
        with open(os.path.join(self.folder, "log")) as log:
            return log.read()[-3000:]

    @contextlib.contextmanager
    def load(self, rate, *flags):
        """Calls at that rate for as long as the block runs."""
        wait_until(lambda: self.port("port"), self.said)
        with subprocess.Popen(
            [PROGRAM, "bench", "load", "--server", f"127.0.0.1:{self.port('port')}", "--rate", str(rate), "--duration", "10m", "--warmup", "0s",
             "--history", "5", *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as load:
            try:
                yield
                assert load.poll() is None, "the load ended"
            finally:
                load.kill()

    def close(self):
        self.process.kill()
        self.process.wait()
        self.log.close()


class Alerts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.path = staticmethod(lambda name: os.path.join(folder.name, name))
        os.mkdir(cls.path("models"))

        def run(*arguments):
            result = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True)
            assert result.returncode == 0, f"{arguments}: {result.stderr}"
        run("make-shop", "--out", cls.path("raw"), "--items", "6000", "--users", "6000")
        run("prepare", "--events", cls.path("raw/events.csv"), "--catalogue", cls.path("raw/catalogue.jsonl"), "--out", cls.path("shop"),
            "--k-core", "0", "--text-width", "64")
        run("train", "--data", cls.path("shop"), "-o", cls.path("models/v1.safetensors"), "--dim", "64", "--epochs", "1", "--batch-size", "512",
            "--sampled-items", "200")
        cls.prometheus = Prometheus(folder.name)
        cls.addClassCleanup(cls.prometheus.close)

    def server(self, *flags, **options):
        server = Server(self, *flags, **options)
        self.addCleanup(server.close)
        return server

    def config(self, text):
        with open(self.path("tiers"), "w") as file:
            file.write(text)
        return self.path("tiers")

    def expect(self, *alerts):
        firing = set()

        def all_fired():
            firing.update(self.prometheus.firing())
            return firing >= set(alerts)
        wait_until(all_fired, lambda: f"{alerts}, but {firing or 'nothing'} fired")

    def test_1_a_server_that_is_well_fires_nothing_and_a_worse_tier_is_noticed(self):
        tiers = self.config('tiers { name: "wide" dim: 64 } tiers { name: "narrow" dim: 8 } default_tier: "wide"')
        well = self.server("--config", tiers, "--quality-share", "1")
        with well.load(20, "--tier", "wide"):
            # Until this server came there was none.
            wait_until(lambda: self.prometheus.sees("up") and "NestrecAbsent" not in self.prometheus.firing(), well.said)
            began = time.monotonic()
            while time.monotonic() < began + 45:
                # A busy machine is slow, and does not answer within half a second.
                self.assertEqual(self.prometheus.firing() - {"NestrecSlow", "NestrecQueue", "NestrecDown"}, set())
                time.sleep(0.5)
        well.close()
        # The tier of the same name, narrower than yesterday.
        tiers = self.config('tiers { name: "wide" dim: 8 } tiers { name: "full" dim: 64 } default_tier: "wide"')
        with self.server("--config", tiers, "--quality-share", "1").load(20, "--tier", "wide"):
            self.expect("NestrecQualityDrop")

    def test_2_a_version_that_is_damaged(self):
        server = self.server()
        wait_until(lambda: server.port("port"), server.said)
        damaged = self.path("models/v2.safetensors")
        self.addCleanup(os.remove, damaged)
        with open(self.path("models/v1.safetensors"), "rb") as model, open(damaged, "wb") as file:
            file.write(model.read()[:-1000])
        self.expect("NestrecReloadFailing")

    def test_3_waits(self):
        with self.server("--batch-delay", "300ms").load(20):
            self.expect("NestrecSlow", "NestrecQueue")

    def test_4_budgets_that_cannot_be_held(self):
        with self.server().load(50, "--latency-budget", "150us"):
            self.expect("NestrecOverBudget")

    def test_5_overload(self):
        tiers = self.config('tiers { name: "gold" min_dim: 8 max_dim: 64 queue_share: 1 }')
        with self.server("--config", tiers, "--queue", "64", "--overload-target", "100us").load(3000, "--k", "1000", "--deadline", "1s"):
            self.expect("NestrecShedding", "NestrecNarrowed")

    def test_6_a_store_of_sessions_that_is_gone(self):
        port = free_port()
        redis = subprocess.Popen(["redis-server", "--port", str(port), "--save", "", "--dir", self.path("")], stdout=subprocess.DEVNULL)
        self.addCleanup(redis.wait)
        self.addCleanup(redis.kill)
        server = self.server("--sessions", f"redis://127.0.0.1:{port}/0")
        with server.load(50, "--users", "20", "--deadline", "2s"):
            wait_until(lambda: b'"value"' in self.prometheus.answers("/api/v1/query?query=nestrec_served_total%3E20"), server.said)
            redis.kill()
            self.expect("NestrecSessionLogErrors", "NestrecErrors")

    def test_7_a_request_log_whose_disk_is_full(self):
        with self.server("--request-log", self.path("requests.jsonl"), "--request-log-share", "1", limits=[(resource.RLIMIT_FSIZE, 20_000)]).load(100):
            self.expect("NestrecRequestLogDropped")

    def test_8_file_descriptors(self):
        server = self.server(limits=[(resource.RLIMIT_NOFILE, 400)])
        wait_until(lambda: server.port("port"), server.said)

        def opened():
            return len(os.listdir(f"/proc/{server.process.pid}/fd"))
        # 85% of what it may open, and room for a scrape. The kernel connects sooner than the server accepts.
        with contextlib.ExitStack() as connections:
            for _ in range(340 - opened()):
                connections.enter_context(socket.create_connection(("127.0.0.1", server.port("port"))))
            self.expect("NestrecFileDescriptors")

    def test_9_a_server_that_is_not_ready_one_that_is_gone_and_none_at_all(self):
        # A product quantizer takes minutes of training.
        server = self.server("--config", self.config('tiers { name: "gold" dim: 64 index: "PQ64x12" }'))
        self.expect("NestrecNotReady")
        os.kill(server.process.pid, signal.SIGKILL)
        self.expect("NestrecDown")
        self.prometheus.watch(None)
        self.expect("NestrecAbsent")


if __name__ == "__main__":
    if not PROGRAM:
        sys.exit("usage: alerts_firing_test.py PROGRAM")
    for tool in ("prometheus", "redis-server"):
        if not shutil.which(tool):
            print(f"skipped: {tool} is not there (apt-get install {tool})")
            sys.exit(77)
    unittest.main()
