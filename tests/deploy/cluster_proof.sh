#!/usr/bin/env bash
# Installs the chart into the cluster that kubectl points at, in a namespace of its own, and serves from it: two tiers, each asked
# through a port-forward; then, under load from a client that balances over EndpointSlices, a pod is deleted, a new model rolled
# out, a new image rolled out, pods evicted, and a pod's network cut off (on a node, as root, with iptables). Prints the counts of each step and fails when a call failed after its retries.
#
#   tests/deploy/cluster_proof.sh [PROGRAM]        make test-deploy
#
# Run it where pods' addresses can be reached: on a node, or in a pod of the cluster.
#   NESTREC_IMAGE           image with a tag that the nodes have or can pull (default: nestrec/serve:<version>)
#   NESTREC_IMAGE_2         the image to roll to (default: the same with tag `next`)
#   NESTREC_MODELS_FOLDER   folder of the one node that pods mount (default: a new one under /var/tmp)
# Exit code 77, after a line that says why: no cluster, or a tool is missing.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
program="${1:-$root/build/release/cli/nestrec}"
version="$(sed -nE 's/^project\(nestrec VERSION ([0-9.]+).*/\1/p' "$root/CMakeLists.txt")"
image="${NESTREC_IMAGE:-nestrec/serve:$version}"
image2="${NESTREC_IMAGE_2:-${image%:*}:next}"
namespace=nestrec-proof
PATH="$PATH:$HOME/go/bin"

skip() { echo "skipped: $*"; exit 77; }
for tool in kubectl helm protoc; do command -v $tool >/dev/null || skip "$tool is not there"; done
kubectl get nodes >/dev/null 2>&1 || skip "kubectl reaches no cluster"
[[ -x "$program" ]] || skip "$program is not there; make build"
python=""
for each in python3 /usr/bin/python3; do
  if "$each" -c 'import grpc' 2>/dev/null; then python="$each"; break; fi
done
[[ -n "$python" ]] || skip "Python's grpc is missing; apt-get install python3-grpcio"

work="$(mktemp -d)"
models="${NESTREC_MODELS_FOLDER:-$(mktemp -d /var/tmp/nestrec-models.XXXXXX)}"
chmod 755 "$models"
forward="" load="" cut=""
on_exit() {
  local code=$?
  [[ -z "$cut" ]] || drop -D "$cut" || true
  [[ -z "$forward" ]] || kill "$forward" 2>/dev/null || true
  touch "$work/stop"
  [[ -z "$load" ]] || wait "$load" 2>/dev/null || true
  if [[ $code != 0 ]]; then
    kubectl -n $namespace get pods -o wide || true
    kubectl -n $namespace get events --sort-by=.lastTimestamp | tail -n 15 || true
    kubectl -n $namespace logs -l app.kubernetes.io/name=nestrec --tail=5 --prefix || true
  fi
  helm -n $namespace uninstall proof >/dev/null 2>&1 || true
  kubectl delete namespace $namespace --wait=false >/dev/null 2>&1 || true
  kubectl delete persistentvolume $namespace --wait=false >/dev/null 2>&1 || true
  rm -rf "$work"
  [[ -n "${NESTREC_MODELS_FOLDER:-}" ]] || rm -rf "$models"
}
trap on_exit EXIT
say() { printf '\n== %s\n' "$*"; }
kube() { kubectl -n $namespace "$@"; }

say "A shop and two models of it"
"$program" make-shop --out "$work/raw" >/dev/null
"$program" prepare --events "$work/raw/events.csv" --catalogue "$work/raw/catalogue.jsonl" --out "$work/shop" --text-width 64 >/dev/null
for seed in 1 2; do
  "$program" train --data "$work/shop" -o "$work/v$seed.safetensors" --dim 64 --epochs 1 --seed $seed --name shop >/dev/null
  chmod 644 "$work/v$seed.safetensors"
