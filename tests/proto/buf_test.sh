#!/usr/bin/env bash
# The wire contract by buf's rules: tests/proto/buf_test.sh lint | breaking.
#
# Exit code 77, after a line that says why, where buf is not installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PATH="$PATH:$HOME/go/bin"
command -v buf >/dev/null || { echo "skipped: buf is not installed (go install github.com/bufbuild/buf/cmd/buf@v1.55.1)"; exit 77; }
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cp -r proto "$work/proto"

case "$1" in
  lint)
    buf lint proto
    sed -i 's/int32 dim = 8;/int32 Dim = 8;/' "$work/proto/nestrec/v1/recommend.proto"
    ! buf lint "$work/proto" >/dev/null || { echo "buf lint lets a badly named field pass"; exit 1; } ;;
  breaking)
    for released in tests/golden/proto_*; do
      echo "against $released"
      buf breaking proto --against "$released"
      sed -i 's/optional uint32 k = 5;/optional uint32 k = 6;/' "$work/proto/nestrec/v1/recommend.proto"
      ! buf breaking "$work/proto" --against "$released" >/dev/null || { echo "buf breaking lets a moved field pass"; exit 1; }
    done ;;
  *) echo "usage: $0 lint | breaking" >&2; exit 2 ;;
esac
