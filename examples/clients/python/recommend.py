"""python3 recommend.py <host:port> <tier> <item id> ...: prints what fits, best first."""
import sys
from pathlib import Path

import grpc

from nestrec.v1 import recommend_pb2, recommend_pb2_grpc

server, tier, *history = sys.argv[1:]
service_config = (Path(__file__).parent.parent / "service_config.json").read_text()
with grpc.insecure_channel(server, [("grpc.service_config", service_config)]) as channel:
    service = recommend_pb2_grpc.RecommendServiceStub(channel)
    request = recommend_pb2.RecommendRequest(history_item_ids=history, tier=tier, k=5)
    for item in service.Recommend(request, timeout=5).items:
        print(item.item_id, item.fields.get("title", ""), sep="\t")