done
cp "$work/v1.safetensors" "$models/v1.safetensors"
items="$("$program" inspect "$work/v1.safetensors" | awk '$1 == "items" { print $2 }')"
history="$(head -n 3 "$work/shop/items.jsonl" | sed -nE 's/.*"item_id": ?"([^"]*)".*/\1/p' | paste -sd, -)"
sed 's/[^,]*/history_item_ids: "&"/g; s/,/ /g' <<<"$history" >"$work/request.txt"
echo 'k: 5' >>"$work/request.txt"
protoc -I "$root/proto" --encode=nestrec.v1.RecommendRequest nestrec/v1/recommend.proto <"$work/request.txt" >"$work/request"

say "The chart, two tiers, under the restricted Pod Security standard"
kubectl create namespace $namespace
kubectl label namespace $namespace pod-security.kubernetes.io/enforce=restricted >/dev/null
kubectl apply --server-side -f - <<EOT
apiVersion: v1
kind: PersistentVolume
metadata: {name: $namespace}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadOnlyMany]
  storageClassName: ""
  claimRef: {namespace: $namespace, name: models}
  hostPath: {path: $models}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: models, namespace: $namespace}
spec: {accessModes: [ReadOnlyMany], storageClassName: "", volumeName: $namespace, resources: {requests: {storage: 1Gi}}}
EOT
cat >"$work/values.yaml" <<EOT
image: {repository: ${image%:*}, tag: "${image##*:}"}
model: {items: $items, sizes: [8, 16, 32, 64], blocks: 2, pollSeconds: 1, pvc: {claimName: models}}
tiers:
  - {name: bronze, minDim: 16, maxDim: 16, replicas: 1, threads: 1, resources: {requests: {cpu: 50m, memory: 300Mi}, limits: {memory: 500Mi}}}
  - {name: gold, minDim: 64, maxDim: 64, replicas: 2, threads: 1, resources: {requests: {cpu: 50m, memory: 300Mi}, limits: {memory: 500Mi}}}
drain: {preStopSeconds: 3, graceSeconds: 10}
probes: {periodSeconds: 1}
EOT
kube_version="$(kubectl version -o json | sed -nE 's/.*"gitVersion": "(v[0-9.]+).*/\1/p' | tail -n 1)"
# accepts(options...): whether the API server takes what the chart makes of them
accepts() {
  helm template proof "$root/deploy/helm/nestrec" -n $namespace -f "$work/values.yaml" --kube-version "$kube_version" "$@" |
    kube apply --server-side --dry-run=server -f - >/dev/null
}
accepts
echo "the API server accepts every object (server-side apply)"
options=(--set hpa.enabled=true --set hpa.queueTime=2ms --set admin.enabled=true) with="HPA"
has_kind() { kubectl get crd "$1" >/dev/null 2>&1; }
if has_kind grpcroutes.gateway.networking.k8s.io; then
  options+=(--set grpcRoute.enabled=true --set 'grpcRoute.parentRefs[0].name=gateway') with+=", GRPCRoute"
fi
if has_kind servicemonitors.monitoring.coreos.com && has_kind prometheusrules.monitoring.coreos.com; then
  options+=(--set serviceMonitor.enabled=true --set prometheusRule.enabled=true) with+=", ServiceMonitor, PrometheusRule"
fi
accepts "${options[@]}"
echo "and with what is off by default: $with"
helm install proof "$root/deploy/helm/nestrec" -n $namespace -f "$work/values.yaml" --wait --timeout 10m >/dev/null
kube get pods -o wide

