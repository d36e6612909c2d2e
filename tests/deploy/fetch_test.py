#!/usr/bin/env python3
"""The chart's download script.

    fetch_test.py [-k PATTERN]
"""
import contextlib
import functools
import http.server
import os
import shutil
import ssl
import subprocess
import tempfile
import threading
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CHART = os.path.join(ROOT, "deploy/helm/nestrec")


class Fetch(unittest.TestCase):
    """files/fetch.sh, with a curl that copies files: what the list says ends up in the folder, whole, or not at all."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        for name in ("bin", "models", "web"):
            os.mkdir(self.path(name))
        with open(self.path("bin/curl"), "w") as file:
            file.write('#!/bin/sh\nfor each; do last=$each; [ "$before" = --output ] && out=$each; before=$each; done\n'
                       f'cp "{self.path("web")}/${{last##*/}}" "$out"\n')
        os.chmod(self.path("bin/curl"), 0o755)
        self.write("labels", "")

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def write(self, name, text):
        with open(self.path(name), "w") as file:
            file.write(text)

    def publish(self, name, text):
        self.write(f"web/{name}", text)
        digest = subprocess.run(["sha256sum", self.path(f"web/{name}")], capture_output=True, text=True, check=True).stdout.split()[0]
        return f"{name} https://a/{name} {digest}\n"

    def run_once(self, listed, **settings):
        self.write("versions", listed)
        environment = dict(os.environ, PATH=self.path("bin") + ":" + os.environ["PATH"], LABELS=self.path("labels"),
                           MODELS=self.path("models"), POLL_SECONDS="1", **{"LIST": self.path("versions"), **settings})
        return subprocess.run(["sh", os.path.join(CHART, "files/fetch.sh"), "once"], env=environment, capture_output=True, text=True)

    def models(self):
        return sorted(each for each in os.listdir(self.path("models")) if not each.startswith("."))

    def test_brings_what_is_listed_and_removes_what_is_not(self):
        one, two = self.publish("one", "1"), self.publish("two", "2")
        self.assertEqual(self.run_once(one).returncode, 0)
        self.assertEqual(self.models(), ["one.safetensors"])
        self.assertEqual(self.run_once(one + two).returncode, 0)
        self.assertEqual(self.models(), ["one.safetensors", "two.safetensors"])
        self.assertEqual(self.run_once(two).returncode, 0)
        self.assertEqual(self.models(), ["two.safetensors"])

    def test_refuses_another_content_than_listed(self):
        line = self.publish("one", "1")
        self.write("web/one", "tampered with")
        result = self.run_once(line)
        self.assertEqual(result.returncode, 1)
        self.assertIn("one is refused: its SHA-256 is", result.stderr)
        self.assertEqual(self.models(), [])

    def test_keeps_what_serves_while_the_new_one_cannot_be_fetched(self):
        one, two = self.publish("one", "1"), self.publish("two", "2")
        self.run_once(one)
        os.remove(self.path("web/two"))
        self.assertEqual(self.run_once(two).returncode, 1)
        self.assertEqual(self.models(), ["one.safetensors"])

    def test_without_a_list_it_fails_and_removes_nothing(self):
        one = self.publish("one", "1")
        self.write("labels", 'stable: "one"\n')
        self.run_once(one)
        for what, listed, settings, message in (
                ("missing", one, {"LIST": self.path("none")}, "cannot be read"),
                ("not set", one, {"LIST": ""}, "the list '' cannot be read"),
                ("a folder", one, {"LIST": self.path("models")}, "cannot be read"),
                ("empty", "", {}, "is empty"),
                ("blank", "\n  \n", {}, "is empty"),
                ("cut short", one[:-10], {}, "is not 'name url sha256'"),
                ("without a checksum", "two https://a/two\n", {}, "is not 'name url sha256'"),
                ("with too much", one.strip() + " and more\n", {}, "is not 'name url sha256'")):
            with self.subTest(what):
                result = self.run_once(listed, **settings)
                self.assertEqual(result.returncode, 1)
                self.assertIn(message, result.stderr)
                self.assertIn("nothing is fetched or removed", result.stderr)
                self.assertEqual(self.models(), ["labels.textproto", "one.safetensors"])

    def test_reads_a_last_line_without_an_end(self):
        one, two = self.publish("one", "1"), self.publish("two", "2")
        self.assertEqual(self.run_once(one + two.rstrip("\n")).returncode, 0)
        self.assertEqual(self.models(), ["one.safetensors", "two.safetensors"])

    def test_another_checksum_under_an_old_name_is_fetched_anew(self):
        one = self.publish("one", "1")
        self.run_once(one)
        self.assertNotIn("fetching", self.run_once(one).stderr)
        self.assertEqual(self.run_once(self.publish("one", "another")).returncode, 0)
        with open(self.path("models/one.safetensors")) as file:
            self.assertEqual(file.read(), "another")
        # The same of a file that lies there from elsewhere, without a note of its checksum.
        os.remove(self.path("models/.one.sha256"))
        self.assertEqual(self.run_once(one).returncode, 1, "the web has another content than the list says")
        with open(self.path("models/one.safetensors")) as file:
            self.assertEqual(file.read(), "another")

    def test_puts_labels_there_and_takes_them_away(self):
        one = self.publish("one", "1")
        self.write("labels", 'stable: "one"\n')
        self.run_once(one)
        self.assertEqual(self.models(), ["labels.textproto", "one.safetensors"])
        self.write("labels", "")
        self.run_once(one)
        self.assertEqual(self.models(), ["one.safetensors"])


def missing_tool():
    for tool in ("curl", "openssl"):
        if not shutil.which(tool):
            return f"{tool} is not there; apt-get install {tool}"
    return ""


class Handler(http.server.BaseHTTPRequestHandler):
    """/stall sends 1000 bytes of a larger file and then nothing, /silence nothing at all; /to?ADDRESS redirects there; all else is its path. Notes what it was asked with."""
    asked = []
    ended = threading.Event()

    def do_GET(self):
        self.asked.append((self.server.server_port, self.path, self.headers.get("PRIVATE-TOKEN")))
        if self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", self.path[len("/to?"):])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.path == "/silence":
            self.ended.wait()
            return
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(10_000_000 if self.path == "/stall" else len(body)))
        self.end_headers()
        if self.path == "/stall":
            self.wfile.write(b"x" * 1000)
            self.wfile.flush()
            self.ended.wait()
        else:
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@unittest.skipIf(missing_tool(), missing_tool())
class RealDownloads(unittest.TestCase):
    """files/fetch.sh with the real curl, from servers with TLS on this machine."""

    @classmethod
    def setUpClass(cls):
        stack = contextlib.ExitStack()
        cls.addClassCleanup(stack.close)
        cls.folder = stack.enter_context(tempfile.TemporaryDirectory())
        cls.certificate = os.path.join(cls.folder, "server.crt")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
                        "subjectAltName=IP:127.0.0.1", "-keyout", cls.certificate + ".key", "-out", cls.certificate], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cls.certificate, cls.certificate + ".key")
        cls.ports = []
        for _ in range(2):
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            server.daemon_threads = True
            server.socket = context.wrap_socket(server.socket, server_side=True)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            cls.ports.append(server.server_port)
        stack.callback(Handler.ended.set)

    def setUp(self):
        self.models = tempfile.mkdtemp(dir=self.folder)
        Handler.asked.clear()

    def fetch(self, url, content=b"", mode="once", **settings):
        listed = os.path.join(self.models, ".versions")
        digest = subprocess.run(["sha256sum"], input=content, capture_output=True, check=True).stdout.split()[0].decode()
        with open(listed, "w") as file:
            file.write(f"one {url} {digest}\n")
        environment = dict(os.environ, LIST=listed, LABELS="", MODELS=self.models, POLL_SECONDS="1", STALL_SECONDS="2", no_proxy="*",
                           CURL_CA_BUNDLE=self.certificate, **settings)
        return subprocess.Popen(["sh", os.path.join(CHART, "files/fetch.sh"), mode], env=environment, stderr=subprocess.PIPE, text=True)

    def header(self):
        path = os.path.join(self.models, ".header")
        with open(path, "w") as file:
            file.write("PRIVATE-TOKEN: secret\n")
        return path

    def here(self):
        return [each for each in os.listdir(self.models) if not each.startswith(".")]

    def test_gives_up_a_server_that_stalls_and_says_so(self):
        for path in ("/stall", "/silence"):
            with self.subTest(path):
                process = self.fetch(f"https://127.0.0.1:{self.ports[0]}{path}")
                _, log = process.communicate(timeout=120)
                self.assertEqual(process.returncode, 1, log)
                self.assertIn("Operation too slow", log)
                self.assertIn("one cannot be fetched", log)
                self.assertIn("tried again when the container starts again", log)
                self.assertEqual(os.listdir(self.models), [".versions"], "the part of it is still there")

    def test_a_server_that_stalled_is_asked_again_at_the_next_pass(self):
        process = self.fetch(f"https://127.0.0.1:{self.ports[0]}/stall", mode="watch")
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        deadline = threading.Timer(120, process.kill)
        deadline.start()
        self.addCleanup(deadline.cancel)
        passes = 0
        for line in process.stderr:
            passes += "tried again in 1 s" in line
            if passes == 2:
                break
        self.assertEqual(passes, 2)
        self.assertGreaterEqual(len(Handler.asked), 2)

    def test_a_header_goes_to_the_listed_server_and_to_no_other(self):
        first, second = (f"https://127.0.0.1:{port}" for port in self.ports)
        for way, tokens in ((f"{first}/file", ["secret"]), (f"{first}/to?/file", ["secret"] * 2), (f"{first}/to?{second}/file", ["secret", None]),
                            (f"{first}/to?{second}/to?{first}/file", ["secret", None, "secret"])):
            with self.subTest(way):
                self.setUp()
                process = self.fetch(way, b"/file", HEADER_FILE=self.header())
                _, log = process.communicate(timeout=120)
                self.assertEqual(process.returncode, 0, log)
                self.assertEqual(self.here(), ["one.safetensors"])
                self.assertEqual([token for _, _, token in Handler.asked], tokens)
                self.assertEqual("does not get the header" in log, None in tokens)

    def test_redirects_need_no_header_and_end(self):
        server = f"https://127.0.0.1:{self.ports[0]}"
        process = self.fetch(f"{server}/to?/to?/file", b"/file")
        self.assertEqual((process.communicate(timeout=120), process.returncode)[1], 0)
        self.assertEqual(self.here(), ["one.safetensors"])
        for way, message in (("/to?" * 11 + "/file", "more than 10 redirects"), ("/to?http://127.0.0.1/file", "cannot be fetched")):
            with self.subTest(way):
                self.setUp()
                process = self.fetch(server + way, b"/file")
                _, log = process.communicate(timeout=120)
                self.assertEqual(process.returncode, 1, log)
                self.assertIn(message, log)
                self.assertEqual(self.here(), [])


if __name__ == "__main__":
    unittest.main()
