#!/usr/bin/env python3
"""`nestrec prepare` for logs that outgrow one machine, on Apache Spark: the same interactions.txt and items.jsonl, byte for byte.
Features are made from items.jsonl afterwards, by tools/encode_items.py or an encoder of yours (docs/scaling.md).

    spark-submit tools/prepare_spark.py --events hdfs:///logs/2026/*.csv --catalogue hdfs:///items.jsonl --out shop
    python3 tools/prepare_spark.py --master 'local[4]' --events a.csv b.jsonl.gz --out shop

Flags have the names, meanings and defaults of `nestrec prepare` (docs/data.md has the rules). What differs: a quoted CSV field may not
go on in another line (Spark reads by lines; the job stops and says where), the flags of features and --show-bad-lines are not there, bad
lines are counted once all are read, and the files of --events count in the order of their names as given, a pattern's in that of the alphabet.
"""
import argparse
import ast
import datetime
import json
import math
import os
import re
import sys

FIELDS = {
    "user": ["user_id", "user", "userid", "reviewerID", "customer_id", "visitorid"],
    "item": ["item_id", "item", "itemid", "parent_asin", "asin", "product_id", "movieid"],
    "timestamp": ["timestamp", "time", "unixReviewTime", "ts", "event_time", "date"],
    "rating": ["rating", "overall", "score", "stars"],
}
CATALOGUE_IDS = ["item_id", "parent_asin", "asin", "item", "itemid", "product_id", "movieid", "id"]
MAX_ID_BYTES = 1024
ASCII_SPACE = " \t\n\v\f\r"


class BadLine(ValueError):
    """This line cannot be used; it is counted and left out."""


class Unusable(Exception):
    """The job cannot go on; the message names the cure."""


# --- Text, as nestrec writes it ------------------------------------------------------------------


def encode_user_id(user):
    """White space, control characters and % as %XX, byte by byte in UTF-8."""
    return re.sub("[\x00-\x20\x7f%\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]",
                  lambda found: "".join(f"%{byte:02X}" for byte in found.group().encode()), user)


def dump_float(value):
    """The shortest digits that give the number back: as integers with .0 or with a point from 1e-5 on up to 15 digits."""
    if not math.isfinite(value):
        return "null"
    if value == 0:
        return "-0.0" if math.copysign(1, value) < 0 else "0.0"
    sign = "-" if value < 0 else ""
    mantissa, exponent = f"{abs(value)!r}e0".split("e")[:2]
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent) - (len(whole + fraction) - len(digits))  # digits before the decimal point
    digits = digits.rstrip("0")
    if len(digits) <= point <= 15:
        return f"{sign}{digits}{'0' * (point - len(digits))}.0"
    if 0 < point <= 15:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -4 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    power = point - 1
    body = digits if len(digits) == 1 else f"{digits[0]}.{digits[1:]}"
    return f"{sign}{body}e{'-' if power < 0 else '+'}{abs(power):02d}"


ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def dump_text(text):
    return '"' + re.sub('["\\\\\x00-\x1f]', lambda found: ESCAPES.get(found.group(), f"\\u{ord(found.group()):04x}"), text) + '"'


def dump(value):
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value) if -2**63 <= value < 2**64 else dump_float(float(value))
    if isinstance(value, float):
        return dump_float(value)
    if isinstance(value, str):
        return dump_text(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{dump_text(key)}:{dump(each)}" for key, each in value.items()) + "}"
    return "[" + ",".join(dump(each) for each in value) + "]"


def id_text(value):
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return str(value)
    return value if isinstance(value, str) and value else None


def record_line(item_id, record):
    line = {"item_id": item_id}
    for name, value in record.items():
        if name not in ("item_id", "id"):
            line[name] = value
        elif id_text(value) != item_id:
            line["source_" + name] = value
    return dump(line)


