#!/usr/bin/env bash
# make bench: every bench program, one after the other. NESTREC_BENCH_MODEL=<checkpoint> measures that model; without it the
# demo's is used (make demo makes it). NESTREC_BENCH_DATA=<data folder>, the model's, for evaluation_bench.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

echo "== train_bench"
build/release/bench/train_bench "$@"

echo "== session_bench --rounds 5"
build/release/bench/session_bench --rounds 5 "$@"

model="${NESTREC_BENCH_MODEL:-demo/shop-128.safetensors}"
if [[ ! -f $model ]]; then
  echo "bench: $model is not there; run make demo first, or set NESTREC_BENCH_MODEL to a checkpoint" >&2
  exit 1
fi
data="${NESTREC_BENCH_DATA:-}"
if [[ -z $data && -z ${NESTREC_BENCH_MODEL:-} && -d demo/shop ]]; then data=demo/shop; fi
if [[ -n $data ]]; then
  echo "== evaluation_bench --model $model --data $data"
  build/release/bench/evaluation_bench --model "$model" --data "$data" "$@"
fi
echo "== width_bench --model $model"
build/release/bench/width_bench --model "$model" "$@"
echo "== anytime_bench --model $model"
build/release/bench/anytime_bench --model "$model" "$@"
echo "== index_bench --model $model --items 20000"
build/release/bench/index_bench --model "$model" --items 20000 --k 10 "$@"
for bench in filter_bench live_items_bench observability_bench; do
  echo "== $bench"
  build/release/bench/$bench "$@"
done
echo "== load_bench.py --model $model"
bench/load_bench.py --model "$model"
echo "== overload_bench.py --model $model"
bench/overload_bench.py --model "$model"
echo "== reload_bench.py --model $model --duration 10 --rounds 1 --reloads 20"
bench/reload_bench.py --model "$model" --duration 10 --rounds 1 --reloads 20
