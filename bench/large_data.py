#!/usr/bin/env python3
"""Writes a made-up data folder with many items and few users, on which training's memory and steps are measured.

    bench/large_data.py FOLDER [--items 1000000] [--features 256] [--clusters 4000] [--users 3000] [--seed 1]

Items lie around the centres of clusters, at half the centres' deviation; a user's events are items of two clusters, at least four. numpy is needed.
"""
import argparse
import json
import pathlib

import numpy as np

ROWS_AT_ONCE = 50_000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    for name, value in (("items", 1_000_000), ("features", 256), ("clusters", 4000), ("users", 3000), ("seed", 1)):
        parser.add_argument("--" + name, type=int, default=value)
    flags = parser.parse_args()
    for name in ("items", "features", "clusters", "users"):
        if getattr(flags, name) < 1:
            parser.error(f"--{name} {getattr(flags, name)}: at least 1")
    if flags.clusters > flags.items:
        parser.error(f"--clusters {flags.clusters}: at most --items {flags.items}")
    (flags.folder / "features").mkdir(parents=True)
    random = np.random.default_rng(flags.seed)
    centres = random.standard_normal((flags.clusters, flags.features), dtype=np.float32)
    cluster = np.concatenate([np.arange(flags.clusters), random.integers(0, flags.clusters, flags.items - flags.clusters)])
    text = np.lib.format.open_memmap(flags.folder / "features/text.npy", mode="w+", dtype=np.float32, shape=(flags.items, flags.features))
    for begin in range(0, flags.items, ROWS_AT_ONCE):
        some = cluster[begin:begin + ROWS_AT_ONCE]
        text[begin:begin + len(some)] = centres[some] + 0.5 * random.standard_normal((len(some), flags.features), dtype=np.float32)
    text.flush()
    order = np.argsort(cluster, kind="stable")
    begins = np.searchsorted(cluster[order], np.arange(flags.clusters + 1))
    with open(flags.folder / "interactions.txt", "w") as file:
        for user in range(flags.users):
            two = random.integers(0, flags.clusters, 2)
            drawn = two[random.integers(0, 2, 3 + random.geometric(0.2))]
            items = order[random.integers(begins[drawn], begins[drawn + 1])] + 1
            file.write(f"u{user} {' '.join(map(str, items))}\n")
    with open(flags.folder / "items.jsonl", "w") as file:
        for item in range(flags.items):
            file.write(json.dumps({"item_id": f"i{item + 1}"}) + "\n")


if __name__ == "__main__":
    main()
