#!/usr/bin/env bash
# Builds FAISS with AVX2 from the distribution's own source package, once, into a cache folder that
# lies outside the build folder:
#
#   ${NESTREC_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nestrec}/faiss-<version>-<arch>-<codename>
#
# Debian's libfaiss.a is compiled for plain x86-64; the same source with AVX2 searches about four times
# as fast. Where that build is not possible (not x86, no source entry and no right to add one, no
# network) it installs libfaiss-dev instead and says what that costs. apt checks the signatures and
# checksums of what it downloads.
#
#   tools/build_faiss.sh            build when the cache has none; returns at once when it has
#   tools/build_faiss.sh --retry    try again after a fallback to libfaiss-dev
#   tools/build_faiss.sh --prefix   print the folder of the finished build, or fail
#   tools/build_faiss.sh --describe print in a few words what is in use
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cache="${NESTREC_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/nestrec}"
isa=avx2
arch="$(dpkg --print-architecture 2>/dev/null || uname -m)"
codename="$(. /etc/os-release 2>/dev/null && echo "${VERSION_CODENAME:-${ID:-unknown}}" || echo unknown)"
log="$cache/faiss-build.log"
fallback_note="$cache/faiss-fallback-$arch-$codename"
work=""

say() { printf 'faiss: %s\n' "$*"; }
warn() { printf 'faiss: warning: %s\n' "$*" >&2; }

fail() {  # message, cure
  printf 'faiss: error: %s\n' "$1" >&2
  if [[ -s "$log" ]]; then
    tail -n 15 "$log" | sed 's/^/    /' >&2
    printf 'faiss: the whole log: %s\n' "$log" >&2
  fi
  printf 'faiss: cure: %s\n' "$2" >&2
  exit 1
}

# The finished build of the highest version, if there is one. A folder gets its final name only when
# it is complete, so its presence is enough.
finished_prefix() {
  local found
  found="$(compgen -G "$cache/faiss-*-$arch-$codename/lib/libfaiss_$isa.a" | sort -V | tail -n 1)" || true
  [[ -n "$found" ]] && dirname "$(dirname "$found")"
}

as_root() {
  if [[ "$(id -u)" == 0 ]]; then "$@"
  elif command -v sudo >/dev/null && { [[ -t 0 ]] || sudo -n true 2>/dev/null; }; then sudo "$@"
  else echo "need root for: $*" >&2; return 1; fi
}

apt_as_root() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@"
}

# Debian's libfaiss-dev instead of our own build; the reason is remembered, so that later runs neither
# wait for the network nor fall silent.
fall_back() {  # reason
  if ! dpkg-query -W -f '${Status}' libfaiss-dev 2>/dev/null | grep -q 'install ok installed'; then
    { apt_as_root install -y --no-install-recommends libfaiss-dev ||
      { apt_as_root update && apt_as_root install -y --no-install-recommends libfaiss-dev; }; } \
      >>"$log" 2>&1 9>&- ||
      fail "$1; and libfaiss-dev could not be installed" \
        "make the package archive reachable (network, proxy), then run this again"
  fi
  echo "$1" >"$fallback_note"
  warn_of_fallback
  exit 0
}

warn_of_fallback() {
  local cost="flat search is about 4x slower"
  [[ "$arch" == amd64 ]] || cost="no cost on $arch"
  warn "using the distribution's libfaiss-dev ($cost): $(<"$fallback_note")." \
    "Try again with tools/build_faiss.sh --retry"
}

# apt's own words for what went wrong.
last_complaint() {
  grep -E '^(E:|W: Failed|need root)' "$log" | head -n 1 | grep . || echo "see $log"
}

# True when apt knows a source package list from the distribution and faiss is in it.
source_is_known() { apt-cache showsrc --only-source faiss 2>/dev/null | grep -q '^Package: faiss$'; }

# "<uri> <suite> <component> <file>" of the distribution's own main archive, as apt itself reads it.
distribution_entry() {
  apt-get indextargets --format '$(ORIGIN)|$(RELEASE)|$(COMPONENT)|$(REPO_URI)|$(SOURCESENTRY)' \
    'Created-By: Packages' 2>/dev/null |
    awk -F'|' '($1 == "Debian" && $3 == "main" || $1 == "Ubuntu" && $3 == "universe") && $2 !~ /-/ {
      sub(/:[0-9]+$/, "", $5); print $4, $2, $3, $5; exit }'
}

