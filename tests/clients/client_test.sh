#!/usr/bin/env bash
# Runs one language's commands of docs/clients.md, as they stand there, against a real server.
#
#   tests/clients/client_test.sh Python build/release/cli/nestrec
#
# Exit code 77, after a line that says why: the language's tools or packages cannot be had here.
set -euo pipefail
# Ids and titles are UTF-8; Java writes what the locale has letters for.
export LC_ALL=C.UTF-8

language="$1"
nestrec="$(realpath "$2")"
root="$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")"
work="$(mktemp -d)"
server=""
on_exit() {
  [[ -z "$server" ]] || { kill -TERM "$server"; wait "$server" || true; }
  rm -rf "$work"
}
trap on_exit EXIT

skip() { echo "skipped: $*"; exit 77; }
need() {
  local program
  for program in "$@"; do command -v "$program" >/dev/null || skip "$program is not installed (docs/clients.md names its package)"; done
}

# Stubs and packages go where nobody else looks.
mkdir "$work/examples"
cp -r "$root/examples/clients" "$work/examples/clients"
cp -r "$root/proto" "$work/proto"
cd "$work/examples/clients"
need protoc
case "$language" in
  Python)
    need grpc_python_plugin
    mkdir "$work/bin"
    for python in python3 /usr/bin/python3; do
      if "$python" -c 'import google.protobuf, grpc' 2>/dev/null; then
        printf '#!/bin/sh\nexec %s "$@"\n' "$(command -v "$python")" >"$work/bin/python3"
        chmod +x "$work/bin/python3"
        break
      fi
    done
    [[ -x "$work/bin/python3" ]] || skip "no Python 3 here has grpcio and protobuf"
    PATH="$work/bin:$PATH" ;;
  Go)
    need go protoc-gen-go protoc-gen-go-grpc
    (cd go && timeout 240 go mod download) >"$work/log" 2>&1 || skip "Go modules cannot be had: $(tail -n 1 "$work/log")" ;;
  Node)
    need node npm
    (cd node && timeout 240 npm install --no-audit --no-fund) >"$work/log" 2>&1 ||
      skip "npm packages cannot be had: $(grep -m 1 -i error "$work/log" || tail -n 1 "$work/log")" ;;
  Java)
    need java javac grpc_java_plugin
    for jar in grpc-stub grpc-protobuf grpc-netty guava geronimo-annotation-1.3-spec netty-all perfmark-api protobuf gson; do
      [[ -e /usr/share/java/$jar.jar ]] || skip "/usr/share/java/$jar.jar is not there (docs/clients.md names its package)"
    done ;;
  C++) need grpc_cpp_plugin c++ pkg-config ;;
  *) echo "no language '$language'" >&2; exit 1 ;;
esac

model="$root/tests/golden/checkpoint_0.1.0.safetensors"
"$nestrec" serve --model "$model" --listen 127.0.0.1:0 --port-file "$work/port" --threads 1 --index-folder none 2>"$work/server.log" &
server=$!
for _ in $(seq 600); do
  [[ ! -s $work/port ]] || break
  kill -0 "$server" || { server=""; cat "$work/server.log"; exit 1; }
  sleep 0.1
done
address="127.0.0.1:$(cat "$work/port")"

awk '/^```json$/ { block = 1; next }  /^```$/ { block = 0 }  block' "$root/docs/clients.md" |
  diff - "$root/examples/clients/service_config.json" || { echo "docs/clients.md shows another service_config.json"; exit 1; }

# What the commands show is of the demo's model.
history=("N 0 4" "N 0 5")
commands="$(awk -v heading="## $language" '
  $0 == heading { here = 1; next }  /^## / { here = 0 }
  here && /^```sh$/ { block = 1; next }  /^```$/ { block = 0 }
  here && block' "$root/docs/clients.md")"
shown="localhost:50051 silver N000431 N000791"
[[ "$commands" == *"$shown"* ]] || { echo "docs/clients.md: $language's commands do not end in: $shown"; exit 1; }
commands="${commands//"$shown"/"$address gold '${history[0]}' '${history[1]}'"}"

"$nestrec" recommend --server "$address" --tier gold --history "$(IFS=,; echo "${history[*]}")" --k 5 --json >"$work/expected.json"
sed -nE '/^ *"itemId": "/ { s///; s/",?$//; s/\\"/"/g; p }' "$work/expected.json" >"$work/expected"
[[ $(wc -l <"$work/expected") == 5 ]] || { cat "$work/expected.json"; exit 1; }
bash -euc "$commands" >"$work/output" 2>"$work/errors" || { cat "$work/output" "$work/errors"; exit 1; }
tail -n 5 "$work/output" | cut -f 1 >"$work/ids"
diff "$work/expected" "$work/ids" || { echo "$language printed:"; cat "$work/output" "$work/errors"; exit 1; }
tail -n 5 "$work/output"
