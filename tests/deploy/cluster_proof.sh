#!/usr/bin/env bash
# Installs the chart into the cluster that kubectl points at, in a namespace of its own, and serves from it. Prints what a client
# that balances over EndpointSlices saw in each step, and fails when a call failed by the documented policy, when nothing was called, or
# when what the step is about did not happen.
#
#   tests/deploy/cluster_proof.sh [PROGRAM]        make test-deploy
#
# Run it where pods' addresses can be reached: on a node, or in a pod of the cluster.
#   NESTREC_IMAGE           image with a tag that the nodes have or can pull (default: nestrec/serve:<version>)
#   NESTREC_IMAGE_2         the image to roll to (default: the same with tag `next`)
#   NESTREC_FETCH_IMAGE     image with sh, curl and sha256sum, of the step https (default: the chart's)
#   NESTREC_MODELS_FOLDER   folder of the one node that pods mount (default: a new one under /var/tmp)
#   NESTREC_LOAD_IMAGE      command that brings an image from docker to the nodes, the image's name behind it, of the step copied: "docker push",
#                           "kind load docker-image", or "true" where they share docker's images (default: the step is not tried)
#   NESTREC_MODEL_IMAGE     repository of the images with models that the step copied builds by docker, FROM NESTREC_IMAGE
#                           (default: nestrec/proof-models)
#   NESTREC_PROOF_RATE      calls a second (default: 50)
#   NESTREC_PROOF_STEPS     which steps (default: all), in the order of this list:
#     tiers     each tier, asked through a port-forward, answers at its width
#     nothing   calls are spread over the pods while nothing happens
#     delete    a pod is deleted
#     kill      a pod is killed, without grace
#     model     a new model is put into the folder
#     image     a new image is rolled out
#     evict     all pods are evicted
#     vanish    a pod's network is cut off (on its node, as root, with iptables)
#     secured   an install with TLS and tokens; the certificate and a token are rotated          (tests/deploy/cluster_installs.sh)
#     mutual    an install with TLS whose clients need a certificate; a pod is deleted
#     redis     an install with sessions in a Redis on the node's host; a pod is deleted
#     https     an install whose models come by HTTPS from the node's host; a version is added, a damaged one refused
#     copied    an install whose models an init container copies out of an image; another image of models is rolled out
#     kustomize deploy/kustomize, base and example, as the API server would take them
# Pods have the memory limit that the chart computes. Exit code 77, after a line that says why: no cluster, or a tool is missing.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
program="${1:-$root/build/release/cli/nestrec}"
version="$(sed -nE 's/^project\(nestrec VERSION ([0-9.]+).*/\1/p' "$root/CMakeLists.txt")"
image="${NESTREC_IMAGE:-nestrec/serve:$version}"
image2="${NESTREC_IMAGE_2:-${image%:*}:next}"
all_steps="tiers nothing delete kill model image evict vanish secured mutual redis https copied kustomize"
steps="${NESTREC_PROOF_STEPS:-$all_steps}"
for each in $steps; do
  [[ " $all_steps " == *" $each "* ]] || { echo "NESTREC_PROOF_STEPS: '$each' is not one of: $all_steps" >&2; exit 2; }
done
asked_for() { local each; for each in "$@"; do [[ " $steps " != *" $each "* ]] || return 0; done; return 1; }
namespace=nestrec-proof
PATH="$PATH:$HOME/go/bin"

