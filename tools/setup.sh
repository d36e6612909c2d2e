#!/usr/bin/env bash
# Makes this machine able to build nestrec: installs the packages of tools/apt-packages.txt that are
# missing, sees to it that OpenBLAS's OpenMP variant is the one in use, and builds FAISS with AVX2
# (tools/build_faiss.sh). Does nothing, in well under a second, when all is in place.
#
#   tools/setup.sh            what the build needs
#   tools/setup.sh lint       that, and clang-format and clang-tidy
#   tools/setup.sh test       that, and the servers that some tests start (they are skipped without)
#   tools/setup.sh --list     print the packages that this machine would use, and stop
set -euo pipefail
export LC_ALL=C

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cache="${NESTREC_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/nestrec}"
list="$root/tools/apt-packages.txt"
log=""

say() { printf 'setup: %s\n' "$*"; }
warn() { printf 'setup: warning: %s\n' "$*" >&2; }

fail() {  # step that failed, cure
  printf 'setup: failed: %s\n' "$1" >&2
  if [[ -n "$log" && -s "$log" ]]; then
    tail -n 12 "$log" | sed 's/^/    /' >&2
    printf 'setup: the whole log: %s\n' "$log" >&2
  fi
  printf 'setup: cure: %s\n' "$2" >&2
  exit 1
}

# What apt's own words in the log mean for the person at the keyboard.
cure_from_log() {
  if grep -qE 'No space left on device' "$log"; then echo "free some disk space, then run this again"
  elif grep -qE 'Could not get lock|is another process using it' "$log"; then
    echo "another program is installing packages: wait for it to end, then run this again"
  elif grep -qE 'dpkg was interrupted' "$log"; then echo "run 'dpkg --configure -a' as root, then run this again"
  elif grep -qE 'Temporary failure resolving|Could not resolve|Could not connect|Connection (timed out|refused|failed)|Network is unreachable|Unable to connect' "$log"; then
    echo "the package archive cannot be reached: check the network and the proxy settings, then run this again"
  elif grep -qE 'Unable to locate package|has no installation candidate' "$log"; then
    echo "enable the distribution's full archive (Debian: component main) in apt's sources, then run this again"
  elif grep -qE 'NO_PUBKEY|not signed|EXPKEYSIG|is not valid yet' "$log"; then
    echo "apt does not trust one of its sources (see the log): correct that entry or the clock, then run this again"
  elif grep -qE 'unmet dependencies|held broken packages' "$log"; then
    echo "run 'apt-get --fix-broken install' as root, then run this again"
  elif grep -qE '^E: .*(404|Failed to fetch)' "$log"; then echo "run 'apt-get update' as root, then run this again"
  else echo "read the log; then run this again"; fi
}

