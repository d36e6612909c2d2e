#!/usr/bin/env python3
"""Makes item features (.npy) with a pretrained encoder: text with sentence-transformers, images with SigLIP or CLIP.

  tools/encode_items.py --data data/shop --modality text --model /models/all-MiniLM-L6-v2
  tools/encode_items.py --data data/shop --modality image --model /models/siglip-base --image-dir photos

writes data/shop/features/text.npy and image.npy: float32 [items, width], row r-1 belongs to line r of items.jsonl; an item
without text or image gets a row of zeros. With --items and --out it works on any file of JSON lines, for example a raw
catalogue, whose rows `nestrec prepare --features text=text.npy` then puts in order.

The model is a folder, or a name that the library knows how to fetch. Needs Python packages that nestrec does not: numpy and
sentence-transformers for text; numpy, torch, transformers and pillow for images.
"""
import argparse
import json
import os
import sys
import tempfile
import time

PACKAGES = {"text": "numpy sentence-transformers", "image": "numpy torch transformers pillow"}


class Failure(Exception):
    """What a person can do something about; printed without a traceback."""


def read_items(path):
    """The records of a file of JSON lines, in order. Empty lines at the end do not count."""
    try:
        with open(path, encoding="utf-8-sig", newline="\n") as file:
            lines = [line.strip() for line in file.read().split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"cannot read {path}: {error}") from error
    while lines and not lines[-1]:
        lines.pop()
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise Failure(f"{path}:{number}: not valid JSON ({error})") from error
        if not isinstance(record, dict):
            raise Failure(f"{path}:{number}: not a JSON object")
        records.append(record)
    if not records:
        raise Failure(f"{path} describes no items")
    return records


def value_text(value):
    """A field as text: lists and objects are their values joined by ", "."""
    if value is None:
        return ""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return ", ".join(part for part in map(value_text, value) if part)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value).strip()


def item_text(record, fields):
    """The item's text: its fields in order, as sentences."""
    return ". ".join(text for text in (value_text(record.get(field)) for field in fields) if text)


def image_path(record, field, folder):
    """The file of the item's first image, or None."""
    value = record.get(field)
    while isinstance(value, (list, dict)) and value:
        value = value[0] if isinstance(value, list) else next(iter(value.values()))
    if not isinstance(value, str) or not value:
        return None
    if "://" in value:
        raise Failure(f"the field {field} holds addresses such as {value}; fetch the images first, keep their file names in that "
                      "field, and name their folder with --image-dir")
    return os.path.join(folder, value)


def show(done, total, started):
    """A line on a terminal, redrawn; nothing elsewhere."""
    if sys.stderr.isatty():
        rate = done / max(time.monotonic() - started, 1e-9)
        print(f"\r\x1b[K{done}/{total} items, {rate:.0f}/s", end="\n" if done == total else "", file=sys.stderr, flush=True)


def encode_texts(records, args):
    """(row numbers, vectors) of the items that have text."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise Failure(f"text needs the Python package sentence-transformers ({error}); pip install {PACKAGES['text']}") from error
    fields = [field.strip() for field in args.fields.split(",") if field.strip()]
    texts = [item_text(record, fields) for record in records]
    rows = [row for row, text in enumerate(texts) if text]
    if not rows:
        raise Failure(f"no item has any of the fields {', '.join(fields)}; name others with --fields")
    try:
        model = SentenceTransformer(args.model, device=args.device)
    except Exception as error:  # the library raises many kinds
        raise Failure(f"cannot load the model {args.model}: {first_line(error)}") from error
    # Of like length together, so that little is padded.
    rows.sort(key=lambda row: len(texts[row]))
    vectors = []
    started = time.monotonic()
    for begin in range(0, len(rows), args.batch_size):
        batch = [texts[row] for row in rows[begin:begin + args.batch_size]]
        vectors.extend(model.encode(batch, batch_size=args.batch_size, normalize_embeddings=not args.no_normalize,
                                    convert_to_numpy=True, show_progress_bar=False))
        show(min(begin + args.batch_size, len(rows)), len(rows), started)
    return rows, vectors


def load_image_model(args):
    """(torch, PIL.Image, processor, model)"""
    try:
        import torch
        from PIL import Image
        from transformers import AutoImageProcessor, AutoModel
    except ImportError as error:
        raise Failure(f"images need Python packages ({error}); pip install {PACKAGES['image']}") from error
    try:
        processor = AutoImageProcessor.from_pretrained(args.model)
        model = AutoModel.from_pretrained(args.model).eval().to(args.device or "cpu")
    except Exception as error:
        raise Failure(f"cannot load the model {args.model}: {first_line(error)}") from error
    if not hasattr(model, "get_image_features"):
        raise Failure(f"the model {args.model} has no image encoder that goes with texts; use a SigLIP or CLIP model")
    return torch, Image, processor, model


def open_image(Image, path):
    """The image, or None when the file is missing or is none."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        print(f"{path}: {first_line(error)}", file=sys.stderr)
        return None