skip() { echo "skipped: $*"; exit 77; }
for tool in kubectl helm protoc openssl; do command -v $tool >/dev/null || skip "$tool is not there"; done
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
forward="" load="" cut="" helpers=()
on_exit() {
  local code=$?
  [[ -z "$cut" ]] || drop -D "$cut" || true
  [[ -z "$forward" ]] || kill "$forward" 2>/dev/null || true
  touch "$work/stop"
  [[ -z "$load" ]] || wait "$load" 2>/dev/null || true
  for each in "${helpers[@]}"; do kill "$each" 2>/dev/null || true; done
  if [[ $code != 0 ]]; then
    kubectl -n $namespace get pods -o wide || true
    kubectl -n $namespace get events --sort-by=.lastTimestamp | tail -n 15 || true
    kubectl -n $namespace logs -l app.kubernetes.io/name=nestrec --tail=5 --prefix || true
  fi
  local release
  for release in $(helm -n $namespace list -q 2>/dev/null); do helm -n $namespace uninstall "$release" >/dev/null 2>&1 || true; done
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
encode() { protoc -I "$root/proto" --encode="nestrec.v1.$1" nestrec/v1/recommend.proto; }
encode RecommendRequest <"$work/request.txt" >"$work/request"
version_of() { "$program" inspect "$work/$1.safetensors" | awk '$1 == "version" { print $2 }'; }
v1="$(version_of v1)" v2="$(version_of v2)"
[[ -n "$v1" && -n "$v2" && "$v1" != "$v2" ]] || { echo "two models were expected, there are '$v1' and '$v2'" >&2; exit 1; }

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
# values(tiers): what all installs have, SETS: more of it that counts for the memory. The memory is what the chart computes for the tier; a CPU
# for each pod would not fit on a small node.
SETS=()
values() {
  cat <<EOT
image: {repository: ${image%:*}, tag: "${image##*:}"}
model: {items: $items, sizes: [8, 16, 32, 64], blocks: 2, pollSeconds: 1, pvc: {claimName: models}}
drain: {preStopSeconds: 3, graceSeconds: 10}
probes: {periodSeconds: 1}
threads: 1
tiers:
EOT
  local name dim replicas memory
  for name in "$@"; do
    dim=64 replicas=2
    [[ "$name" != bronze ]] || dim=16 replicas=1
    memory="$(helm template proof "$root/deploy/helm/nestrec" --kube-version 1.33.0 --show-only templates/deployment.yaml --set model.items="$items" \
      --set 'model.sizes={8,16,32,64}' --set model.blocks=2 --set "tiers[0].name=$name,tiers[0].maxDim=$dim,tiers[0].minDim=$dim" "${SETS[@]}" 2>/dev/null |
      awk '$1 == "limits:" { limits = 1 } limits && $1 == "memory:" && !found { print $2; found = 1 }')"
    [[ -n "$memory" ]] || { echo "the chart computes no memory for tier $name" >&2; exit 1; }
    echo "  - {name: $name, minDim: $dim, maxDim: $dim, replicas: $replicas, resources: {requests: {cpu: 50m, memory: $memory}, limits: {memory: $memory}}}"
  done
}
values bronze gold >"$work/values.yaml"
grep -o '{name: .*' "$work/values.yaml"
kube_version="$(kubectl version -o json | sed -nE 's/.*"gitVersion": "(v[0-9.]+).*/\1/p' | tail -n 1)"
# accepts(options...): whether the API server takes what the chart makes of them
accepts() {
  helm template proof "$root/deploy/helm/nestrec" -n $namespace -f "$work/values.yaml" --kube-version "$kube_version" "$@" |
    kube apply --server-side --dry-run=server -f - >/dev/null
}
accepts
echo "the API server accepts every object (server-side apply)"
options=(--set hpa.enabled=true --set hpa.queueTime=2ms --set admin.enabled=true --set security.tls.secretName=a --set security.tokens.secretName=b
  --set sessions.store=redis://redis:6379/0 --set sessions.passwordSecret=c) with="HPA, TLS, tokens, Redis"
has_kind() { kubectl get crd "$1" >/dev/null 2>&1; }
if has_kind grpcroutes.gateway.networking.k8s.io; then
  options+=(--set grpcRoute.enabled=true --set 'grpcRoute.parentRefs[0].name=gateway') with+=", GRPCRoute"
fi
if has_kind servicemonitors.monitoring.coreos.com && has_kind prometheusrules.monitoring.coreos.com; then
  options+=(--set serviceMonitor.enabled=true --set prometheusRule.enabled=true) with+=", ServiceMonitor, PrometheusRule"
fi
accepts "${options[@]}"
echo "and with what is off by default: $with"

# install_release(release, values file, options...): waits until its pods serve.
install_release() {
  local release="$1" file="$2"
  shift 2
  helm install "$release" "$root/deploy/helm/nestrec" -n $namespace -f "$file" --wait --timeout 10m "$@" >/dev/null
  kube get pods -l app.kubernetes.io/instance="$release" -o wide
}
# gold_pods(release), address(pod)
gold_pods() { kube get pods -l nestrec/tier=gold,app.kubernetes.io/instance="${1:-proof}" -o name --field-selector status.phase=Running; }
address() { kube get "$1" -o jsonpath='{.status.podIP}'; }
# Pods of a release that is well: none was restarted, which a memory limit that is too low would do.
no_restarts() {
  local restarts
  restarts="$(kube get pods -l app.kubernetes.io/instance="$1" -o jsonpath='{range .items[*].status.containerStatuses[*]}{.restartCount} {.lastState.terminated.reason}{"\n"}{end}')"
  ! grep -qv '^0' <<<"$restarts" || { echo "containers of $1 were restarted: $restarts" >&2; return 1; }
}
ask() { "$python" "$root/tests/deploy/cluster_ask.py" "$@"; }
# until_true(seconds, what, command...)
until_true() {
  local patience="$1" what="$2"
  shift 2
  local end=$((SECONDS + patience))
  until "$@" >"$work/until.log" 2>&1; do
    [[ $SECONDS -lt $end ]] || { echo "after $patience s still not: $what" >&2; cat "$work/until.log" >&2; return 1; }
    sleep 1
  done
}

failed=0
# judge(counts file): whether the load called enough and nothing failed.
judge() {
  "$python" - "$1" "${NESTREC_PROOF_RATE:-50}" <<'PYTHON'
import json, sys
counts = json.load(open(sys.argv[1]))
enough = counts["seconds"] * float(sys.argv[2]) / 2
problems = []
if counts["failed"]:
    problems.append(f"{sum(counts['failed'].values())} calls failed")
if counts["calls"] < enough:
    problems.append(f"{counts['calls']} calls in {counts['seconds']} s are less than half of the rate")
if "?" in counts["versions"]:
    problems.append("answers without a version")
print("; ".join(problems))
sys.exit(bool(problems))
PYTHON
}
# LOAD: more arguments of the client. step(service, what, command...): runs it while the client calls, and says what that saw.
LOAD=()
step() {
  local service="$1" what="$2"
  shift 2
  rm -f "$work/stop"
  "$python" "$root/tests/deploy/cluster_load.py" $namespace "$service" "${LOAD_REQUEST:-$work/request}" "$work/stop" --rate "${NESTREC_PROOF_RATE:-50}" \
    "${LOAD[@]}" >"$work/counts" &
  load=$!
  sleep 3
  "$@" >"$work/step.log" 2>&1 || { cat "$work/step.log" >&2; echo "$what: it did not happen as it should" >&2; exit 1; }
  sleep 5
  touch "$work/stop"
  wait "$load"
  load=""
  printf '%-28s %s\n' "$what" "$(cat "$work/counts")"
  judge "$work/counts" || failed=1
}
proof_step() { step proof-nestrec-gold-pods "$@"; }

rolled() { kube rollout status "deployment/${1:-proof}-nestrec-gold" --timeout 5m; }
# Recommend calls that a pod has ended, by its metrics.
handled() {
  "$python" -c 'import sys, urllib.request
print(sum(float(line.split()[-1]) for line in urllib.request.urlopen(sys.argv[1], timeout=10).read().decode().splitlines()
          if line.startswith("grpc_server_handled_total") and "method=\"Recommend\"" in line))' "http://$(address "$1"):9090/metrics"
}
nothing() {
  local pod after
  local -A before=()
  for pod in $(gold_pods); do before[$pod]="$(handled "$pod")" || return 1; done
  sleep 5
  for pod in $(gold_pods); do
    after="$(handled "$pod")" || return 1
    awk -v calls="$after" -v before="${before[$pod]}" -v least="${NESTREC_PROOF_RATE:-50}" 'BEGIN { exit calls - before < least }' ||
      { echo "$pod got hardly a call: ${before[$pod]}, then $after"; return 1; }
  done
}
another_pod() { ! gold_pods "$2" | grep -qx "$1"; }
delete_pod() {
  local pod
  pod="$(gold_pods "${1:-proof}" | head -n 1)"
  kube delete "$pod" --wait=true && rolled "${1:-proof}" && another_pod "$pod" "${1:-proof}"
}
kill_pod() {
  local pod
  pod="$(gold_pods | head -n 1)"
  kube delete "$pod" --grace-period=0 --force && rolled && another_pod "$pod" proof
}
# serves(pod, version, options of ask...)
serves() {
  local pod="$1" version="$2"
  shift 2
  [[ "$(ask "$(address "$pod"):50051" Recommend "$work/request" "$@")" == "OK $version" ]]
}
new_model() {
  local pod pods
  pods="$(gold_pods)"
  for pod in $pods; do serves "$pod" "$v1" || { echo "$pod does not serve $v1"; return 1; }; done
  { cp "$work/v2.safetensors" "$models/.v2.part" && mv "$models/.v2.part" "$models/v2.safetensors"; } || return 1
  for pod in $pods; do until_true 60 "$pod serves $v2" serves "$pod" "$v2" || return 1; done
  [[ "$(gold_pods)" == "$pods" ]] || { echo "pods were replaced"; return 1; }
  no_restarts proof
}
new_image() {
  helm upgrade proof "$root/deploy/helm/nestrec" -n $namespace -f "$work/values.yaml" --set image.repository="${image2%:*}" --set image.tag="${image2##*:}" --wait --timeout 10m || return 1
  local pod
  for pod in $(gold_pods); do
    [[ "$(kube get "$pod" -o jsonpath='{.spec.containers[0].image}')" == "$image2" || -n "$(kube get "$pod" -o jsonpath='{.metadata.deletionTimestamp}')" ]] ||
      { echo "$pod has another image than $image2"; return 1; }
  done
}
evict_one() {
  kubectl create --raw "/api/v1/namespaces/$namespace/pods/${1#pod/}/eviction" -f - <<<"{\"apiVersion\": \"policy/v1\", \"kind\": \"Eviction\",
    \"metadata\": {\"name\": \"${1#pod/}\", \"namespace\": \"$namespace\"}}"
}
evict() {
  local pod
  for pod in $(gold_pods); do
    until_true 120 "the API evicts $pod (429: the disruption budget does not allow it)" evict_one "$pod" || return 1
    kube wait --for=delete "$pod" --timeout 2m || return 1
    rolled || return 1
  done
}

# What a node that disappears looks like to its clients: no answer, no end of the connection, nothing. Probes have another port.
drop() { iptables "$1" OUTPUT -p tcp -d "$2" --dport 50051 -j DROP; iptables "$1" INPUT -p tcp -s "$2" --sport 50051 -j DROP; }
vanish() {
  cut="$(address "$(gold_pods | head -n 1)")"
  timeout 2 bash -c "exec 3<>/dev/tcp/$cut/50051" || { echo "$cut cannot be reached before"; return 1; }
  drop -I "$cut" || return 1
  ! timeout 2 bash -c "exec 3<>/dev/tcp/$cut/50051" || { echo "$cut can be reached although it is cut off"; return 1; }
  sleep 30
  drop -D "$cut" || return 1
  cut=""
  sleep 5
}

if asked_for tiers nothing delete kill model image evict vanish; then
  install_release proof "$work/values.yaml"
fi
if asked_for tiers; then
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
fi
say "Under load: ${NESTREC_PROOF_RATE:-50} calls a second, the policy of examples/clients/service_config.json"
! asked_for nothing || proof_step "nothing happens" nothing
! asked_for delete || proof_step "a pod is deleted" delete_pod
! asked_for kill || proof_step "a pod is killed" kill_pod
! asked_for model || proof_step "a new model" new_model
! asked_for image || proof_step "a new image" new_image
! asked_for evict || proof_step "all pods are evicted" evict
if asked_for vanish; then
  if [[ $EUID == 0 ]] && command -v iptables >/dev/null; then
    proof_step "a pod vanishes for 30 s" vanish
  else
    echo "a pod vanishes: not tried, iptables or root is missing"
  fi
fi
if asked_for tiers nothing delete kill model image evict vanish; then
  no_restarts proof
  helm -n $namespace uninstall proof --wait >/dev/null
fi
. "$root/tests/deploy/cluster_installs.sh"
! asked_for secured || secured
! asked_for mutual || mutual
! asked_for redis || redis_sessions
! asked_for https || https_models
! asked_for copied || copied_models
! asked_for kustomize || kustomize
[[ $failed == 0 ]] || { echo "not as it should be; the lines above say what" >&2; exit 1; }
echo "no call failed: $steps"