def leaves(value):
    """What a field says, piece by piece: null says nothing, lists and objects say what is in them."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [leaf for each in value for leaf in leaves(each)]
    return [] if value is None else [value]


def has_text(record, fields):
    """Whether nestrec's text of the record's fields (pieces joined by ", ") has anything in it."""
    values = json.loads(record)
    texts = [leaves(values.get(field)) for field in fields]
    return any(len(each) > 1 or each and each[0] != "" for each in texts)


# --- One line of input ---------------------------------------------------------------------------


def refuse_constant(name):
    raise ValueError(f"{name} is no number")


def refuse_infinity(text):
    value = float(text)
    return value if math.isfinite(value) else refuse_constant(text)


def refuse_huge(text):
    refuse_infinity(text)
    return int(text)


def is_finite(value):
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return abs(value) < 2**1024
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return all(is_finite(each) for each in inner)


def parse_record(text):
    try:
        value = json.loads(text, parse_constant=refuse_constant, parse_float=refuse_infinity, parse_int=refuse_huge)
    except ValueError as error:
        try:  # the Amazon metadata of 2014: a Python dict a line; nothing is evaluated
            value = ast.literal_eval(text.strip())
            if not is_finite(value):
                refuse_constant("a number in it")
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise BadLine(f"neither JSON nor a Python literal: {error}") from None
    if not isinstance(value, dict):
        raise BadLine("not a JSON object")
    return value


def parse_time(text):
    """(whole seconds or what the unit is, nanos)."""
    text = text.strip(ASCII_SPACE)
    if re.fullmatch(r"[+-]?[0-9]+", text):
        if not -2**63 <= int(text) < 2**63:
            raise BadLine(f"'{text[:40]}' is no time (a number or ISO 8601)")
        return int(text), 0
    found = re.fullmatch(r"([+-]?[0-9]+)\.([0-9]*)", text)
    if found:
        whole, nanos = int(found.group(1)), int(found.group(2)[:9].ljust(9, "0"))
        return (whole - 1, 10**9 - nanos) if text[0] == "-" and nanos else (whole, nanos)
    found = re.fullmatch(r"(\d{4})-(\d{2})-(\d{2})(?:[T t](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d*))?)?(Z|z|[+-]\d{2}:?\d{2})?)?", text)
    if found:
        year, month, day, hour, minute, second = (int(found.group(i) or 0) for i in range(1, 7))
        try:
            moment = datetime.datetime(year, month, day, hour, minute, min(second, 59), tzinfo=datetime.timezone.utc)
        except ValueError:
            raise BadLine(f"'{text[:40]}' is no time (a number or ISO 8601)") from None
        seconds = (moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)) // datetime.timedelta(seconds=1)
        zone = found.group(8) or "Z"
        offset = 0
        if zone not in "Zz":
            offset = (int(zone[1:3]) * 3600 + int(zone[-2:]) * 60) * (-1 if zone[0] == "-" else 1)
        return seconds + (1 if second == 60 else 0) - offset, int((found.group(7) or "")[:9].ljust(9, "0"))
    try:
        value = float(text) if re.fullmatch(r"[+\-.0-9eE]+", text) else math.nan
    except ValueError:
        value = math.nan
    if not abs(value) < 9.2e18:
        raise BadLine(f"'{text[:40]}' is no time (a number or ISO 8601)")
    return math.floor(value), int((value - math.floor(value)) * 1e9)


def split_record(line, delimiter):
    fields, at = [], 0
    while True:
        while at < len(line) and line[at] == " ":
            at += 1
        if at < len(line) and line[at] == '"':
            at += 1
            field = ""
            while True:
                quote = line.find('"', at)
                if quote < 0:
                    raise Unusable(f"a quoted field does not end in its line, which Spark cannot read: {line[:100]!r}; "
                                   "prepare this file with nestrec prepare, or take the line ends out of its fields")
                field += line[at:quote]
                at = quote + 1
                if line[at:at + 1] != '"':
                    break
                field += '"'
                at += 1
            while at < len(line) and line[at] == " ":
                at += 1
            if at < len(line) and not line.startswith(delimiter, at):
                raise BadLine("text after a closing quote (a quote inside a field is doubled)")
        else:
            end = line.find(delimiter, at)
            end = len(line) if end < 0 else end
            field = line[at:end].rstrip(ASCII_SPACE)
            at = end
        fields.append(field)
        if at >= len(line):
            return fields
        at += len(delimiter)


def make_event(values, options):
    """(user, item, whole, nanos), None for one below the least rating, or BadLine."""
    for what in ("user", "item"):
        if not values[what]:
            raise BadLine(f"the {what} is empty")
        if len(values[what].encode()) > MAX_ID_BYTES:
            raise BadLine(f"the {what} id is longer than {MAX_ID_BYTES} bytes")
        if "\ufffd" in values[what]:
            raise Unusable(f"the {what} id {values[what][:100]!r} is not UTF-8; convert the file with iconv")
    whole, nanos = (0, 0) if options.no_timestamps else parse_time(values["timestamp"])
    if options.min_rating is not None:
        rating = None
        if values["rating"]:
            try:
                rating = float(values["rating"].replace("_", "?"))
            except ValueError:
                rating = math.nan
            if not math.isfinite(rating):
                raise BadLine(f"'{values['rating'][:40]}' is no rating (a number)")
        if rating is None or rating < options.min_rating:
            return None
    return values["user"], values["item"], whole, nanos


def json_values(text, names, options):
    record = parse_record(text)
    values = {}
    for what, candidates in names.items():
        found = None
        for name in candidates:
            keys = [key for key in record if key.lower() == name.lower() and record[key] is not None]
            if keys:
                value = record[keys[0]]
                if isinstance(value, (str, int, float)) and not isinstance(value, bool):
                    found = value if isinstance(value, str) else dump(value)
                break
        needed = what in ("user", "item") or what == "timestamp" and not options.no_timestamps
        if found is None and needed:
            raise BadLine(f"no {what} (a string or a number called {', '.join(candidates)})")
        values[what] = found or ""
    return values


# --- The job -------------------------------------------------------------------------------------


def read_lines(spark, path):
    """(offset, line) of a file in one pass; lines end with \\n alone, as in nestrec."""
    lines = spark.sparkContext.newAPIHadoopFile(
        path, "org.apache.hadoop.mapreduce.lib.input.TextInputFormat", "org.apache.hadoop.io.LongWritable", "org.apache.hadoop.io.Text",
        conf={"textinputformat.record.delimiter": "\n"})

    def clean(pair):
        offset, line = pair
        if offset == 0 and line.startswith("\ufeff"):
            line = line[1:]
        return offset, line[:-1] if line.endswith("\r") else line

    return lines.map(clean).filter(lambda pair: pair[1].strip(ASCII_SPACE))


def list_files(spark, patterns):
    """What the patterns name, in order; remote file systems as well."""
    jvm = spark.sparkContext._jvm  # Hadoop's own file systems: the only way to list s3a:// or hdfs:// from here
    configuration = spark.sparkContext._jsc.hadoopConfiguration()
    files = []
    for pattern in patterns:
        path = jvm.org.apache.hadoop.fs.Path(pattern)
        found = path.getFileSystem(configuration).globStatus(path)
        if not found:
            raise Unusable(f"{pattern} is not there")
        for status in sorted(found, key=lambda each: each.getPath().toString()):
            if status.isDirectory():
                raise Unusable(f"{pattern} is a folder; name its files, such as {pattern.rstrip('/')}/*.csv")
            files.append(status.getPath().toString())
    return files


def guess_delimiter(line):
    best, most = ",", 0
    for candidate in (",", "\t", "::", ";", "|"):
        if line.count(candidate) > most:
            best, most = candidate, line.count(candidate)
    return best


def event_parser(path, first, options):
    """A function from (offset, line) to the event's values, or None for the header."""
    names = {what: [getattr(options, what + "_field")] if getattr(options, what + "_field") else usual for what, usual in FIELDS.items()}
    name = re.sub(r"\.gz$", "", path.lower())
    if options.format == "jsonl" or options.format == "auto" and (
            name.endswith((".json", ".jsonl", ".ndjson")) or not name.endswith((".csv", ".tsv")) and first[1].lstrip(ASCII_SPACE).startswith("{")):
        return lambda pair: json_values(pair[1], names, options)
    delimiter = options.delimiter or ("\t" if name.endswith(".tsv") else guess_delimiter(first[1]))
    header = split_record(first[1], delimiter)
    columns = [each.strip(ASCII_SPACE) for each in options.columns.split(",")] if options.columns else header
    has_header = not options.columns or [each.lower() for each in header] == [each.lower() for each in columns]
    place = {}
    for what, candidates in names.items():
        found = [columns.index(each) for name in candidates for each in columns if each.lower() == name.lower()]
        place[what] = found[0] if found else -1
        needed = what in ("user", "item") or what == "timestamp" and not options.no_timestamps or what == "rating" and options.min_rating is not None
        if needed and not found:
            raise Unusable(f"{path} has no {what} column; its columns are {columns}. Name the column with --{what}-field, or all columns of "
                           "a file without a header in order with --columns user,item,timestamp,rating")

    def parse(pair):
        if has_header and pair[0] == first[0]:
            return None
        fields = split_record(pair[1], delimiter)
        if len(fields) != len(columns):
            raise BadLine(f"{len(fields)} fields, but there are {len(columns)} columns")
        return {what: fields[at] if at >= 0 else "" for what, at in place.items()}

    return parse


