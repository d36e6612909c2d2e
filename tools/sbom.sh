#!/usr/bin/env bash
# Prints what a built program consists of, as CycloneDX 1.5 JSON: every Debian package whose shared libraries the loader finds
# for it, and the libraries that are compiled in, with versions and licences.
#
#   tools/sbom.sh build/release/cli/nestrec >nestrec.cdx.json
#   tools/sbom.sh --table PROGRAM     a line each: version, licences, how it is linked, name
#
# Licences are the short names of the package's machine-readable copyright file. Where it has an older one they are those of the table
# below, or else the common licences that the file refers to and the well-known texts that it quotes; NOASSERTION where that finds
# nothing. FAISS is named by its own build (tools/build_faiss.sh).
set -euo pipefail
export LC_ALL=C
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

# Headers or static archives alone; tests/deploy/package_test.py checks that no build dependency is forgotten.
compiled_in=(libcli11-dev libcpp-httplib-dev libhwy-dev libxxhash-dev nlohmann-json3-dev)

table=""
if [[ "${1:-}" == --table ]]; then table=yes; shift; fi
[[ $# == 1 && "$1" != -* ]] || { echo "usage: tools/sbom.sh [--table] PROGRAM" >&2; exit 2; }
program="$1"

# What the library itself is under, where an older copyright file is of a whole source package, with programs, manuals and tests:
# by "The following runtime libraries" (GCC), "The library" or "License (library)" in it.
stated_licence() {  # package
  case "$1" in
    libgcc-s1 | libstdc++6 | libgomp1 | libgfortran5 | libatomic1) echo "GPL-3+ with GCC Runtime Library Exception 3.1" ;;
    libquadmath0) echo "LGPL-2+" ;;
    libc-ares2) echo "MIT" ;;
    libc6 | libgcrypt20 | libgnutls30 | libgnutls30t64 | librtmp1 | libtasn1-6) echo "LGPL-2.1+" ;;
    libselinux1) echo "public-domain" ;;
    *) return 1 ;;
  esac
}

licences_of() {  # package
  local file="/usr/share/doc/$1/copyright" list
  [[ -r "$file" ]] || { stated_licence "$1" || echo NOASSERTION; return; }
  if grep -q '^Format:.*copyright-format' "$file"; then
    list="$(awk '
      /^License:[ \t]*[^ \t]/ {
        sub(/^License:[ \t]*/, ""); gsub(/[^A-Za-z0-9.+ -]/, ""); sub(/[ \t]+$/, "")
        if (!($0 in seen)) { seen[$0] = 1; list = list (list == "" ? "" : "; ") $0 }
      }
      END { print list }' "$file")"
  elif ! list="$(stated_licence "$1")"; then
    list="$(tr -s '\n\t ' ' ' <"$file" | awk '
      function add(name) { if (!(name in seen)) { seen[name] = 1; list = list (list == "" ? "" : "; ") name } }
      {
        rest = $0
        while (match(rest, /\/usr\/share\/common-licenses\/[A-Za-z0-9.+-]*[A-Za-z0-9]/)) {
          add(substr(rest, RSTART + 27, RLENGTH - 27)); rest = substr(rest, RSTART + RLENGTH)
        }
        text = tolower($0)
        if (text ~ /permission is hereby granted, *free of charge/) add("MIT")
        if (text ~ /permission to (freely )?use, copy, modify/) add("HPND")
        if (text ~ /redistribution and use in source and binary forms/) add("BSD")
        if (text ~ /mozilla public license \(mpl\) version 1\.1|mpl-1\.1/) add("MPL-1.1")
      }
      END { print list }')"
  fi
  echo "${list:-NOASSERTION}"
}

components() {  # lines: name|version|licences|link
  local package version
  while read -r package; do
    version="$(dpkg-query -W -f '${Version}\n' "$package" | head -n 1)"
    echo "$package|$version|$(licences_of "$package")|shared"
  done < <("$root/tools/runtime_packages.sh" "$program")
  for package in "${compiled_in[@]}"; do
    version="$(dpkg-query -W -f '${Version}\n' "$package" 2>/dev/null | head -n 1)" || continue
    [[ -n "$version" ]] && echo "$package|$version|$(licences_of "$package")|compiled in"
  done
  local prefix
  if prefix="$("$root/tools/build_faiss.sh" --prefix 2>/dev/null)"; then
    version="${prefix##*/faiss-}"
    echo "faiss|${version%%-*}|MIT|compiled in"
  elif version="$(dpkg-query -W -f '${Version}\n' libfaiss-dev 2>/dev/null)" && [[ -n "$version" ]]; then
    echo "libfaiss-dev|$version|$(licences_of libfaiss-dev)|compiled in"
  fi
}

found="$(components)"
if [[ -n "$table" ]]; then
  awk -F'|' '{ printf "%-28s %-60s %-12s %s\n", $2, $3, $4, $1 }' <<<"$found"
  exit 0
fi

version="$(sed -nE 's/^project\(nestrec VERSION ([0-9.]+).*/\1/p' "$root/CMakeLists.txt")"
codename="$(. /etc/os-release && echo "${VERSION_CODENAME:-unknown}")"
arch="$(dpkg --print-architecture)"
hash="$(sha256sum "$program" | cut -d' ' -f1)"
awk -F'|' -v version="$version" -v hash="$hash" -v codename="$codename" -v arch="$arch" '
  BEGIN {
    print "{"
    print "  \"bomFormat\": \"CycloneDX\","
    print "  \"specVersion\": \"1.5\","
    print "  \"version\": 1,"
    printf "  \"metadata\": {\"component\": {\"type\": \"application\", \"bom-ref\": \"nestrec\", \"name\": \"nestrec\", \"version\": \"%s\",\n", version
    print "    \"licenses\": [{\"license\": {\"id\": \"Apache-2.0\"}}],"
    printf "    \"hashes\": [{\"alg\": \"SHA-256\", \"content\": \"%s\"}]}},\n", hash
    print "  \"components\": ["
  }
  {
    printf "%s    {\"type\": \"library\", \"bom-ref\": \"%s\", \"name\": \"%s\", \"version\": \"%s\",\n", (NR > 1 ? ",\n" : ""), $1, $1, $2
    if ($4 == "shared" || $1 ~ /-dev$/)
      printf "     \"purl\": \"pkg:deb/debian/%s@%s?arch=%s&distro=%s\",\n", $1, $2, arch, codename
    n = split($3, names, "; ")
    printf "     \"licenses\": ["
    for (i = 1; i <= n; i++) printf "%s{\"license\": {\"name\": \"%s\"}}", (i > 1 ? ", " : ""), names[i]
    printf "],\n     \"properties\": [{\"name\": \"nestrec:link\", \"value\": \"%s\"}]}", $4
    refs = refs (NR > 1 ? ", " : "") "\"" $1 "\""
  }
  END {
    print "\n  ],"
    printf "  \"dependencies\": [{\"ref\": \"nestrec\", \"dependsOn\": [%s]}]\n}\n", refs
  }' <<<"$found"
