#!/usr/bin/env bash
# Prints the Debian packages that programs need to run: those that hold the shared libraries which the loader finds for them.
# So an image of a program has no list of packages of its own. Fails on a library that no package owns.
#
#   tools/runtime_packages.sh build/release/cli/nestrec
#   tools/runtime_packages.sh --sizes PROGRAM    with the bytes of each package's loaded libraries, largest first
set -euo pipefail
export LC_ALL=C

usage() { echo "usage: tools/runtime_packages.sh [--sizes] PROGRAM..." >&2; exit 2; }
sizes=""
if [[ "${1:-}" == --sizes ]]; then sizes=yes; shift; fi
[[ $# -gt 0 && "$1" != -* ]] || usage

libraries() {
  local program loaded
  for program in "$@"; do
    [[ -f "$program" ]] || { echo "runtime_packages: $program is not there" >&2; return 1; }
    loaded="$(ldd "$program")" || { echo "runtime_packages: ldd cannot read $program" >&2; return 1; }
    if grep 'not found' <<<"$loaded" >&2; then return 1; fi
    awk '$2 == "=>" { print $3 } $1 ~ /^\// { print $1 }' <<<"$loaded"
  done | sort -u | xargs -r readlink -f | sort -u
}

files="$(libraries "$@")"
# With /lib merged into /usr/lib, packages of old list either path: ask for both, in one call.
owners="$(sed 'p; s|^/usr||' <<<"$files" | xargs -r dpkg-query --search 2>/dev/null || true)"
awk -v sizes="$sizes" '
  NR == FNR { colon = index($0, ": "); package = substr($0, 1, colon - 1); sub(/[:,].*/, "", package)
              path = substr($0, colon + 2); sub(/^\/usr/, "", path); owner[path] = package; next }
  { path = $2; sub(/^\/usr/, "", path)
    if (!(path in owner)) {
      print "runtime_packages: " $2 " belongs to no package; build against the distribution'"'"'s libraries" >"/dev/stderr"
      failed = 1
    }
    bytes[owner[path]] += $1 }
  END { if (failed) exit 1
        for (package in bytes) print sizes ? bytes[package] " " package : package }' \
  <(printf '%s\n' "$owners") <(xargs -r stat -L -c '%s %n' <<<"$files") |
  if [[ -n "$sizes" ]]; then sort -k1,1nr -k2,2; else sort; fi