def keep(table):
    """The table computed once, here: on the executors, or where --checkpoint says."""
    return table.checkpoint() if table.sparkSession.sparkContext.getCheckpointDir() else table.localCheckpoint()


def check_bad(total, bad, limit, what, example):
    """limit: of --max-bad-lines; None: as long as most lines are good."""
    if total == 0:
        raise Unusable(f"{what} has nothing in it")
    if limit is not None and bad > limit:
        raise Unusable(f"{bad} of {total} lines of {what} cannot be used, and {limit or 'none'} may be bad (--strict, --max-bad-lines): {example}")
    if limit is None and bad * 2 > total:
        raise Unusable(f"{bad} of {total} lines of {what} cannot be used, so the format is probably another one than these flags say: {example}")
    if bad:
        print(f"{what}: {bad} of {total} lines cannot be used, such as: {example}", file=sys.stderr)


class Counts:
    """Lines and bad lines of an input; right where each line is parsed once, so a table is kept as soon as it is read."""

    def __init__(self, spark):
        self.lines = spark.sparkContext.accumulator(0)
        self.bad = spark.sparkContext.accumulator(0)


def read_events(spark, options):
    counts, parts = Counts(spark), []
    for number, path in enumerate(list_files(spark, options.events)):
        lines = read_lines(spark, path)
        first = lines.take(1)
        if not first:
            continue
        parse = event_parser(path, first[0], options)

        def events(pairs, parse=parse, number=number):
            for pair in pairs:
                try:
                    values = parse(pair)
                    if values is None:
                        continue
                    event = make_event(values, options)
                except BadLine:
                    counts.bad.add(1)
                    event = None
                counts.lines.add(1)
                if event is not None:
                    yield (*event, number, pair[0])

        parts.append(lines.mapPartitions(events))
    if not parts:
        raise Unusable(f"{options.events[0]} has no events")
    table = spark.createDataFrame(spark.sparkContext.union(parts), "user string, item string, whole long, nanos int, file int, at long")
    table = keep(table)
    check_bad(counts.lines.value, counts.bad.value, options.max_bad_lines, "the logs", "see --format, --delimiter, --columns")
    return table


