#!/bin/sh
# Brings the model versions of a list into a folder, and takes those away that the list no longer has.
#
#   fetch.sh once    bring them all; fails when one cannot be brought
#   fetch.sh watch   look at the list every $POLL_SECONDS; what fails is tried again
#
# $LIST has a line `name url sha256` per version, $MODELS is the folder, $LABELS (may be empty) the labels.textproto to put
# there, $HEADER_FILE (may be unset) a file with a header for the download. A version appears under its name whole and
# with the checksum of the list, or not at all; one that is there is never fetched or written again.
set -u

say() { printf 'models: %s\n' "$*" >&2; }

fetch() {  # name url sha256
  part="$MODELS/.$1.part"
  say "fetching $1 from $2"
  if [ -n "${HEADER_FILE:-}" ]; then set -- "$1" "$2" "$3" --header "@$HEADER_FILE"; fi
  name=$1 url=$2 sum=$3
  shift 3
  if ! curl --fail --silent --show-error --location --proto '=https' --connect-timeout 10 --retry 3 "$@" \
      --output "$part" "$url"; then
    say "$name cannot be fetched from $url; the message above says why"
    rm -f "$part"
    return 1
  fi
  actual=$(sha256sum "$part" | cut -d ' ' -f 1)
  if [ "$actual" != "$sum" ]; then
    say "$name is refused: its SHA-256 is $actual, the list says $sum; correct model.https.versions"
    rm -f "$part"
    return 1
  fi
  mv "$part" "$MODELS/$name.safetensors" && say "$name is there"
}

pass() {
  failed=0
  while read -r name url sum; do
    [ -n "$name" ] || continue
    [ -e "$MODELS/$name.safetensors" ] || fetch "$name" "$url" "$sum" || failed=1
  done <"$LIST"
  if [ -s "${LABELS:-/dev/null}" ]; then
    if ! cmp -s "$LABELS" "$MODELS/labels.textproto"; then
      cp "$LABELS" "$MODELS/.labels.part" && mv "$MODELS/.labels.part" "$MODELS/labels.textproto" || failed=1
    fi
  else
    rm -f "$MODELS/labels.textproto"
  fi
  # Only once everything new is there: what serves goes last.
  if [ "$failed" = 0 ]; then
    for file in "$MODELS"/*.safetensors; do
      [ -e "$file" ] || continue
      name=$(basename "$file" .safetensors)
      cut -d ' ' -f 1 "$LIST" | grep -qxF -- "$name" || { rm -f "$file"; say "$name is no longer listed: removed"; }
    done
  fi
  return "$failed"
}

case "${1:-}" in
  once) pass ;;
  watch)
    trap 'exit 0' TERM INT
    while :; do
      pass || true
      sleep "$POLL_SECONDS" &
      wait $!
    done ;;
  *) echo "usage: fetch.sh once | watch" >&2; exit 2 ;;
esac
