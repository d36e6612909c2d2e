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

# The package of a file. With /lib merged into /usr/lib, packages of old list either path.
owner() {
  local path="$1" found
  for path in "$1" "${1#/usr}" "/usr$1"; do
    if found="$(dpkg-query --search "$path" 2>/dev/null)"; then
      found="${found%%: *}"
      echo "${found%%:*}"
      return
    fi
  done
  echo "runtime_packages: $1 belongs to no package; build against the distribution's libraries" >&2
  return 1
}

for program in "$@"; do
  [[ -f "$program" ]] || { echo "runtime_packages: $program is not there" >&2; exit 1; }
  loaded="$(ldd "$program")" || { echo "runtime_packages: ldd cannot read $program" >&2; exit 1; }
  if grep -q 'not found' <<<"$loaded"; then
    grep 'not found' <<<"$loaded" >&2
    exit 1
  fi
  awk '$2 == "=>" { print $3 } $1 ~ /^\// { print $1 }' <<<"$loaded"
done | sort -u | while read -r library; do
  file="$(readlink -f "$library")"
  package="$(owner "$file")" || exit 1
  echo "$package $(stat -c %s "$file")"
done | if [[ -n "$sizes" ]]; then
  awk '{ bytes[$1] += $2 } END { for (package in bytes) print bytes[package], package }' | sort -k1,1nr -k2,2
else
  cut -d' ' -f1 | sort -u
fi