for tier in bronze:16 gold:64; do
  say "Tier ${tier%:*} through a port-forward"
  kube port-forward service/proof-nestrec-${tier%:*} 0:50051 >"$work/forward" 2>&1 &
  forward=$!
  for _ in $(seq 100); do grep -q '^Forwarding' "$work/forward" && break; sleep 0.1; done
  port="$(sed -nE 's/^Forwarding from 127.0.0.1:([0-9]+).*/\1/p' "$work/forward")"
  "$program" recommend --server "127.0.0.1:$port" --history "$history" --tier "${tier%:*}" --k 3 | tee "$work/answer"
  grep -q "at dim ${tier#*:} (tier ${tier%:*})" "$work/answer" || { echo "expected dim ${tier#*:}" >&2; exit 1; }
  kill $forward && wait $forward 2>/dev/null || true
  forward=""
done

failed=0
# step(what, command...): runs it while the load runs, and says what the load saw.
step() {
  local what="$1"
  shift
  rm -f "$work/stop"
  "$python" "$root/tests/deploy/cluster_load.py" $namespace proof-nestrec-gold-pods "$work/request" "$work/stop" "${NESTREC_PROOF_RATE:-50}" >"$work/counts" &
  load=$!
  sleep 3
  "$@" >"$work/step.log" 2>&1 || { cat "$work/step.log" >&2; exit 1; }
  sleep 5
  touch "$work/stop"
  wait "$load"
  load=""
  printf '%-28s %s\n' "$what" "$(cat "$work/counts")"
  grep -q '"failed": {}' "$work/counts" || failed=1
}
gold_pods() { kube get pods -l nestrec/tier=gold -o name --field-selector status.phase=Running; }
rolled() { kube rollout status deployment/proof-nestrec-gold --timeout 5m; }
nothing() { sleep 5; }
delete_pod() { kube delete "$(gold_pods | head -n 1)" --wait=true && rolled; }
kill_pod() { kube delete "$(gold_pods | head -n 1)" --grace-period=0 --force && rolled; }
new_model() {
  cp "$work/v2.safetensors" "$models/.v2.part" && mv "$models/.v2.part" "$models/v2.safetensors"
  local pod
  for pod in $(gold_pods); do
    for _ in $(seq 120); do kube logs "$pod" | grep -q 'models_serving.*v2\|model_loaded.*v2' && break; sleep 0.5; done
  done
}
new_image() { helm upgrade proof "$root/deploy/helm/nestrec" -n $namespace -f "$work/values.yaml" --set image.tag="${image2##*:}" --wait --timeout 10m; }
evict() {
  local pod
  for pod in $(gold_pods); do
    for _ in $(seq 120); do  # 429 while the budget does not allow it
      kubectl create --raw "/api/v1/namespaces/$namespace/pods/${pod#pod/}/eviction" -f - <<<"{\"apiVersion\": \"policy/v1\", \"kind\": \"Eviction\",
        \"metadata\": {\"name\": \"${pod#pod/}\", \"namespace\": \"$namespace\"}}" && break
      sleep 1
    done
    kube wait --for=delete "$pod" --timeout 2m || true
    rolled
  done
}

# What a node that disappears looks like to its clients: no answer, no end of the connection, nothing. Probes have another port.
drop() { iptables "$1" OUTPUT -p tcp -d "$2" --dport 50051 -j DROP; iptables "$1" INPUT -p tcp -s "$2" --sport 50051 -j DROP; }
vanish() {
  cut="$(kube get "$(gold_pods | head -n 1)" -o jsonpath='{.status.podIP}')"
  drop -I "$cut"
  sleep 30
  drop -D "$cut"
  cut=""
  sleep 5
}

say "Under load: ${NESTREC_PROOF_RATE:-50} calls a second, up to 4 attempts on UNAVAILABLE"
step "nothing happens" nothing
step "a pod is deleted" delete_pod
step "a pod is killed" kill_pod
step "a new model" new_model
step "a new image" new_image
step "all pods are evicted" evict
if [[ $EUID == 0 ]] && command -v iptables >/dev/null; then
  step "a pod vanishes for 30 s" vanish
else
  echo "a pod vanishes: not tried, iptables or root is missing"
fi
kube get pods
[[ $failed == 0 ]] || { echo "calls failed" >&2; exit 1; }
echo "no call failed"
