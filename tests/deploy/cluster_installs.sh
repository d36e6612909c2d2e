# The installs of cluster_proof.sh with what needs more than the cluster: Secrets, a Redis, a server of models. Sourced there.

node_address() { kubectl get nodes -o jsonpath='{.items[0].status.addresses[?(@.type=="InternalIP")].address}'; }
# free_port(address): a port that this machine may listen on there; fails where the address is another machine's.
free_port() { "$python" -c 'import socket, sys; s = socket.socket(); s.bind((sys.argv[1], 0)); print(s.getsockname()[1])' "$1" 2>/dev/null; }
# certificate(name, subject alternative name, authority): $work/name.crt and .key, signed by $work/<authority>.crt (default: ca), which is made once.
certificate() {
  local ca="$work/${3:-ca}"
  [[ -f "$ca.crt" ]] || openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=nestrec proof ${3:-ca}" -keyout "$ca.key" -out "$ca.crt" 2>/dev/null
  openssl req -newkey rsa:2048 -nodes -subj "/CN=$1" -keyout "$work/$1.key" -out "$work/$1.csr" 2>/dev/null
  openssl x509 -req -in "$work/$1.csr" -CA "$ca.crt" -CAkey "$ca.key" -set_serial "0x$(openssl rand -hex 8)" -days 2 \
    -extfile <(echo "subjectAltName=$2") -out "$work/$1.crt" 2>/dev/null
}
# secret(arguments of kubectl create secret...): made or changed.
secret() { kube create secret "$@" --dry-run=client -o yaml | kube apply --server-side --force-conflicts -f - >/dev/null; }

# TLS and tokens. A Secret reaches a pod when its kubelet looks again: a minute or two.
tls_server=recommend.example.com
serial() { openssl s_client -connect "$(address "$1"):50051" -servername $tls_server -alpn h2 </dev/null 2>/dev/null | openssl x509 -noout -serial; }
serial_is() { [[ "$(serial "$1")" == "$2" ]]; }
with_token() { ask "$(address "$1"):50051" Recommend "$work/request" --ca "$work/ca.crt" --server-name $tls_server --token-file "$work/$2.token"; }
without_token() { ask "$(address "$1"):50051" Recommend "$work/request" --ca "$work/ca.crt" --server-name $tls_server; }
refused() { [[ "$("$@")" == UNAUTHENTICATED* ]]; }
rotate() {
  local pod pods serial
  pods="$(gold_pods secured)"
  certificate second "DNS:$tls_server" || return 1
  serial="$(openssl x509 -noout -serial -in "$work/second.crt")"
  secret tls proof-tls --cert="$work/second.crt" --key="$work/second.key" || return 1
  { echo "shop $(cat "$work/old.token")"; echo "shop $(cat "$work/new.token")"; } >"$work/tokens"
  secret generic proof-tokens --from-file=tokens="$work/tokens" || return 1
  for pod in $pods; do
    until_true 240 "$pod shows the new certificate" serial_is "$pod" "$serial" || return 1
    until_true 240 "$pod takes the new token" with_token "$pod" new || return 1
    with_token "$pod" old || { echo "$pod takes the old token no more"; return 1; }
  done
  # The client goes over, then the old one ends.
  { cp "$work/new.token" "$work/client.part" && mv "$work/client.part" "$work/client.token"; } || return 1
  sleep 1
  echo "shop $(cat "$work/new.token")" >"$work/tokens"
  secret generic proof-tokens --from-file=tokens="$work/tokens" || return 1
  for pod in $pods; do until_true 240 "$pod refuses the old token" refused with_token "$pod" old || return 1; done
  [[ "$(gold_pods secured)" == "$pods" ]] || { echo "pods were replaced"; return 1; }
  no_restarts secured
}
secured() {
  say "TLS and tokens from Secrets, both rotated while calls run"
  certificate first "DNS:$tls_server"
  secret tls proof-tls --cert="$work/first.crt" --key="$work/first.key"
  local each
  for each in old new; do openssl rand -hex 24 >"$work/$each.token"; done
  cp "$work/old.token" "$work/client.token"
  echo "shop $(cat "$work/old.token")" >"$work/tokens"
  secret generic proof-tokens --from-file=tokens="$work/tokens"
  values gold >"$work/secured.yaml"
  install_release secured "$work/secured.yaml" --set security.tls.secretName=proof-tls --set security.tokens.secretName=proof-tokens
  local pod
  for pod in $(gold_pods secured); do
    serial_is "$pod" "$(openssl x509 -noout -serial -in "$work/first.crt")" || { echo "$pod shows another certificate: $(serial "$pod")" >&2; exit 1; }
    refused without_token "$pod" || { echo "$pod answers without a token" >&2; exit 1; }
    refused with_token "$pod" new || { echo "$pod takes a token that it does not know" >&2; exit 1; }
    ! ask "$(address "$pod"):50051" Recommend "$work/request" >/dev/null || { echo "$pod answers in plain text" >&2; exit 1; }
  done
  LOAD=(--ca "$work/ca.crt" --server-name $tls_server --token-file "$work/client.token")
  step secured-nestrec-gold-pods "Secrets are rotated" rotate
  LOAD=()
  helm -n $namespace uninstall secured --wait >/dev/null
}

