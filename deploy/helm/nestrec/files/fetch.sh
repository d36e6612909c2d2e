#!/bin/sh
# Brings the model versions of a list into a folder, and takes those away that the list no longer has.
#
#   fetch.sh once    bring them all; fails when one cannot be brought
#   fetch.sh watch   look at the list every $POLL_SECONDS; what fails is tried again
#
# $LIST has a line `name url sha256` per version, $MODELS is the folder, $LABELS (may be empty) the labels.textproto to put
# there, $HEADER_FILE (may be unset) a file with a header for the download, $STALL_SECONDS (default: 30) how long a server may send less
# than 1 KiB a second before it is given up. A version appears under its name whole and
# with the checksum of the list, or not at all. One that is there is written again only when the list has another
# checksum for it; .<name>.sha256 beside it is what it was fetched with. Without a list, or with one that is empty or has a
# line that is none, nothing is fetched and nothing removed.
set -u

say() { printf 'models: %s\n' "$*" >&2; }

# https://HOST:PORT of an address, which is whom a header is for.
server_of() {
  rest=${1#https://}
  rest=${rest%%[/?#]*}
  printf '%s' "${rest%:443}"
}

# One file, along at most 10 redirects. curl itself would send a header such as PRIVATE-TOKEN along to whatever server it is redirected to; here
# the header is for the listed server alone, and the others, such as a store of objects behind it, get none.
#
# A server that stalls is given up and left to the next try, what fails sooner is tried again at once.
download() {  # name url file
  name=$1 first=$2 at=$2 file=$3 hops=0
  while :; do
    set --
    if [ -n "${HEADER_FILE:-}" ]; then
      if [ "$(server_of "$at")" = "$(server_of "$first")" ]; then
        set -- --header "@$HEADER_FILE"
      else
        say "$name is redirected to $(server_of "$at"), which does not get the header of model.https.authSecret"
      fi
    fi
    next=$(curl --fail --silent --show-error --proto '=https' --connect-timeout 10 --speed-limit 1024 --speed-time "${STALL_SECONDS:-30}" \
      --retry 3 --retry-max-time "${STALL_SECONDS:-30}" "$@" --write-out '%{redirect_url}' --output "$file" "$at") || return 1
    [ -n "$next" ] || return 0
    hops=$((hops + 1))
    if [ "$hops" -gt 10 ]; then
      say "$name has more than 10 redirects; list the address where they end"
      return 1
    fi
    at=$next
  done
}

fetch() {  # name url sha256
  name=$1 url=$2 sum=$3 part="$MODELS/.$1.part"
  say "fetching $name from $url"
  if ! download "$name" "$url" "$part"; then
    say "$name cannot be fetched from $url; the message above says why; it is tried again $again"
    rm -f "$part"
    return 1
  fi
  actual=$(sha256sum "$part" | cut -d ' ' -f 1)
  if [ "$actual" != "$sum" ]; then
    say "$name is refused: its SHA-256 is $actual, the list says $sum; correct model.https.versions"
    rm -f "$part"
    return 1
  fi
  mv "$part" "$MODELS/$name.safetensors" && echo "$sum" >"$MODELS/.$name.sha256" && say "$name is there"
}

# Whether the version is there with that checksum. Its bytes are read where nothing says what it was fetched with.
is_there() {  # name sha256
  [ -e "$MODELS/$1.safetensors" ] || return 1
  [ -s "$MODELS/.$1.sha256" ] || sha256sum "$MODELS/$1.safetensors" | cut -d ' ' -f 1 >"$MODELS/.$1.sha256"
  [ "$(cat "$MODELS/.$1.sha256")" = "$2" ] && return 0
  say "$1 has another SHA-256 in the list than it was fetched with"
  return 1
}

check_list() {
  if ! [ -r "${LIST:-}" ] || ! [ -f "$LIST" ]; then
    say "the list '${LIST:-}' cannot be read: nothing is fetched or removed; set LIST to a file of lines 'name url sha256'"
    return 1
  fi
  listed=0
  while read -r name url sum more || [ -n "$name" ]; do
    [ -n "$name" ] || continue
    listed=$((listed + 1))
    bad=$more
    case $sum in *[!0-9a-f]*) bad=yes ;; esac
    if [ -n "$bad" ] || [ "${#sum}" != 64 ]; then
      say "'$name $url $sum' in the list $LIST is not 'name url sha256': nothing is fetched or removed; correct model.https.versions"
      return 1
    fi
  done <"$LIST"
  if [ "$listed" = 0 ]; then
    say "the list $LIST is empty: nothing is fetched or removed; list at least one version in model.https.versions"
    return 1
  fi
}

pass() {
  check_list || return 1
  failed=0
  while read -r name url sum || [ -n "$name" ]; do
    [ -n "$name" ] || continue
    is_there "$name" "$sum" || fetch "$name" "$url" "$sum" || failed=1
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
      cut -d ' ' -f 1 "$LIST" | grep -qxF -- "$name" ||
        { rm -f "$file" "$MODELS/.$name.sha256"; say "$name is no longer listed: removed"; }
    done
  fi
  return "$failed"
}

case "${1:-}" in
  once)
    again="when the container starts again"
    pass ;;
  watch)
    again="in $POLL_SECONDS s"
    trap 'exit 0' TERM INT
    while :; do
      pass || true
      sleep "$POLL_SECONDS" &
      wait $!
    done ;;
  *) echo "usage: fetch.sh once | watch" >&2; exit 2 ;;
esac
