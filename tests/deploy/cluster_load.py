#!/usr/bin/env python3
"""A client that balances by calls over a Service's EndpointSlices and retries as docs/kubernetes.md says, and counts.

    cluster_load.py NAMESPACE SERVICE REQUEST_FILE STOP_FILE [calls per second]

Sends the bytes of REQUEST_FILE as Recommend until STOP_FILE exists, then prints a line of JSON: calls, failed ones (after
retries) by code, retries, versions and the count of answers by pod. A call is tried up to 4 times, on UNAVAILABLE alone, each
time at the next ready address to which there is a connection, as gRPC's round_robin does. Connections are asked every 10 s
whether they live, and given up after a second without an answer.
"""
import collections
import concurrent.futures
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time

import grpc

METHOD = "/nestrec.v1.RecommendService/Recommend"
ATTEMPTS, FIRST_BACKOFF, MOST_BACKOFF = 4, 0.02, 0.5
DEADLINE = 3.0
CHANNEL = [
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 1_000),  # on Linux also how long what was sent may stay unacknowledged
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]


class Pod:
    """A connection and whether it stands."""

    def __init__(self, address):
        self.address, self.connected = address, False
        self.channel = grpc.insecure_channel(address, options=CHANNEL)
        self.recommend = self.channel.unary_unary(METHOD)
        self.channel.subscribe(self.on_state, try_to_connect=True)

    def on_state(self, state):
        self.connected = state == grpc.ChannelConnectivity.READY


class Endpoints:
    """The ready addresses of a Service, kept up to date by a watch."""

    def __init__(self, namespace, service):
        self.command = ["kubectl", "-n", namespace, "get", "endpointslices", "-l", f"kubernetes.io/service-name={service}", "-o", "json"]
        self.lock = threading.Lock()
        self.slices, self.pods, self.turn = {}, {}, itertools.count()
        listed = json.loads(subprocess.run(self.command, capture_output=True, text=True, check=True).stdout)
        for each in listed["items"]:
            self.take(each)
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        while True:
            with subprocess.Popen(self.command + ["--watch"], stdout=subprocess.PIPE, text=True) as process:
                decoder, buffer = json.JSONDecoder(), ""
                for line in process.stdout:
                    buffer += line
                    if line.rstrip() != "}":
                        continue
                    try:
                        each, end = decoder.raw_decode(buffer.lstrip())
                    except ValueError:
                        continue
                    buffer = ""
                    self.take(each)

    def take(self, endpoint_slice):
        ports = [port["port"] for port in endpoint_slice.get("ports") or [] if port.get("name") == "grpc"]
        ready = [f"{address}:{ports[0]}" for each in endpoint_slice.get("endpoints") or [] if ports and each.get("conditions", {}).get("ready")
                 for address in each["addresses"]]
        with self.lock:
            self.slices[endpoint_slice["metadata"]["name"]] = ready
            wanted = {address for addresses in self.slices.values() for address in addresses}
            for address in wanted - self.pods.keys():
                self.pods[address] = Pod(address)
            # Calls that run on a channel that leaves go on; it is closed when nobody holds it.
            for address in self.pods.keys() - wanted:
                pod = self.pods.pop(address)
                pod.channel.unsubscribe(pod.on_state)

    def next(self):
        """A pod to ask, None where there is none. One without a connection only where no pod has one."""
        with self.lock:
            pods = [self.pods[address] for address in sorted(self.pods)]
            pods = [pod for pod in pods if pod.connected] or pods
            return pods[next(self.turn) % len(pods)] if pods else None


class Counts:
    def __init__(self):
        self.lock = threading.Lock()
        self.calls = self.retries = 0
        self.failed, self.versions, self.pods, self.slowest = collections.Counter(), collections.Counter(), collections.Counter(), 0.0


def call(endpoints, request, counts):
    began, backoff, code = time.monotonic(), FIRST_BACKOFF, "NO_ENDPOINT"
    for attempt in range(ATTEMPTS):
        pod = endpoints.next()
        if pod is not None:
            try:
                answer = pod.recommend(request, timeout=max(0.001, began + DEADLINE - time.monotonic()))
            except grpc.RpcError as error:
                code = error.code().name
            else:
                version = re.search(rb"[0-9a-f]{16}", answer)
                with counts.lock:
                    counts.calls += 1
                    counts.versions[version.group().decode() if version else "?"] += 1
                    counts.pods[pod.address] += 1
                    counts.slowest = max(counts.slowest, time.monotonic() - began)
                return
        if code not in ("UNAVAILABLE", "NO_ENDPOINT") or attempt + 1 == ATTEMPTS:
            break
        with counts.lock:
            counts.retries += 1
        time.sleep(backoff)
        backoff = min(2 * backoff, MOST_BACKOFF)
    with counts.lock:
        counts.calls += 1
        counts.failed[code] += 1


def main():
    namespace, service, request_file, stop_file = sys.argv[1:5]
    rate = float(sys.argv[5]) if len(sys.argv) > 5 else 50
    with open(request_file, "rb") as file:
        request = file.read()
    endpoints, counts = Endpoints(namespace, service), Counts()
    began = due = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        while not os.path.exists(stop_file):
            pool.submit(call, endpoints, request, counts)
            due += 1 / rate
            time.sleep(max(0, due - time.monotonic()))
    print(json.dumps({"calls": counts.calls, "failed": dict(counts.failed), "retries": counts.retries, "versions": dict(counts.versions),
                      "pods": dict(counts.pods), "slowest_seconds": round(counts.slowest, 3), "seconds": round(time.monotonic() - began, 1)}))


if __name__ == "__main__":
    main()