def filter_events(events, records, options, functions, window):
    order = [functions.col(each) for each in ("whole", "nanos", "file", "at")]
    if not options.no_timestamps:
        same = window.partitionBy("user", "item", "whole", "nanos").orderBy("file", "at")
        events = events.withColumn("n", functions.row_number().over(same)).filter("n = 1").drop("n")
    if options.repeats != "keep":
        back = options.repeats == "last"
        one = window.partitionBy("user", "item").orderBy(*([each.desc() for each in order] if back else order))
        events = events.withColumn("n", functions.row_number().over(one)).filter("n = 1").drop("n")
    if options.drop_without_metadata:
        fields = options.text_fields
        described = records.rdd.filter(lambda row: has_text(row.record, fields)).map(lambda row: (row.item,))
        events = events.join(events.sparkSession.createDataFrame(described, "item string"), "item", "left_semi")
    events = keep(events)
    before = events.count()
    if before == 0 and options.drop_without_metadata:
        raise Unusable("no item of the logs has metadata; leave out --drop-without-metadata")
    while options.k_core > 0 and before > 0:
        for key in ("user", "item"):
            enough = events.groupBy(key).count().filter(functions.col("count") >= options.k_core).select(key)
            events = events.join(enough, key, "left_semi")
        events = keep(events)
        left = events.count()
        if left == before:
            break
        before = left
    if before == 0:
        raise Unusable(f"nothing is left: no part of the events has at least {options.k_core} for each of its users and items; lower --k-core")
    return events


