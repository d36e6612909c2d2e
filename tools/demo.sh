#!/usr/bin/env bash
# make demo: data -> training -> server -> a Recommend call per tier. With NESTREC_DATA=<data folder> on that data,
# else on a synthetic shop. Everything it makes is under demo/; what is there already is used again.
#
#   NESTREC_DEMO_DIM, NESTREC_DEMO_EPOCHS   widest size and epochs of the training
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

nestrec=build/release/cli/nestrec
work=demo
step="start"
server=""

stop_server() {
  [[ -n "$server" ]] || return 0
  kill -TERM "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  server=""
}
on_exit() {
  local code=$?
  stop_server
  if [[ $code != 0 ]]; then
    printf 'demo: failed: %s (exit code %d). The message above names the cure; "make clean; rm -r %s" starts afresh.\n' \
      "$step" "$code" "$work" >&2
  fi
  exit "$code"
}
trap on_exit EXIT
heading() { step="$1"; printf '\n== %s\n' "$1"; }

[[ -x $nestrec ]] || { echo "demo: $nestrec is not there; run make demo, which builds it" >&2; exit 1; }
mkdir -p "$work"

if [[ -n "${NESTREC_DATA:-}" ]]; then
  data="$NESTREC_DATA"
  name="$(basename "$(realpath "$data")")"
  dim="${NESTREC_DEMO_DIM:-128}" epochs="${NESTREC_DEMO_EPOCHS:-6}"
else
  name=shop
  dim="${NESTREC_DEMO_DIM:-128}" epochs="${NESTREC_DEMO_EPOCHS:-12}"
  data="$work/shop"
  heading "A synthetic shop: events and a catalogue, then nestrec prepare"
  if [[ ! -f $data/features/text.npy ]]; then
    "$nestrec" make-shop --out "$work/raw" --overwrite
    "$nestrec" prepare --events "$work/raw/events.csv" --catalogue "$work/raw/catalogue.jsonl" --out "$data" \
      --text-width 128 --overwrite
  else
    echo "$data is there already"
  fi
fi

model="$work/$name-$dim.safetensors"
heading "Training one model with every size up to $dim"
"$nestrec" train --recipe paper --data "$data" -o "$model" --dim "$dim" --epochs "$epochs" --batch-size 64 --lr 2e-3 --dropout 0.4 \
  --feature-scaling sqrt_width --name "$name" --resume

heading "Every size beside the baselines, on the test items"
"$nestrec" evaluate --model "$model" --data "$data" --baselines

heading "Serving it"
rm -f "$work/port"
"$nestrec" serve --model "$model" --listen 127.0.0.1:0 --port-file "$work/port" 2>"$work/server.log" &
server=$!
for _ in $(seq 300); do
  [[ -s $work/port ]] && break
  kill -0 "$server" 2>/dev/null || { cat "$work/server.log" >&2; server=""; exit 1; }
  sleep 0.1
done
[[ -s $work/port ]] || { echo "the server did not come up in 30 s; its log: $work/server.log" >&2; exit 1; }
address="127.0.0.1:$(cat "$work/port")"
echo "nestrec serve --model $model --listen $address"

# What the first user took before the last item, as external ids.
history=""
for number in $(head -n 1 "$data/interactions.txt" | cut -d' ' -f2- | tr ' ' '\n' | head -n -1 | tail -n 5); do
  record="$(sed -n "${number}p" "$data/items.jsonl")"
  id="$(sed -nE 's/.*"item_id": ?"([^"]*)".*/\1/p' <<<"$record")"
  [[ -n "$id" ]] || id="$(sed -nE 's/.*"asin": ?"([^"]*)".*/\1/p' <<<"$record")"
  history="${history:+$history,}$id"
done
echo "history: $history"
for tier in bronze silver gold; do
  heading "Recommend, tier $tier"
  "$nestrec" recommend --server "$address" --history "$history" --tier "$tier" --k 5
done
stop_server

cat <<EOT

Try next:
  $nestrec serve --model $model                       # then, in another terminal:
  $nestrec recommend --history "$history" --compare   # every width side by side
  $nestrec inspect $model                             # what the one file holds
  $nestrec export --model $model --dim 16 -o small.safetensors
EOT