# The stanza (deb822) or line of `file` that names this uri and suite, turned into a source entry.
source_entry() {  # uri suite component file
  if [[ "$4" == *.sources ]]; then
    awk -v uri="${1%/}" -v suite="$2" -v component="$3" '
      function has(field, word,   parts, n, i) {
        n = split(field, parts, /[ \t\n]+/)
        for (i = 1; i <= n; i++) { sub(/\/$/, "", parts[i]); if (parts[i] == word) return 1 }
        return 0
      }
      function flush_stanza() {
        if (!done && has(uris, uri) && has(suites, suite) && types ~ /(^|[ \t])deb([ \t]|$)/) {
          printf "Types: deb-src\nURIs: %s\nSuites: %s\nComponents: %s\n%s", uri, suite, component, rest
          done = 1
        }
        uris = suites = types = rest = name = ""
      }
      /^#/ { next }
      /^[ \t]*$/ { flush_stanza(); next }
      /^[^ \t]/ { name = tolower($0); sub(/:.*/, "", name) }
      {
        value = $0; sub(/^[^ \t:]+:/, "", value)
        if (name == "uris") uris = uris " " value
        else if (name == "suites") suites = suites " " value
        else if (name == "types") types = types " " value
        else if (name != "components" && name != "architectures" && name != "enabled") rest = rest $0 "\n"
      }
      END { flush_stanza() }' "$4"
  else
    awk -v uri="${1%/}" -v suite="$2" -v component="$3" '
      $1 == "deb" {
        options = ""; line = $0
        if (match(line, /\[[^]]*\]/)) { options = substr(line, RSTART, RLENGTH) " "; sub(/\[[^]]*\]/, "", line) }
        split(line, word, /[ \t]+/); found = word[2]; sub(/\/$/, "", found)
        if (found == uri && word[3] == suite) {
          print "deb-src " options uri " " suite " " component; exit
        }
      }' "$4"
  fi
}

# Makes faiss known to `apt-get source`, by an entry in a file of its own when the machine has none.
ensure_source_entry() {
  source_is_known && return 0
  local uri suite component file entry target
  read -r uri suite component file < <(distribution_entry) || true
  if [[ -z "${file:-}" ]]; then
    apt_as_root update || { echo "apt-get update failed"; return 1; }
    source_is_known && return 0
    read -r uri suite component file < <(distribution_entry) || true
    [[ -n "${file:-}" ]] || { echo "apt has no entry of the distribution's own archive"; return 1; }
  fi
  target="/etc/apt/sources.list.d/nestrec-src.${file##*.}"
  if [[ ! -e "$target" ]]; then
    entry="$(source_entry "$uri" "$suite" "$component" "$file")"
    [[ -n "$entry" ]] || { echo "could not read the entry of $uri $suite in $file"; return 1; }
    printf '# Source packages, for tools/build_faiss.sh of nestrec. Safe to delete.\n%s\n' "$entry" |
      as_root tee "$target" || return 1
  fi
  # Only the list of this entry; the others stay as they are.
  if ! apt_as_root update -o Dir::Etc::sourcelist="$target" -o Dir::Etc::sourceparts=- \
      -o APT::Get::List-Cleanup=0; then
    as_root rm -f "$target"
    return 1
  fi
  source_is_known
}

build_jobs() {  # FAISS's largest files want about 1 GB each
  local cores memory_gb
  cores="$(nproc)"
  memory_gb="$(awk '/MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo)"
  local jobs=$((memory_gb < cores ? memory_gb : cores))
  echo $((jobs < 1 ? 1 : jobs))
}

# Shows the compiler's progress on one line of a terminal; elsewhere only the log has it.
progress() {
  if [[ -t 1 ]]; then
    local line
    while IFS= read -r line; do
      printf '%s\n' "$line" >>"$log"
      [[ "$line" == \[*\]* ]] && printf '\rfaiss: building with AVX2 (once, about a minute or two) %s] ' "${line%%]*}"
    done
    printf '\r\033[K'
  else
    cat >>"$log"
  fi
}