def write_lines(path, lines):
    part = path + ".part"
    with open(part, "w", encoding="utf-8", newline="") as file:
        for line in lines:
            file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def read_catalogue(spark, options):
    names = [options.item_id_field] if options.item_id_field else CATALOGUE_IDS
    counts, parts = Counts(spark), []
    for number, path in enumerate(list_files(spark, options.catalogue)):

        def records(pairs, number=number):
            for offset, line in pairs:
                counts.lines.add(1)
                try:
                    record = parse_record(line)
                    name = next((each for each in names if record.get(each) is not None), None)
                    item = id_text(record[name]) if name else None
                    if item is None:
                        raise BadLine("no id field")
                except BadLine:
                    counts.bad.add(1)
                    continue
                yield item, record_line(item, record), number, offset

        parts.append(read_lines(spark, path).mapPartitions(records))
    table = spark.createDataFrame(spark.sparkContext.union(parts), "item string, record string, file int, at long")
    table = keep(table)
    check_bad(counts.lines.value, counts.bad.value, options.max_bad_lines, "the catalogue", "a JSON object a line is expected; --item-id-field names the id")
    return table


def prepare(spark, options):
    from pyspark.sql import Window, functions

    raw = read_events(spark, options)
    first_seen = raw.groupBy("user").agg(functions.min(functions.struct("file", "at")).alias("first"))
    records = None
    if options.catalogue:
        catalogue = read_catalogue(spark, options)
        if not raw.select("item").join(catalogue, "item", "left_semi").take(1):
            raise Unusable(f"none of the items of the logs is in {options.catalogue[0]}; does --item-id-field name the right field?")
        best = catalogue.groupBy("item").agg(functions.min(functions.struct("file", "at", "record")).alias("best"))
        records = best.select("item", functions.col("best.record").alias("record"))
    events = filter_events(raw, records, options, functions, Window)
    # Users in the order of the logs, items in that of interactions.txt.
    events = events.join(first_seen, "user")
    place = functions.struct("first", "whole", "nanos", "file", "at")
    firsts = events.groupBy("item").agg(functions.min(place).alias("place")).orderBy("place").select("item")
    numbers = spark.createDataFrame(firsts.rdd.zipWithIndex().map(lambda pair: (pair[0].item, pair[1] + 1)), "item string, number long")
    numbers = keep(numbers)
    items = numbers.count()
    if items < 2:
        raise Unusable("fewer than two items are left; there is nothing to choose from. Use more events, or lower --k-core")

    os.makedirs(options.out, exist_ok=True)
    if records is not None:
        table = numbers.join(records, "item", "left")
    else:
        table = numbers.withColumn("record", functions.lit(None).cast("string"))
    ordered = table.orderBy("number").select("item", "record")
    write_lines(os.path.join(options.out, "items.jsonl"),
                (row.record if row.record is not None else record_line(row.item, {}) for row in ordered.toLocalIterator()))

    sequences = (events.join(numbers, "item")
                 .groupBy("first", "user")
                 .agg(functions.sort_array(functions.collect_list(functions.struct("whole", "nanos", "file", "at", "number"))).alias("events"))
                 .orderBy("first").select("user", functions.col("events.number").alias("numbers")))
    users = spark.sparkContext.accumulator(0)

    def lines():
        for row in sequences.toLocalIterator():
            users.add(1)
            yield encode_user_id(row.user) + " " + " ".join(map(str, row.numbers))

    write_lines(os.path.join(options.out, "interactions.txt"), lines())
    print(f"{options.out}: {users.value} users, {items} items, {events.count()} events")