# Clients' certificates. Kubelets have none: their probes ask the listener for health alone.
with_certificate() { ask "$(address "$1"):50051" Recommend "$work/request" --ca "$work/ca.crt" --server-name $tls_server --cert "$work/$2.crt" --key "$work/$2.key"; }
answers() { "$@" | grep -q '^OK '; }
mutual() {
  say "TLS with certificates of clients"
  certificate first "DNS:$tls_server"
  certificate client "DNS:shop" clients
  certificate stranger "DNS:shop"
  secret tls proof-tls --cert="$work/first.crt" --key="$work/first.key"
  secret generic proof-clients --from-file=ca.crt="$work/clients.crt"
  values gold >"$work/mutual.yaml"
  install_release mutual "$work/mutual.yaml" --set security.tls.secretName=proof-tls --set security.tls.clientCaSecretName=proof-clients
  local pod
  for pod in $(gold_pods mutual); do
    answers with_certificate "$pod" client || { echo "$pod does not answer a client with its certificate" >&2; exit 1; }
    ! answers without_token "$pod" || { echo "$pod answers without a certificate" >&2; exit 1; }
    ! answers with_certificate "$pod" stranger || { echo "$pod answers a certificate of another authority" >&2; exit 1; }
    "$program" health "$(address "$pod"):50053" >/dev/null || { echo "$pod says nothing about its health" >&2; exit 1; }
    ! ask "$(address "$pod"):50053" Recommend "$work/request" >/dev/null || { echo "$pod recommends where probes ask" >&2; exit 1; }
  done
  LOAD=(--ca "$work/ca.crt" --server-name $tls_server --cert "$work/client.crt" --key "$work/client.key")
  step mutual-nestrec-gold-pods "a pod with mTLS is deleted" delete_pod mutual
  LOAD=()
  no_restarts mutual
  helm -n $namespace uninstall mutual --wait >/dev/null
}

# Sessions in a Redis on the node's host.
items_for() { "$program" recommend --server "$(address "$1"):50051" --k 5 --json "${@:2}" | grep '"itemId"'; }
redis_sessions() {
  say "Sessions in Redis: what one pod records another one knows"
  local node port password pod other
  node="$(node_address)"
  if ! command -v redis-server >/dev/null || ! port="$(free_port "$node")"; then
    echo "sessions in Redis: not tried, redis-server is missing or the node is another machine"
    return
  fi
  password="$(openssl rand -hex 16)"
  printf 'bind %s\nport %s\nrequirepass %s\nsave ""\ndir %s\n' "$node" "$port" "$password" "$work" >"$work/redis.conf"
  redis-server "$work/redis.conf" >"$work/redis.log" 2>&1 &
  helpers+=($!)
  secret generic proof-redis --from-literal=password="$password"
  SETS=(--set "sessions.store=redis://$node:$port/0")
  values gold >"$work/redis.yaml"
  SETS=()
  install_release redis "$work/redis.yaml" --set "sessions.store=redis://$node:$port/0" --set sessions.passwordSecret=proof-redis
  pod="$(gold_pods redis | head -n 1)" other="$(gold_pods redis | tail -n 1)"
  { sed 's/[^,]*/item_ids: "&"/g; s/,/ /g' <<<"$history"; echo 'user_id: "proof"'; } | encode RecordEventsRequest >"$work/events"
  ask "$(address "$pod"):50051" RecordEvents "$work/events" >/dev/null
  knows() { [[ "$(items_for "$1" --user proof)" == "$(items_for "$1" --history "$history")" && "$(items_for "$1" --user proof)" != "$(items_for "$1" --user nobody)" ]]; }
  [[ "$pod" != "$other" ]] || { echo "two pods were expected" >&2; exit 1; }
  knows "$other" || { echo "$other does not know what $pod recorded" >&2; exit 1; }
  echo 'user_id: "proof" k: 5' | encode RecommendRequest >"$work/user_request"
  LOAD_REQUEST="$work/user_request"
  step redis-nestrec-gold-pods "a pod with sessions is deleted" delete_pod redis
  LOAD_REQUEST=""
  for pod in $(gold_pods redis); do knows "$pod" || { echo "$pod does not know the user" >&2; exit 1; }; done
  no_restarts redis
  helm -n $namespace uninstall redis --wait >/dev/null
}

