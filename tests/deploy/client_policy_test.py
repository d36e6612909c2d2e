#!/usr/bin/env python3
"""One policy for clients: the pages show examples/clients/service_config.json as it is, and the client with which the cluster is
tried (cluster_load.py) has it from there, retries by gRPC alone, and counts all that fails.

    client_policy_test.py
"""
import concurrent.futures
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
METHOD = "/nestrec.v1.RecommendService/Recommend"

try:
    import grpc
except ImportError:
    # Debian's grpc is not seen by every Python.
    if sys.executable != "/usr/bin/python3" and subprocess.run(["/usr/bin/python3", "-c", "import grpc"], capture_output=True).returncode == 0:
        os.execv("/usr/bin/python3", ["/usr/bin/python3", *sys.argv])
    print("skipped: Python's grpc is missing; apt-get install python3-grpcio")
    sys.exit(77)

sys.path.insert(0, os.path.join(ROOT, "tests/deploy"))
import cluster_load  # noqa: E402


def text(path):
    with open(os.path.join(ROOT, path)) as file:
        return file.read()


class Pages(unittest.TestCase):
    def test_show_the_file_as_it_is(self):
        for page in ("docs/clients.md", "docs/kubernetes.md"):
            with self.subTest(page):
                self.assertIn("```json\n" + text("examples/clients/service_config.json") + "```\n", text(page))

    def test_name_the_settings_of_the_channel_that_are_tried(self):
        documented = dict(re.findall(r"^\| `(grpc\.[a-z0-9_.]+)` \| (\d+) \|", text("docs/kubernetes.md"), re.M))
        self.assertEqual({name: int(value) for name, value in documented.items()}, cluster_load.CHANNEL)

    def test_leave_time_for_another_try_after_a_connection_is_given_up(self):
        config = json.loads(text("examples/clients/service_config.json"))
        for method in config["methodConfig"]:
            # gRPC's core ends calls up to two seconds before a timeout of the service config.
            deadline = float(method["timeout"].rstrip("s")) - 2
            self.assertGreater(deadline, 2 * cluster_load.CHANNEL["grpc.keepalive_timeout_ms"] / 1000)

    def test_retry_the_methods_that_read_and_no_others(self):
        config = json.loads(text("examples/clients/service_config.json"))
        retried = {(name["service"], name["method"]) for each in config["methodConfig"] for name in each["name"]}
        every = set(re.findall(r"^  rpc (\w+)\(", text("proto/nestrec/v1/recommend.proto"), re.M))
        self.assertEqual(retried, {("nestrec.v1.RecommendService", name)
                                   for name in every - {"RecordEvents", "ForgetUser", "UpsertItems", "RemoveItems"}})


class Pod(grpc.GenericRpcHandler):
    """A server that answers with what `does` returns, or fails as it does."""

    def __init__(self, does):
        self.does, self.calls = does, 0
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(8), handlers=[self])
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(self.answer) if details.method == METHOD else None

    def answer(self, request, context):
        self.calls += 1
        return self.does(context)


def answers(context):
    return b"0123456789abcdef"


def fails(code):
    return lambda context: context.abort(code, "as told")


class Load(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = lambda name: os.path.join(folder.name, name)
        # A kubectl that knows one slice, and watches it without an end.
        os.mkdir(self.path("bin"))
        with open(self.path("bin/kubectl"), "w") as file:
            file.write('#!/bin/sh\ncase "$*" in *--watch*) exec sleep 600 ;; esac\n' f'cat "{self.path("slices")}"\n')
        os.chmod(self.path("bin/kubectl"), 0o755)
        with open(self.path("request"), "wb") as file:
            file.write(b"")

    def load(self, *pods, until=lambda: False, calls=60):
        """What the client says of calls to these pods."""
        for each in pods:
            self.addCleanup(each.server.stop, None)
        slices = [{"metadata": {"name": str(each.port)}, "ports": [{"name": "grpc", "port": each.port}],
                   "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}]} for each in pods]
        with open(self.path("slices"), "w") as file:
            json.dump({"items": slices}, file)
        process = subprocess.Popen(
            [sys.executable, os.path.join(ROOT, "tests/deploy/cluster_load.py"), "n", "s", self.path("request"), self.path("stop"), "--rate", "100"],
            env=dict(os.environ, PATH=self.path("bin") + ":" + os.environ["PATH"]), stdout=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while sum(each.calls for each in pods) < calls and time.monotonic() < deadline and not until():
            time.sleep(0.02)
        with open(self.path("stop"), "w"):
            pass
        output, _ = process.communicate(timeout=60)
        return json.loads(output)

    def test_spreads_calls_over_all_pods(self):
        one, two = Pod(answers), Pod(answers)
        said = self.load(one, two)
        self.assertEqual(said["failed"], {})
        self.assertGreater(min(one.calls, two.calls), said["calls"] // 3)
        self.assertEqual(said["versions"], {"0123456789abcdef": said["calls"]})

    def test_grpc_tries_again_where_a_pod_is_unavailable(self):
        # Once less than a call is tried.
        left = iter(range(3))

        def fails_three_times(context):
            return answers(context) if next(left, None) is None else context.abort(grpc.StatusCode.UNAVAILABLE, "as told")
        bad, good = Pod(fails_three_times), Pod(answers)
        said = self.load(bad, good)
        self.assertEqual(said["failed"], {})
        self.assertEqual(bad.calls + good.calls, said["calls"] + 3)

    def test_counts_what_fails_after_the_last_try(self):
        bad = Pod(fails(grpc.StatusCode.UNAVAILABLE))
        said = self.load(bad)
        self.assertEqual(said["failed"], {"UNAVAILABLE": said["calls"]})
        self.assertGreater(bad.calls, said["calls"])

    def test_counts_what_is_not_tried_again(self):
        busy = Pod(fails(grpc.StatusCode.RESOURCE_EXHAUSTED))
        said = self.load(busy)
        self.assertEqual(said["failed"], {"RESOURCE_EXHAUSTED": said["calls"]})
        self.assertEqual(busy.calls, said["calls"])

    def test_counts_calls_that_nobody_could_take(self):
        began = time.monotonic()
        said = self.load(until=lambda: time.monotonic() > began + 2)
        self.assertGreater(said["calls"], 0)
        self.assertEqual(said["failed"], {"NO_ENDPOINT": said["calls"]})

    def test_counts_exceptions(self):
        class Broken:
            def current(self):
                raise KeyError("a bug")
        counts = cluster_load.Counts()
        cluster_load.call(Broken(), b"", None, counts)
        self.assertEqual(counts.summary()["failed"], {"KeyError": 1})


if __name__ == "__main__":
    unittest.main()
