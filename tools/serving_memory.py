#!/usr/bin/env python3
"""How much memory `nestrec serve --max-dim D` takes, before there is a server: docs/kubernetes.md has the formula and what it
was compared with. The Helm chart computes the same.

    tools/serving_memory.py --items 1000000 --dim 256 --sizes 8,16,32,64,128,256,512,1024
    tools/serving_memory.py --items 1000000 --dim 256 --index nested --min-dim 64 --states-mib 256 --versions 1 --headroom 0
    tools/serving_memory.py --items 100000000 --dim 64 --item-storage float16
"""
import argparse
import re

MIB = 1 << 20
NESTED_SCRATCH_MIB = 80  # what building nested indexes takes for a while, on top
ITEMS_PER_CENTRE = 256  # FAISS finds the centres of its lists with a copy of so many items for each, where there are more
TRAINING_ITEMS = 1 << 20  # with so many codes are trained, or with as many as the centres take, where there are more
VECTOR_BYTES = {"float32": 4, "float16": 2}  # of a column, by --item-storage


def is_nested(items, size):
    """Whether "auto", which every width has for requests that name their dim, means a nested index here."""
    return size >= 64 and items >= 4096


def coded_index(index, columns):
    """Of an index of FAISS that holds codes, [IVF<lists>,] before SQ8, SQ4, SQfp16 or PQ<parts>[x<bits>][fs]: (lists, bytes of an item with
    its number and the empty places of what grows by doubling, whether a float32 copy of items is there while it is built), else None."""
    found = re.fullmatch(r"(?:IVF([1-9][0-9]*),)?(?:(SQ8|SQ4|SQfp16)|PQ([1-9][0-9]*)(?:x([1-9][0-9]*))?(fs)?)", index)
    if not found:
        return None
    lists, scalar, parts, bits, fast = found.groups()
    code = {"SQ8": columns, "SQ4": (columns + 1) // 2, "SQfp16": 2 * columns}[scalar] if scalar else (int(parts) * int(bits or 8) + 7) // 8
    an_item = (2 if lists or fast else 1) * (code + (8 if lists else 0))
    return int(lists or 0), an_item, bool(lists) or scalar != "SQfp16"


def building_mib(items, dim, sizes, index="auto", min_dim=None):
    """What building the indexes of one model takes for a while, on top, in MiB."""
    training = 0
    for size in sizes:
        coded = coded_index(index, size)
        if coded and (min_dim or dim) <= size <= dim:
            lists, _, trained = coded
            sample = ITEMS_PER_CENTRE * lists
            most = min(items, max(TRAINING_ITEMS, sample))
            training += 4 * size * (most + (sample if sample < most else 0)) if trained else 0
    return -(-training // MIB) + (NESTED_SCRATCH_MIB if index == "nested" or is_nested(items, dim) else 0)


def model_bytes(items, dim, sizes, blocks=1, field_bytes=600, index="auto", min_dim=None, item_storage="float32"):
    """Bytes of one model as a server holds it at widths up to dim: vectors, indexes, weights, catalogue."""
    min_dim = min_dim or dim
    # The vectors themselves, mapped from the checkpoint or, rounded, from files beside the indexes.
    an_item = field_bytes + VECTOR_BYTES[item_storage] * dim
    weights = narrower = centres = 0
    for size in sizes:
        if size > dim:
            break
        nested = is_nested(items, size)
        an_item += size + 20 if nested else 4 * size
        if size >= min_dim:  # the tier's own, where it is another one
            if index == "nested":
                an_item += 0 if nested else size + 20
            elif index == "Flat":
                an_item += 4 * size if nested else 0
            elif coded := coded_index(index, size):
                an_item += coded[1]
                centres += 4 * size * coded[0]
            elif index != "auto":
                an_item += 4 * size + 300
        weights += 28 * (size - narrower) * size  # seven nested matrices a block, float32
        narrower = size
    return an_item * items + centres + weights * blocks


def request_mib(model, base_mib=200, versions=2, states_mib=0, headroom=20, building=0):
    """The memory request of a pod, in MiB; everything is rounded up. building: building_mib()."""
    total = base_mib + versions * -(-model // MIB) + states_mib + building
    return -(-total * (100 + headroom) // 100)


def size_list(text):
    sizes = [int(each) for each in text.split(",")]
    if sizes != sorted(set(sizes)) or sizes[0] < 2:
        raise argparse.ArgumentTypeError(f"'{text}': sizes go up, from 2 on, such as 8,16,32")
    return sizes


def main():
    parser = argparse.ArgumentParser(description="Memory of nestrec serve, by the formula of docs/kubernetes.md")
    parser.add_argument("--items", type=int, required=True)
    parser.add_argument("--dim", type=int, required=True, help="--max-dim of the server")
    parser.add_argument("--min-dim", type=int, help="narrowest width of the tier (default: --dim)")
    parser.add_argument("--sizes", type=size_list, default=[8, 16, 32, 64, 128, 256, 512, 1024])
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--index", default="auto", help="the tier's index: auto, nested, Flat or a FAISS factory string")
    parser.add_argument("--item-storage", choices=sorted(VECTOR_BYTES), default="float32", help="as nestrec serve has it")
    parser.add_argument("--field-bytes", type=int, default=600, help="catalogue fields of an item in memory")
    parser.add_argument("--base-mib", type=int, default=200, help="the program with its libraries")
    parser.add_argument("--versions", type=int, default=2, help="models at once")
    parser.add_argument("--states-mib", type=int, default=0, help="--session-state-bytes; with a folder of sessions also --session-bytes")
    parser.add_argument("--headroom", type=int, default=20, help="percent")
    flags = parser.parse_args()
    for name, limit in (("items", 1), ("blocks", 1), ("versions", 1), ("field_bytes", 0), ("headroom", 0)):
        if getattr(flags, name) < limit:
            parser.error(f"--{name.replace('_', '-')} {getattr(flags, name)}: at least {limit}")
    for dim in (flags.dim, flags.min_dim or flags.dim):
        if dim not in flags.sizes:
            parser.error(f"dim {dim} is not one of the sizes {flags.sizes}")
    model = model_bytes(flags.items, flags.dim, flags.sizes, flags.blocks, flags.field_bytes, flags.index, flags.min_dim,
                        flags.item_storage)
    print(f"a model    {-(-model // MIB)} MiB")
    building = building_mib(flags.items, flags.dim, flags.sizes, flags.index, flags.min_dim)
    print(f"building   {building} MiB")
    print(f"request    {request_mib(model, flags.base_mib, flags.versions, flags.states_mib, flags.headroom, building)} MiB")


if __name__ == "__main__":
    main()
