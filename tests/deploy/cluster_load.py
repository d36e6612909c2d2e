#!/usr/bin/env python3
"""A client as docs/clients.md and docs/kubernetes.md have it, over the addresses of a Service's EndpointSlices, that counts.

    cluster_load.py NAMESPACE SERVICE REQUEST_FILE STOP_FILE [--rate CALLS_PER_SECOND] [--ca FILE --server-name NAME
        [--cert FILE --key FILE]] [--token-file FILE]

Sends the bytes of REQUEST_FILE as Recommend until STOP_FILE exists, then prints a line of JSON: calls, failed ones by code,
versions by answers, and how long the slowest and the 99th of a hundred took. Balancing, deadline and retries are gRPC's own, by
examples/clients/service_config.json; there is no retry here. The ready addresses are watched, and a change of them makes a new
channel, on which connections to addresses that stay are the same. Calls that run go on where they are.

A call counts as failed whatever it fails by: a status after the policy's retries, no address at all, an exception.
"""
import argparse
import collections
import concurrent.futures
import json
import os
import re
import subprocess
import threading
import time

import grpc

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
METHOD = "/nestrec.v1.RecommendService/Recommend"
# What docs/kubernetes.md tells clients to set.
CHANNEL = {
    "grpc.keepalive_time_ms": 10_000,
    "grpc.keepalive_timeout_ms": 1_000,
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.http2.max_pings_without_data": 0,
    "grpc.max_reconnect_backoff_ms": 500,
}
SHOWN = 40  # failures that are printed one by one
LONGEST = 30  # seconds; never reached, since the service config has a deadline


def policy():
    with open(os.path.join(ROOT, "examples/clients/service_config.json")) as file:
        return file.read()


def read(path):
    if path is None:
        return None
    with open(path, "rb") as file:
        return file.read()


class Endpoints:
    """A call of METHOD over the ready addresses of a Service, kept up to date by a watch."""

    def __init__(self, namespace, service, credentials=None, server_name=None):
        self.command = ["kubectl", "-n", namespace, "get", "endpointslices", "-l", f"kubernetes.io/service-name={service}", "-o", "json"]
        self.credentials = credentials
        self.options = [("grpc.service_config", policy()), *CHANNEL.items()]
        if server_name:
            self.options += [("grpc.ssl_target_name_override", server_name), ("grpc.default_authority", server_name)]
        self.lock = threading.Lock()
        self.slices, self.addresses, self.recommend, self.watching = {}, (), None, None
        listed = json.loads(subprocess.run(self.command, capture_output=True, text=True, check=True).stdout)
        for each in listed["items"]:
            self.take(each)
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        while True:
            with subprocess.Popen(self.command + ["--watch"], stdout=subprocess.PIPE, text=True) as process:
                self.watching = process
                decoder, buffer = json.JSONDecoder(), ""
                for line in process.stdout:
                    buffer += line
                    if line.rstrip() != "}":
                        continue
                    try:
                        each, _ = decoder.raw_decode(buffer.lstrip())
                    except ValueError:
                        continue
                    buffer = ""
                    self.take(each)
            time.sleep(0.2)

    def close(self):
        if self.watching is not None:
            self.watching.kill()

    def take(self, endpoint_slice):
        ports = [port["port"] for port in endpoint_slice.get("ports") or [] if port.get("name") == "grpc"]
        ready = [f"{address}:{ports[0]}" for each in endpoint_slice.get("endpoints") or [] if ports and each.get("conditions", {}).get("ready")
                 for address in each["addresses"]]
        with self.lock:
            self.slices[endpoint_slice["metadata"]["name"]] = ready
            addresses = tuple(sorted({address for each in self.slices.values() for address in each}))
            if addresses == self.addresses:
                return
            self.addresses, self.recommend = addresses, None
            if addresses:
                target = "ipv4:" + ",".join(addresses)
                channel = (grpc.secure_channel(target, self.credentials, self.options) if self.credentials else
                           grpc.insecure_channel(target, self.options))
                # A channel that nobody holds any more goes away after its last call.
                self.recommend = channel.unary_unary(METHOD)

    def current(self):
        with self.lock:
            return self.recommend


class Counts:
    def __init__(self):
        self.lock = threading.Lock()
        self.began = time.monotonic()
        self.failed, self.versions, self.seconds, self.failures = collections.Counter(), collections.Counter(), [], []

    def answered(self, version, seconds):
        with self.lock:
            self.versions[version] += 1
            self.seconds.append(seconds)

    def fail(self, why, began, details=""):
        with self.lock:
            self.failed[why] += 1
            if len(self.failures) < SHOWN:
                self.failures.append(f"{why} {began - self.began:.2f} s after the start, after {time.monotonic() - began:.2f} s: {details}")

    def summary(self):
        seconds = sorted(self.seconds)
        return {"calls": len(seconds) + sum(self.failed.values()), "failed": dict(self.failed), "failures": self.failures,
                "versions": dict(self.versions), "p99_seconds": round(seconds[len(seconds) * 99 // 100], 3) if seconds else None,
                "slowest_seconds": round(seconds[-1], 3) if seconds else None}


def call(endpoints, request, token_file, counts):
    began = time.monotonic()
    try:
        recommend = endpoints.current()
        if recommend is None:
            counts.fail("NO_ENDPOINT", began)
            return
        metadata = None
        if token_file:
            with open(token_file) as file:
                metadata = [("authorization", "Bearer " + file.read().strip())]
        answer = recommend(request, metadata=metadata, timeout=LONGEST)
        version = re.search(rb"[0-9a-f]{16}", answer)
        counts.answered(version.group().decode() if version else "?", time.monotonic() - began)
    except grpc.RpcError as error:
        counts.fail(error.code().name, began, error.details())
    except Exception as error:  # whatever it is, the call did not get its answer
        counts.fail(type(error).__name__, began, str(error))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("namespace", "service", "request_file", "stop_file"):
        parser.add_argument(name)
    parser.add_argument("--rate", type=float, default=50)
    for name in ("--ca", "--server-name", "--cert", "--key", "--token-file"):
        parser.add_argument(name)
    arguments = parser.parse_args()
    request = read(arguments.request_file)
    credentials = None
    if arguments.ca:
        credentials = grpc.ssl_channel_credentials(*(read(path) for path in (arguments.ca, arguments.key, arguments.cert)))
    endpoints, counts = Endpoints(arguments.namespace, arguments.service, credentials, arguments.server_name), Counts()
    began = due = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        while not os.path.exists(arguments.stop_file):
            pool.submit(call, endpoints, request, arguments.token_file, counts)
            due += 1 / arguments.rate
            time.sleep(max(0, due - time.monotonic()))
    endpoints.close()
    print(json.dumps({**counts.summary(), "seconds": round(time.monotonic() - began, 1)}))


if __name__ == "__main__":
    main()
