#!/bin/sh
# Makes a shop and trains a small model of it into the folder $1, unless there is a model already: compose's first start.
set -eu
folder="${1:?usage: make_demo_model.sh FOLDER}"
if ls "$folder"/*.safetensors >/dev/null 2>&1; then
  echo "demo model: $folder has one already"
  exit 0
fi
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
nestrec make-shop --out "$work/raw"
nestrec prepare --events "$work/raw/events.csv" --catalogue "$work/raw/catalogue.jsonl" --out "$work/shop" --text-width 128
nestrec train --recipe paper --data "$work/shop" -o "$work/shop.safetensors" --dim 128 --epochs 12 --batch-size 64 --lr 2e-3 --dropout 0.4 \
  --feature-scaling sqrt_width --name shop
# By rename, as every version: a server that looks at the folder sees it whole or not at all.
cp "$work/shop.safetensors" "$folder/.shop.part"
mv "$folder/.shop.part" "$folder/shop.safetensors"
echo "demo model: $folder/shop.safetensors"