# Models by HTTPS, from a server of ours on the node's host.
sum_of() { sha256sum "$1" | cut -d ' ' -f 1; }
models_values() {  # lines `name sha256`
  local name sum
  echo "model:"
  echo "  source: https"
  echo "  https:"
  echo "    caSecret: proof-ca"
  echo "    pollSeconds: 2"
  [[ -z "${NESTREC_FETCH_IMAGE:-}" ]] || echo "    image: $NESTREC_FETCH_IMAGE"
  echo "    versions:"
  while read -r name sum; do echo "      - {name: $name, url: \"https://$models_server/$name.safetensors\", sha256: $sum}"; done
}
upgrade_models() { helm upgrade https "$root/deploy/helm/nestrec" -n $namespace -f "$work/https.yaml" -f "$work/versions.yaml"; }
says_refused() { kube logs "$1" -c models-watch | grep -q 'v3 is refused: its SHA-256 is'; }
add_versions() {
  local pod pods
  pods="$(gold_pods https)"
  for pod in $pods; do serves "$pod" "$v1" || { echo "$pod does not serve $v1"; return 1; }; done
  printf 'v1 %s\nv2 %s\n' "$(sum_of "$work/v1.safetensors")" "$(sum_of "$work/v2.safetensors")" | models_values >"$work/versions.yaml"
  upgrade_models || return 1
  for pod in $pods; do until_true 240 "$pod serves $v2" serves "$pod" "$v2" || return 1; done
  # One whose bytes are not the list's: nothing changes but the log.
  printf 'v2 %s\nv3 %s\n' "$(sum_of "$work/v2.safetensors")" "$(sum_of "$work/v1.safetensors")" | models_values >"$work/versions.yaml"
  head -c 1000 "$work/v1.safetensors" >"$work/web/v3.safetensors"
  upgrade_models || return 1
  for pod in $pods; do
    until_true 240 "$pod's sidecar refuses v3" says_refused "$pod" || return 1
    serves "$pod" "$v2" || { echo "$pod no longer serves $v2"; return 1; }
  done
  [[ "$(gold_pods https)" == "$pods" ]] || { echo "pods were replaced"; return 1; }
  no_restarts https
}
https_models() {
  say "Models by HTTPS with checksums"
  local node port each
  node="$(node_address)"
  if ! port="$(free_port "$node")"; then
    echo "models by HTTPS: not tried, the node is another machine"
    return
  fi
  models_server="$node:$port"
  mkdir "$work/web"
  for each in v1 v2; do cp "$work/$each.safetensors" "$work/web/"; done
  certificate web "IP:$node"
  "$python" - "$node" "$port" "$work/web" "$work/web.crt" "$work/web.key" >"$work/web.log" 2>&1 <<'PYTHON' &
import functools, http.server, ssl, sys
host, port, folder, certificate, key = sys.argv[1:]
server = http.server.ThreadingHTTPServer((host, int(port)), functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder))
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
PYTHON
  helpers+=($!)
  secret generic proof-ca --from-file=ca.crt="$work/ca.crt"
  values gold >"$work/https.yaml"
  printf 'v1 %s\n' "$(sum_of "$work/v1.safetensors")" | models_values >"$work/versions.yaml"
  install_release https "$work/https.yaml" -f "$work/versions.yaml"
  step https-nestrec-gold-pods "versions are added by HTTPS" add_versions
  helm -n $namespace uninstall https --wait >/dev/null
}