build() {  # source folder, prefix to fill
  local generator=()
  command -v ninja >/dev/null && generator=(-G Ninja)
  cmake -S "$1" -B "$work/build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release \
    -DFAISS_OPT_LEVEL="$isa" -DFAISS_ENABLE_GPU=OFF -DFAISS_ENABLE_PYTHON=OFF -DFAISS_ENABLE_C_API=OFF \
    -DFAISS_ENABLE_MKL=OFF -DFAISS_ENABLE_EXTRAS=OFF -DBUILD_TESTING=OFF -DBUILD_SHARED_LIBS=OFF \
    -DCMAKE_POSITION_INDEPENDENT_CODE=ON -DBLA_VENDOR=OpenBLAS >>"$log" 2>&1 || return 1
  cmake --build "$work/build" --target "faiss_$isa" --parallel "$(build_jobs)" 2>&1 | progress || return 1
  mkdir -p "$2/lib" "$2/include"
  cp "$work/build/faiss/libfaiss_$isa.a" "$2/lib/"
  (cd "$1" && find faiss -name '*.h' -not -path 'faiss/gpu/*' -print0 | tar --null -T - -cf -) |
    tar -xf - -C "$2/include"
  cp "$1/LICENSE" "$2/"
}

case "${1:-}" in
  "") ;;
  --prefix) finished_prefix || { echo "no finished FAISS build in $cache" >&2; exit 1; }; exit 0 ;;
  --describe)
    if prefix="$(finished_prefix)"; then prefix="${prefix##*/faiss-}"; echo "${prefix%%-*} with AVX2"
    else echo "the distribution's libfaiss-dev"; fi
    exit 0 ;;
  --retry) rm -f "$fallback_note" ;;
  *) echo "usage: tools/build_faiss.sh [--retry | --prefix | --describe]" >&2; exit 2 ;;
esac

if finished_prefix >/dev/null; then exit 0; fi
mkdir -p "$cache" 2>/dev/null && [[ -w "$cache" ]] ||
  fail "the cache folder $cache cannot be written" "set NESTREC_CACHE to a folder that can"

exec 9>"$cache/faiss.lock"
if ! flock -n 9; then
  say "another run is building it; waiting"
  flock 9
fi
if finished_prefix >/dev/null; then exit 0; fi
if [[ -e "$fallback_note" ]]; then warn_of_fallback; exit 0; fi
: >"$log"

[[ "$arch" == amd64 ]] || fall_back "AVX2 is of x86 only, this is $arch"
grep -qw avx2 /proc/cpuinfo && grep -qw fma /proc/cpuinfo || fall_back "this processor has no AVX2"
command -v apt-get >/dev/null || fail "no apt-get here" "install FAISS and give its place in CMAKE_PREFIX_PATH"

rm -rf "$cache"/faiss-build.??????  # left behind by a run that was killed; we hold the lock
work="$(mktemp -d "$cache/faiss-build.XXXXXX")"
trap 'rm -rf "$work"' EXIT
started=$SECONDS
say "building it with AVX2 from the source package (once, about a minute or two; log: $log)"
ensure_source_entry >>"$log" 2>&1 9>&- || fall_back "apt has no list of source packages; $(last_complaint)"
(cd "$work" && apt-get -q source --only-source faiss) >>"$log" 2>&1 9>&- ||
  fall_back "apt-get source faiss failed; $(last_complaint)"
source_dir="$(find "$work" -mindepth 1 -maxdepth 1 -type d -name 'faiss-*' | head -n 1)"
[[ -n "$source_dir" ]] || fall_back "the source package has no faiss folder (see $log)"
version="${source_dir##*/faiss-}"
prefix="$work/prefix"
build "$source_dir" "$prefix" 9>&- ||
  fail "the FAISS build failed" "read the log; with too little memory, close other programs and run it again"
mv -T "$prefix" "$cache/faiss-$version-$arch-$codename"
say "FAISS $version with AVX2 built in $((SECONDS - started)) s"