def encode_images(records, args):
    """(row numbers, vectors) of the items that have an image."""
    paths = [image_path(record, args.image_field, args.image_dir) for record in records]
    wanted = [row for row, path in enumerate(paths) if path]
    if not wanted:
        raise Failure(f"no item has the field {args.image_field} with a file name; name another with --image-field")
    torch, Image, processor, model = load_image_model(args)
    rows, vectors = [], []
    started = time.monotonic()
    for begin in range(0, len(wanted), args.batch_size):
        batch = [(row, open_image(Image, paths[row])) for row in wanted[begin:begin + args.batch_size]]
        batch = [(row, image) for row, image in batch if image is not None]
        if batch:
            inputs = processor(images=[image for _, image in batch], return_tensors="pt").to(model.device)
            with torch.inference_mode():
                output = model.get_image_features(pixel_values=inputs["pixel_values"])
            # A tensor, or in newer versions of transformers an output that holds it.
            output = output if isinstance(output, torch.Tensor) else output.pooler_output
            if not args.no_normalize:
                output = torch.nn.functional.normalize(output, dim=-1)
            rows.extend(row for row, _ in batch)
            vectors.extend(output.float().cpu().numpy())
        show(min(begin + args.batch_size, len(wanted)), len(wanted), started)
    if not rows:
        raise Failure(f"none of the {len(wanted)} image files could be read; does --image-dir name their folder?")
    return rows, vectors


def first_line(error):
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def write_features(path, items, rows, vectors):
    """Writes float32 [items, width] in one step: the file is there whole, or as it was."""
    import numpy
    matrix = numpy.zeros((items, len(vectors[0])), dtype="<f4")
    matrix[rows] = numpy.asarray(vectors, dtype="<f4")
    if not numpy.isfinite(matrix).all():
        raise Failure(f"row {int(numpy.argwhere(~numpy.isfinite(matrix))[0][0])} of the features is not finite; try --device cpu")
    folder = os.path.dirname(os.path.abspath(path))
    try:
        os.makedirs(folder, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=os.path.basename(path) + ".tmp.", dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                numpy.lib.format.write_array(file, matrix, version=(1, 0), allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(temporary, 0o666 & ~mask)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise Failure(f"cannot write {path}: {error}") from error
    return matrix.shape


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", metavar="DIR", help="data folder: reads items.jsonl, writes features/<modality>.npy")
    source.add_argument("--items", metavar="FILE", help="any file with a JSON object per line; needs --out")
    parser.add_argument("--out", metavar="FILE", help="the .npy to write")
    parser.add_argument("--modality", choices=["text", "image"], default="text", help="what to encode (default: text)")
    parser.add_argument("--name", help="name of the features in the data folder (default: the modality)")
    parser.add_argument("--model", required=True, help="folder or name of the encoder")
    parser.add_argument("--fields", default="title,price,brand,categories", help="fields of the text, in order (default: %(default)s)")
    parser.add_argument("--image-field", default="image", help="field with the image's file name (default: %(default)s)")
    parser.add_argument("--image-dir", default=".", help="folder of the image files (default: the current one)")
    parser.add_argument("--batch-size", type=int, default=64, help="items at a time (default: %(default)s)")
    parser.add_argument("--device", help="cpu, cuda, ... (default: the library's choice for text, cpu for images)")
    parser.add_argument("--no-normalize", action="store_true", help="leave vectors as long as the encoder makes them")
    parser.add_argument("--overwrite", action="store_true", help="replace features that are there")
    args = parser.parse_args(arguments)
    if args.batch_size < 1:
        parser.error(f"--batch-size is {args.batch_size}; it must be at least 1")
    if args.items and not args.out:
        parser.error("--items needs --out")
    return args


def run(args):
    items_path = args.items or os.path.join(args.data, "items.jsonl")
    out = args.out or os.path.join(args.data, "features", f"{args.name or args.modality}.npy")
    if os.path.exists(out) and not args.overwrite:
        raise Failure(f"{out} exists; replace it with --overwrite, or write elsewhere with --name or --out")
    if args.model.startswith(("/", ".", "~")) and not os.path.isdir(args.model):
        raise Failure(f"there is no model folder {args.model}")
    records = read_items(items_path)
    encode = encode_texts if args.modality == "text" else encode_images
    rows, vectors = encode(records, args)
    encoder = os.path.join(os.path.dirname(out), "text.encoder.safetensors")
    if os.path.basename(out) == "text.npy" and os.path.exists(encoder):
        os.unlink(encoder)
        print(f"removed {encoder}, which made the text features before")
    items, width = write_features(out, len(records), rows, vectors)
    print(f"{out}: {items} items, {width} wide, {items - len(rows)} without {args.modality}")


def main():
    try:
        run(parse_arguments(sys.argv[1:]))
    except Failure as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
