#!/usr/bin/env python3
"""One call of a server at an address, by bytes: what a test on a cluster asks of a certain pod.

    cluster_ask.py HOST:PORT METHOD REQUEST_FILE [--ca FILE --server-name NAME [--cert FILE --key FILE]] [--token-file FILE]
        [--out FILE]

Prints OK and the version of the model, where the answer names one, or the code and the message of the error; --out gets the
answer's bytes. Exit code 1 after an error.
"""
import argparse
import re
import sys

import grpc


def read(path):
    if path is None:
        return None
    with open(path, "rb") as file:
        return file.read()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("address", "method", "request_file"):
        parser.add_argument(name)
    for name in ("--ca", "--server-name", "--cert", "--key", "--token-file", "--out"):
        parser.add_argument(name)
    arguments = parser.parse_args()
    request = read(arguments.request_file)
    metadata = None
    if arguments.token_file:
        with open(arguments.token_file) as file:
            metadata = [("authorization", "Bearer " + file.read().strip())]
    if arguments.ca:
        credentials = grpc.ssl_channel_credentials(*(read(path) for path in (arguments.ca, arguments.key, arguments.cert)))
        options = [("grpc.ssl_target_name_override", arguments.server_name)] if arguments.server_name else []
        channel = grpc.secure_channel(arguments.address, credentials, options)
    else:
        channel = grpc.insecure_channel(arguments.address)
    with channel:
        try:
            answer = channel.unary_unary("/nestrec.v1.RecommendService/" + arguments.method)(request, metadata=metadata, timeout=10)
        except grpc.RpcError as error:
            print(error.code().name, error.details())
            sys.exit(1)
    if arguments.out:
        with open(arguments.out, "wb") as file:
            file.write(answer)
    version = re.search(rb"[0-9a-f]{16}", answer)
    print("OK", version.group().decode() if version else "")


if __name__ == "__main__":
    main()