def parse_flags():
    parser = argparse.ArgumentParser(description="nestrec prepare on Apache Spark: interactions.txt and items.jsonl, byte for byte the same")
    parser.add_argument("--events", nargs="+", required=True, metavar="FILE")
    parser.add_argument("--catalogue", nargs="+", default=[], metavar="FILE")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder on the driver's machine")
    parser.add_argument("--overwrite", action="store_true")
    parser.add_argument("--format", choices=("auto", "csv", "jsonl"), default="auto")
    parser.add_argument("--columns", default="", metavar="NAMES")
    parser.add_argument("--delimiter", default="")
    for what in FIELDS:
        parser.add_argument(f"--{what}-field", default="")
    parser.add_argument("--no-timestamps", action="store_true")
    parser.add_argument("--item-id-field", default="")
    parser.add_argument("--k-core", type=int, default=5)
    parser.add_argument("--min-rating", type=float)
    parser.add_argument("--drop-without-metadata", action="store_true")
    parser.add_argument("--text-fields", default="title,price,brand,categories", metavar="NAMES", help="what --drop-without-metadata looks for")
    parser.add_argument("--max-bad-lines", type=int, metavar="N")
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--repeats", choices=("keep", "first", "last"), default="keep")
    parser.add_argument("--checkpoint", metavar="DIR", help="where steps are kept, on a shared file system: they survive a lost executor")
    parser.add_argument("--master", help="such as local[4]; default: what spark-submit says")
    options = parser.parse_args()
    if options.k_core < 0:
        parser.error(f"--k-core is {options.k_core}; it must be 0 (keep everything) or more")
    if options.max_bad_lines is not None and not 0 <= options.max_bad_lines <= 1_000_000_000:
        parser.error(f"--max-bad-lines is {options.max_bad_lines}; it must be 0 to 1000000000")
    if options.strict:
        options.max_bad_lines = 0
    if options.drop_without_metadata and not options.catalogue:
        parser.error("--drop-without-metadata needs a catalogue; name one with --catalogue")
    options.text_fields = [each for each in options.text_fields.split(",") if each.strip()]
    if options.delimiter == "\\t":
        options.delimiter = "\t"
    if os.path.isdir(options.out) and os.listdir(options.out) and not options.overwrite:
        parser.error(f"--out {options.out} is not empty; --overwrite replaces the data in it")
    return options


def main():
    options = parse_flags()
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        sys.exit("error: pyspark is not there; run this by spark-submit, or pip install pyspark (and install a Java runtime)")
    builder = SparkSession.builder.appName("nestrec prepare").config("spark.ui.showConsoleProgress", "false")
    if options.master:
        builder = builder.master(options.master)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    if options.checkpoint:
        spark.sparkContext.setCheckpointDir(options.checkpoint)
    try:
        prepare(spark, options)
    except Unusable as error:
        sys.exit(f"error: {error}")
    except Exception as error:  # what a worker raised arrives wrapped in the text of another one
        found = re.search(r"Unusable: (.*)", str(error))
        if not found:
            raise
        sys.exit(f"error: {found.group(1)}")
    finally:
        spark.stop()


if __name__ == "__main__":
    main()