# The entries of the given sections of the list.
entries() {
  awk -v wanted=" $* " '
    { sub(/#.*/, ""); gsub(/[ \t]/, "") }
    /^\[.*\]$/ { active = index(wanted, " " substr($0, 2, length($0) - 2) " "); next }
    active && NF' "$list"
}

# The entries among the arguments of which no alternative is installed.
missing_entries() {
  dpkg-query -W -f '${db:Status-Status} ${Package}\n' 2>/dev/null |
    awk -v entries="$*" '
      $1 == "installed" { installed[$2] = 1 }
      END {
        n = split(entries, entry, " ")
        for (i = 1; i <= n; i++) {
          m = split(entry[i], name, "|"); found = 0
          for (j = 1; j <= m; j++) if (name[j] in installed) found = 1
          if (!found) print entry[i]
        }
      }'
}

# The first alternative of an entry that apt could install; the last one when it knows none.
choose() {
  local name
  for name in ${1//|/ }; do
    if apt-cache policy "$name" 2>/dev/null | grep -q '^  Candidate: [^(]'; then break; fi
  done
  echo "$name"
}

as_root() {
  if [[ "$(id -u)" == 0 ]]; then "$@"; else sudo "$@"; fi
}

need_root() {  # what for
  [[ "$(id -u)" == 0 ]] && return
  command -v sudo >/dev/null ||
    fail "$1 needs root, and there is no sudo" "run tools/setup.sh as root once; the build itself needs no root"
  sudo -n true 2>/dev/null && return
  [[ -t 0 ]] || fail "$1 needs root, and sudo wants a password" "run tools/setup.sh in a terminal once"
  say "$1 needs root; sudo may ask for your password"
  sudo -v || fail "$1 needs root" "run tools/setup.sh as root once; the build itself needs no root"
}

apt_get() {
  as_root env DEBIAN_FRONTEND=noninteractive LC_ALL=C apt-get -q -o DPkg::Lock::Timeout=600 "$@" >>"$log" 2>&1 </dev/null
}

# apt waits for dpkg's lock by itself, but not for that of its lists.
apt_update() {
  local attempt
  for attempt in {1..30}; do
    apt_get update && return
    tail -n 5 "$log" | grep -q 'Could not get lock' || return 1
    sleep 10
  done
  return 1
}

# Shows which package is being worked on, on one line of a terminal.
show_progress() {  # process id
  [[ -t 1 ]] || return 0
  local unpacked set_up
  while kill -0 "$1" 2>/dev/null; do
    unpacked="$(grep -c '^Unpacking ' "$log" || true)"
    set_up="$(grep -c '^Setting up ' "$log" || true)"
    printf '\rsetup: unpacked %d, set up %d \033[K' "$unpacked" "$set_up"
    sleep 1
  done
  printf '\r\033[K'
}

install_missing() {  # entries
  command -v apt-get >/dev/null || fail "this machine has no apt-get" \
    "nestrec's set-up knows Debian 12 and 13; elsewhere install the libraries that $list names by hand"
  local id version
  id="$(. /etc/os-release && echo "${ID:-unknown}")"
  version="$(. /etc/os-release && echo "${VERSION_ID:-0}")"
  if [[ "$id" != debian || "${version%%.*}" -lt 12 && "$version" != 0 ]]; then
    warn "nestrec's set-up knows Debian 12 and 13; this is $id $version, and may lack packages"
  fi
  need_root "installing packages"
  mkdir -p "$cache" 2>/dev/null && : 2>/dev/null >"$cache/setup.log" && log="$cache/setup.log" || log="$(mktemp)"
  say "installing what is missing: $* (log: $log)"
  apt_update || fail "apt-get update" "$(cure_from_log)"
  local entry packages=()
  for entry in "$@"; do packages+=("$(choose "$entry")"); done
  local started=$SECONDS
  apt_get install -y --no-install-recommends "${packages[@]}" &
  local apt_process=$!
  show_progress "$apt_process"
  wait "$apt_process" || fail "apt-get install ${packages[*]}" "$(cure_from_log)"
  say "installed in $((SECONDS - started)) s"
}

# With more than one OpenBLAS installed, Debian prefers the pthread variant. Its threads fight with
# OpenMP's, which libtorch, FAISS and nestrec use: a flat search of 32 queries takes 4 times as long.
choose_blas() {
  local libraries name target
  libraries="/usr/lib/$(gcc -print-multiarch 2>/dev/null || true)"
  for name in libblas.so.3 liblapack.so.3 libopenblas.so.0; do
    [[ "$(readlink -f "$libraries/$name")" == */openblas-pthread/* ]] || continue
    target="$libraries/openblas-openmp/$name"
    local link="$name-${libraries##*/}"
    if [[ "$(id -u)" == 0 ]] || sudo -n true 2>/dev/null; then
      as_root update-alternatives --quiet --set "$link" "$target" ||
        fail "update-alternatives --set $link $target" "choose the openblas-openmp entry by hand"
      say "$name is now OpenBLAS's OpenMP variant (to go back: update-alternatives --auto $link)"
    else
      warn "$name is OpenBLAS's pthread variant, which makes searches of many queries up to 4x slower;" \
        "cure, as root: update-alternatives --set $link $target"
    fi
  done
}

sections=(build)
case "${1:-}" in
  "") ;;
  lint) sections+=(lint) ;;
  test) sections+=(test) ;;
  --list) for entry in $(entries build lint test); do choose "$entry"; done; exit 0 ;;
  *) echo "usage: tools/setup.sh [lint | test | --list]" >&2; exit 2 ;;
esac

mapfile -t wanted < <(entries "${sections[@]}")
if command -v dpkg-query >/dev/null; then
  mapfile -t missing < <(missing_entries "${wanted[@]}")
else
  missing=("${wanted[@]}")
fi
[[ ${#missing[@]} == 0 ]] || install_missing "${missing[@]}"
choose_blas
"$root/tools/build_faiss.sh"
say "ready (${#wanted[@]} packages, FAISS: $("$root/tools/build_faiss.sh" --describe))"
