#!/usr/bin/env bash
# Makes the seeds of tests/fuzz/corpus anew, but for what crashed once (crash-*), which stays. Needs protoc and Python 3.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
corpus=tests/fuzz/corpus
mkdir -p $corpus/{request,server_config,checkpoint,index_file,nested_store,half_levels,faiss_store,session_files,data_files}

# request NAME FIRST_BYTE MESSAGE < text: the message behind the byte that chooses it.
request() {
  { printf "$2"; protoc --proto_path=proto --encode="nestrec.v1.$3" nestrec/v1/recommend.proto; } >"$corpus/request/$1"
}
request history '\0' RecommendRequest <<'T'
history_item_ids: ["item-1", "item-2", "none"] k: 5 tier: "gold" exclude_item_ids: "item-3" fields: ["title", "price"]
T
request budget '\0' RecommendRequest <<'T'
user_id: "u" latency_budget { nanos: 20000000 } min_quality: 0.9 min_score: 0.5 include_seen: true
T
request filter '\0' RecommendRequest <<'T'
filter { every { filters { any_of { field: "brand" values { text: "B1" } values { text: "B2" } } }
                 filters { none { filters { range { field: "price" min: 3 max: 9.5 exclude_max: true } } } }
                 filters { some { filters { exists: "tags" } filters { all_of { field: "tags" values { text: "a" } } } } } } }
T
request flags '\0' RecommendRequest <<'T'
dim: 8 only_item_ids: ["item-4", "item-5"] caps { field: "brand" most: 1 } diversity { relevance: 0.5 candidates: 40 }
filter { any_of { field: "sale" values { flag: true } values { number: 3.5 } } }
T
request encode '\7' EncodeRequest <<'T'
history_item_ids: ["item-1", "none", "item-1"] user_id: "u" tier: "gold" latency_budget { nanos: 5000000 } min_quality: 0.5 return_seen: true
T
request record '\1' RecordEventsRequest <<'T'
user_id: "u" item_ids: ["item-1", "none"] timestamps { seconds: 1700000000 nanos: 5 } timestamps { seconds: -1 } event_id: "e"
T

request upsert '\2' UpsertItemsRequest <<'T'
items { item_id: "item-1" record: '{"title":"T","price":3.5,"tags":["a"]}' } items { item_id: "new" }
T
request similar '\3' SimilarItemsRequest <<'T'
item_id: "item-1" k: 4 dim: 8 filter { exists: "tags" }
T
request batch '\4' BatchRecommendRequest <<'T'
requests { history_item_ids: "item-1" k: 3 } requests { user_id: "u" explain: true } requests { dim: 8 filter { exists: "tags" } }
T
request forget '\5' ForgetUserRequest <<'T'
user_id: "u"
T
request remove '\6' RemoveItemsRequest <<'T'
item_ids: ["item-1", "none"]
T

cat >$corpus/server_config/tiers <<'T'
# Two tiers.
tiers { name: "gold" min_dim: 8 max_dim: 64 latency_budget: "20ms" index: "IVF16,Flat" index_parameters: "nprobe=4" }
tiers { name: "bronze" dim: 8 max_k: 50 index_candidates: 10 queue_share: 0.5 priority: -3 }
default_tier: "bronze"
filter_fields: ["brand", "price"]
T
printf 'tiers { name: "a" dim: 8 } tiers { name: "a" dim: 8 }' >$corpus/server_config/twice
printf 'tiers <name: "a", dim: 0x10; queue_share: inf>' >$corpus/server_config/spelling

cp tests/golden/checkpoint_0.1.0.safetensors $corpus/checkpoint/release_0.1.0
python3 - $corpus <<'P'
import json, struct, sys
corpus = sys.argv[1]

def safetensors(header, data):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data

def write(name, data):
    with open(f"{corpus}/{name}", "wb") as file:
        file.write(data)

one = {"__metadata__": {"format": "nestrec", "format_version": "1"},
       "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
       "b": {"dtype": "U8", "shape": [4], "data_offsets": [24, 28]}}
write("checkpoint/two_tensors", safetensors(one, bytes(28)))
one["a"]["shape"] = [2**62, 2**62]
write("checkpoint/overflow", safetensors(one, bytes(28)))

key = b"key"
header = (b"NRINDEX\0" + struct.pack("<II", 1, len(key)) + key).ljust(64, b"\0")
write("index_file/wrong_checksums", header + b"payload" + struct.pack("<QQQQ", 7, 1, 2, 3))

write("index_file/whole", header + b"payload")  # the target adds a footer

def edits(*changes, cut=0):
    return b"".join(struct.pack("<I", place | value << 24) for place, value in changes) + bytes([cut] if cut else [])

# The first byte: 0, edits of a good payload follow; 1, the payload itself.
for folder in ("nested_store", "half_levels"):
    write(f"{folder}/good", b"\0")
    write(f"{folder}/edited", b"\0" + edits((8, 1), (60, 255)))
    write(f"{folder}/cut", b"\0" + edits(cut=9))
    write(f"{folder}/other", b"\1" + struct.pack("<QIIIIdd", 1024, 32, 1, 0, 0, 0.0, 1.0))
# The kind of index, the vectors that it is of, those that are wanted, bytes to cut off, what follows.
for kind, name in enumerate(("flat", "sq", "hnsw")):
    write(f"faiss_store/{name}", bytes([kind, 0, 0]))
    write(f"faiss_store/{name}_of_others", bytes([kind, 0, 1]))
    write(f"faiss_store/{name}_cut", bytes([kind, 1, 1, 5, 0]))
    write(f"faiss_store/{name}_long", bytes([kind, 1, 1, 0, 0, 7]))

def text(value):
    return bytes([len(value)]) + value

append = b"\1" + text(b"user") + struct.pack("<Q", 7) + b"\0" + struct.pack("<q", 1000) + b"\1" + bytes(16) + \
    b"\2" + struct.pack("<q", 999) + text(b"item-1") + struct.pack("<q", -5) + text(b"")
write("session_files/append", append)
write("session_files/forget", b"\2" + text(b"user") + struct.pack("<Q", 7))
write("session_files/whole", b"\3" + append[1:])
write("session_files/end", b"\4\5")
write("session_files/events_header", b"nrevents" + struct.pack("<IIQQ", 1, 0, 1, 0))

shape = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"
write("data_files/npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(shape) + 1) + shape + b"\n" + bytes(24))
write("data_files/item.json", '{"item_id":"1","title":"é \\u00fc","price":"12.99","tags":["a",{"b":[1e3,true,null]}]}'.encode())
P