# Models out of images that are made here of the server's, which has the sh and cp that an init container needs.
# The tag is the version of the model: nodes may still have the images of an earlier proof.
model_image() { echo "${NESTREC_MODEL_IMAGE:-nestrec/proof-models}:$1"; }
build_model_image() {  # model, version
  rm -rf "$work/context"
  mkdir "$work/context"
  cp "$work/$1.safetensors" "$work/context/"
  printf 'FROM %s\nCOPY %s.safetensors /models/\n' "$image" "$1" >"$work/context/Dockerfile"
  # What the command prints goes to the log alone; it is words, and the shell's to split.
  { docker build --tag "$(model_image "$2")" "$work/context" && $NESTREC_LOAD_IMAGE "$(model_image "$2")"; } >"$work/image.log" 2>&1 ||
    { cat "$work/image.log" >&2; exit 1; }
}
new_model_image() {
  local pod after=0
  for pod in $(gold_pods copied); do serves "$pod" "$v1" || { echo "$pod does not serve $v1"; return 1; }; done
  helm upgrade copied "$root/deploy/helm/nestrec" -n $namespace -f "$work/copied.yaml" "${copied_options[@]}" --set-string model.image.tag="$v2" --wait --timeout 10m || return 1
  rolled copied || return 1
  for pod in $(gold_pods copied); do
    [[ -z "$(kube get "$pod" -o jsonpath='{.metadata.deletionTimestamp}')" ]] || continue
    serves "$pod" "$v2" || { echo "$pod does not serve $v2"; return 1; }
    after=$((after + 1))
  done
  [[ $after == 2 ]] || { echo "2 new pods were expected, there are $after"; return 1; }
  no_restarts copied
}
copied_models() {
  say "Models out of an image"
  if ! command -v docker >/dev/null || [[ -z "${NESTREC_LOAD_IMAGE:-}" ]]; then
    echo "models out of an image: not tried, docker is missing or NESTREC_LOAD_IMAGE does not say how the nodes get what it builds"
    return
  fi
  build_model_image v1 "$v1"
  build_model_image v2 "$v2"
  copied_options=(--set model.source=image --set "model.image.repository=${NESTREC_MODEL_IMAGE:-nestrec/proof-models}")
  values gold >"$work/copied.yaml"
  install_release copied "$work/copied.yaml" "${copied_options[@]}" --set-string model.image.tag="$v1"
  step copied-nestrec-gold-pods "a new image of models" new_model_image
  helm -n $namespace uninstall copied --wait >/dev/null
  docker image rm "$(model_image "$v1")" "$(model_image "$v2")" >/dev/null || true
}

# The manifests for kustomize, which no helm reads: accepted without a warning, and the example changes what it says it does.
kustomize() {
  say "deploy/kustomize, as the API server would take it"
  local base overlay
  base="$(kube apply -k "$root/deploy/kustomize/base" --server-side --dry-run=server 2>&1)" || { echo "$base" >&2; exit 1; }
  mkdir "$work/overlay"
  printf 'namespace: %s\nresources: [%s]\n' $namespace "$(realpath --relative-to="$(realpath "$work/overlay")" "$root/deploy/kustomize/example")" \
    >"$work/overlay/kustomization.yaml"
  overlay="$(kubectl apply -k "$work/overlay" --server-side --dry-run=server 2>&1)" || { echo "$overlay" >&2; exit 1; }
  ! grep -i warning <<<"$base$overlay" >&2 || exit 1
  kubectl apply -k "$work/overlay" --server-side --dry-run=server -o json | "$python" -c '
import json, sys
deployments = [each for each in json.load(sys.stdin)["items"] if each["kind"] == "Deployment"]
assert len(deployments) == 2, deployments
for each in deployments:
    pod = each["spec"]["template"]["spec"]
    claims = {volume["name"]: volume["persistentVolumeClaim"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume}
    assert claims == {"models": {"claimName": "shop-models", "readOnly": True}}, claims
    assert pod["containers"][0]["image"].startswith("registry.example.com/nestrec/serve:"), pod["containers"][0]["image"]
' || exit 1
  echo "accepted without a warning: $(wc -l <<<"$base") objects of the base, $(wc -l <<<"$overlay") of the example, whose pods mount the claim shop-models"
}
