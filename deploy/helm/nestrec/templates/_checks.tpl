{{/*
What values.schema.json cannot say: values that contradict each other, that the program would refuse, or that would give two objects
one name. Each message names the value, its limit and what to do.
*/}}

{{/* A duration, such as 1m30s, in microseconds. */}}
{{- define "nestrec.microseconds" -}}
{{- $unit := dict "h" 3600000000.0 "m" 60000000.0 "s" 1000000.0 "ms" 1000.0 "us" 1.0 "ns" 0.001 -}}
{{- $sum := 0.0 -}}
{{- range regexFindAll "[0-9]+([.][0-9]+)?(ns|us|ms|h|m|s)" . -1 -}}
{{- $sum = addf $sum (mulf (float64 (regexFind "^[0-9.]+" .)) (get $unit (regexFind "[a-z]+$" .))) -}}
{{- end -}}
{{- printf "%f" $sum -}}
{{- end }}

{{/* A quantity, such as 1500Mi, 2 or 500m, as a number. */}}
{{- define "nestrec.quantity" -}}
{{- $factor := dict "n" 1e-9 "u" 1e-6 "m" 1e-3 "" 1.0 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 "Ei" 1152921504606846976.0 -}}
{{- $number := regexFind "^[0-9.]+([eE][0-9]+)?" . -}}
{{- printf "%f" (mulf (float64 $number) (get $factor (trimPrefix $number .))) -}}
{{- end }}

{{/* (what, value, least, most, cure) */}}
{{- define "nestrec.checkDuration" -}}
{{- $value := float64 (include "nestrec.microseconds" (index . 1)) -}}
{{- if or (lt $value (float64 (include "nestrec.microseconds" (index . 2)))) (gt $value (float64 (include "nestrec.microseconds" (index . 3)))) -}}
{{- fail (printf "%s %q is not from %s to %s; %s" (index . 0) (index . 1) (index . 2) (index . 3) (index . 4)) -}}
{{- end -}}
{{- end }}

{{/* An index as `nestrec serve` takes it: auto, nested, or parts of a FAISS factory string. FAISS itself has the last word. */}}
{{- define "nestrec.checkIndex" -}}
{{- $index := default "auto" .index -}}
{{- $name := .name -}}
{{- if and (eq $index "auto") .indexParameters }}{{ fail (printf "tier %q: indexParameters %q need an index that has them; give index too, such as HNSW32, or leave them out" .name .indexParameters) }}{{ end -}}
{{- if not (has $index (list "auto" "nested")) -}}
{{- range splitList "," (regexReplaceAll "\\([^()]*\\)" $index "") -}}
{{- if not (regexMatch "^(Flat|RFlat|Refine|IDMap2?|L2norm|LSH(rt?|t)?|SQ(4|6|8|fp16|bf16)|(HNSW|NSG)[0-9]*(_[A-Za-z0-9_]+)?|(IVF|IMI)[0-9]+(x[0-9]+)?(_[A-Za-z0-9_]+)?|(PQ|OPQ|PCA|PCAR|PCAW|PCAWR|RR|ITQ|Pad|RQ|LSQ|PRQ|PLSQ|ZnLattice)[0-9]+[A-Za-z0-9_]*)$" .) -}}
{{- fail (printf "tier %q: index %q is none: %q is not part of a FAISS factory string; give auto, nested, Flat, or one such as HNSW32 or IVF256,Flat" $name $index .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/*
Search settings that the tier's index has: of nested ones its own, of others those of FAISS's ParameterSpace, whose names say which part they are of.
*/}}
{{- define "nestrec.checkIndexParameters" -}}
{{- $tier := . -}}
{{- $index := default "auto" .index -}}
{{- $known := list -}}
{{- if eq $index "nested" -}}
{{- $known = list "recall" "candidates" -}}
{{- else -}}
{{- if regexMatch "IVF|IMI" $index }}{{ $known = concat $known (list "nprobe" "max_codes") }}{{ end -}}
{{- if regexMatch "HNSW" $index }}{{ $known = concat $known (list "efSearch" "efConstruction") }}{{ end -}}
{{- if regexMatch "PQ[0-9]" $index }}{{ $known = append $known "ht" }}{{ end -}}
{{- if regexMatch "RFlat|Refine" $index }}{{ $known = concat $known (list "k_factor" "k_factor_rf") }}{{ end -}}
{{- end -}}
{{- range splitList "," (default "" .indexParameters) -}}
{{- $name := regexFind "^[^=]*" . -}}
{{- if ne $index "nested" }}{{ $name = trimPrefix "quantizer_" $name }}{{ end -}}
{{- if not (has $name $known) }}{{ fail (printf "tier %q: indexParameters %q: index %q has no such setting; it has %s" $tier.name . $index (empty $known | ternary "none, so leave them out" (join ", " $known))) }}{{ end -}}
{{- if not (regexMatch "^[^=]+=[0-9]+([.][0-9]+)?$" .) }}{{ fail (printf "tier %q: indexParameters %q is no setting; give it as %s=<number>" $tier.name . $name) }}{{ end -}}
{{- end -}}
{{- end }}

{{/* Flags that the program has, each in the one word that the chart passes on. files/serve_flags.txt has them. */}}
{{- define "nestrec.checkExtraArgs" -}}
{{- $flags := dict -}}
{{- range .Files.Lines "files/serve_flags.txt" }}{{ with splitList " " . }}{{ $_ := set $flags (first .) (rest .) }}{{ end }}{{ end -}}
{{- range .Values.server.extraArgs -}}
{{- $flag := regexFind "^--[a-z0-9-]*" . -}}
{{- $value := trimPrefix $flag . -}}
{{- if not (regexMatch "^(=|$)" $value) }}{{ fail (printf "server.extraArgs: %q is not a flag in one word; give it as --flag=value" .) }}{{ end -}}
{{- if not (hasKey $flags $flag) }}{{ fail (printf "server.extraArgs: %q is no flag of nestrec serve; docs/operations.md lists them" .) }}{{ end -}}
{{- $type := get $flags $flag -}}
{{- if and $type (not (regexMatch "^=." $value)) }}{{ fail (printf "server.extraArgs: %q lacks its value; give it as %s=%s" . $flag (first $type)) }}{{ end -}}
{{- if and (not $type) $value }}{{ fail (printf "server.extraArgs: %q takes no value; give it as %s" . $flag) }}{{ end -}}
{{- if and (has (first (append $type "")) (list "INT" "UINT" "FLOAT")) (not (regexMatch "^=-?[0-9]+([.][0-9]+)?$" $value)) }}{{ fail (printf "server.extraArgs: %q is not a number; give it as %s=%s" . $flag (first $type)) }}{{ end -}}
{{- end -}}
{{- end }}

{{/*
What has to fit into model.storage, in MiB: two versions of the files of a model, where the volume is filled with them, or else of the indexes that
servers keep in theirs.
*/}}
{{- define "nestrec.checkStorage" -}}
{{- $model := .Values.model -}}
{{- $least := 1 -}}
{{- $of := "kept indexes" -}}
{{- range .Values.tiers -}}
{{- $least = max $least (mul 2 (int64 (include "nestrec.modelMiB" (list $ . "indexes")))) -}}
{{- end -}}
{{- if ne $model.source "pvc" -}}
{{- $widest := dict "name" "" "maxDim" (int (last $model.sizes)) -}}
{{- $files := mul 2 (int64 (include "nestrec.modelMiB" (list . $widest "file"))) -}}
{{- if gt $files (int64 $least) }}{{ $least = $files }}{{ $of = "the model" }}{{ end -}}
{{- end -}}
{{- if lt (float64 (include "nestrec.quantity" $model.storage)) (mulf (float64 $least) 1048576.0) -}}
{{- fail (printf "model.storage %q is less than two versions of %s take by model.items and model.sizes; give at least %dMi" $model.storage $of (int64 $least)) -}}
{{- end -}}
{{- end }}

{{/* Names of Services begin with a letter and have no dots. */}}
{{- define "nestrec.checkName" -}}
{{- $name := include "nestrec.fullname" . -}}
{{- if not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" $name) }}{{ fail (printf "release name %q: its Services would be called %s-..., but their names have a-z, 0-9 and - alone and begin with a letter; choose another name or set fullnameOverride" .Release.Name $name) }}{{ end -}}
{{- end }}

{{/* Settings of all pods. */}}
{{- define "nestrec.checkSettings" -}}
{{- $v := .Values -}}
{{- include "nestrec.checkDuration" (list "server.batchDelay" $v.server.batchDelay "0s" "1s" "0s does not wait") -}}
{{- include "nestrec.checkDuration" (list "server.overloadTarget" $v.server.overloadTarget "100us" "1h" "5ms is the program's own") -}}
{{- include "nestrec.checkDuration" (list "sessions.timeout" $v.sessions.timeout "1ms" "60s" "250ms is the program's own") -}}
{{- include "nestrec.checkDuration" (list "sessions.ttl" $v.sessions.ttl "0s" "87600h" "0s keeps them for ever") -}}
{{- if ne $v.sessions.store "none" -}}
{{- if lt (int $v.sessions.events) (int $v.model.maxLen) }}{{ fail (printf "sessions.events %d is less than the %d events that the model reads (model.maxLen); give at least that many" (int $v.sessions.events) (int $v.model.maxLen)) }}{{ end -}}
{{- if regexMatch "^redis://[^/]*:[^/]*@" $v.sessions.store }}{{ fail "sessions.store holds a password, which everybody could read in the manifest; put it into a Secret and name that in sessions.passwordSecret" }}{{ end -}}
{{- $port := trimPrefix ":" (regexFind ":[0-9]+$" (urlParse $v.sessions.store).host) -}}
{{- if or (not (regexMatch "^redis://([^:@/]+@)?([^][:@/]+|[[][0-9a-fA-F:.]+[]])(:[0-9]{1,5})?(/[0-9]*)?$" $v.sessions.store)) (and $port (or (lt (int $port) 1) (gt (int $port) 65535))) }}{{ fail (printf "sessions.store %q is not a Redis; give it as redis://host:6379/0, its port from 1 to 65535" $v.sessions.store) }}{{ end -}}
{{- else if $v.sessions.passwordSecret -}}
{{- fail (printf "sessions.passwordSecret %q is for a Redis, but sessions.store is none; name it there" $v.sessions.passwordSecret) -}}
{{- end -}}
{{- $owned := dict "model" "model" "model-poll" "model.pollSeconds" "max-dim" "tiers[].maxDim" "config" "tiers" "default-tier" "tiers" "index-folder" "tiers[].index" "listen" "service.port" "health-listen" "probes" "http-listen" "serviceMonitor" "admin-listen" "admin.enabled" "threads" "threads" "queue" "server.queue" "batch" "server.batch" "batch-delay" "server.batchDelay" "overload-target" "server.overloadTarget" "grace" "drain.graceSeconds" "log-format" "server.logFormat" "sessions" "sessions.store" "session-events" "sessions.events" "session-ttl" "sessions.ttl" "session-state-bytes" "sessions.stateMiB" "redis-timeout" "sessions.timeout" "redis-password-file" "sessions.passwordSecret" "tls-cert" "security.tls.secretName" "tls-key" "security.tls.secretName" "tls-client-ca" "security.tls.clientCaSecretName" "token-file" "security.tokens.secretName" "rate-limit" "security.rateLimit" -}}
{{- range $v.server.extraArgs -}}
{{- $flag := regexFind "^[^= ]+" . | trimPrefix "--" -}}
{{- if hasKey $owned $flag }}{{ fail (printf "server.extraArgs: %q is a flag that the chart sets; use %s" . (get $owned $flag)) }}{{ end -}}
{{- end -}}
{{- include "nestrec.checkExtraArgs" . -}}
{{- range $label := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "nestrec/tier" -}}
{{- if hasKey (default dict $v.podLabels) $label }}{{ fail (printf "podLabels: %q: %q is what Services find the pods by; leave it out" $label (get $v.podLabels $label)) }}{{ end -}}
{{- end -}}
{{- if hasKey (default dict $v.podAnnotations) "nestrec/config" }}{{ fail (printf "podAnnotations: \"nestrec/config\": %q is what replaces pods when their config changes; leave it out" (get $v.podAnnotations "nestrec/config")) }}{{ end -}}
{{- end }}

{{/* The tier's name is part of names and goes first in the messages of what is wrong with it. */}}
{{- define "nestrec.check" -}}
{{- include "nestrec.checkName" . -}}
{{- include "nestrec.checkSettings" . -}}
{{- $sizes := list -}}
{{- range .Values.model.sizes }}{{ $sizes = append $sizes (int .) }}{{ end -}}
{{- $names := list -}}
{{- range .Values.tiers }}{{ $names = append $names .name }}{{ end -}}
{{- $seen := list -}}
{{- range .Values.tiers -}}
{{- $name := .name -}}
{{- if has .name $seen }}{{ fail (printf "tiers: the name %q is there twice; give each tier its own" .name) }}{{ end -}}
{{- $seen = append $seen .name -}}
{{- if and (hasSuffix "-pods" .name) (has (trimSuffix "-pods" .name) $names) }}{{ fail (printf "tier %q: its Service would have the name of tier %q's headless one; give one of them another name" .name (trimSuffix "-pods" .name)) }}{{ end -}}
{{- if and (eq .name "models") (eq $.Values.model.source "https") }}{{ fail "tier \"models\": its ConfigMap would have the name of the one with model.https.versions; give it another name" }}{{ end -}}
{{- include "nestrec.checkIndex" . -}}
{{- if .indexParameters }}{{ include "nestrec.checkIndexParameters" . }}{{ end -}}
{{- with .latencyBudget }}{{ include "nestrec.checkDuration" (list (printf "tier %q: latencyBudget" $name) . "1ns" "87600h" "leave it out for none") }}{{ end -}}
{{- range $kind, $amounts := .resources -}}
{{- range $what, $amount := $amounts -}}
{{- if not (regexMatch "^[0-9]+([.][0-9]+)?([eE][0-9]+|[munkMGTPE]|[KMGTPE]i)?$" (toString $amount)) }}{{ fail (printf "tier %q: resources.%s.%s %q is not a quantity; give one such as 500m, 2 or 1500Mi" $name $kind $what (toString $amount)) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $limits := default dict (default dict .resources).limits -}}
{{- range $what, $amount := (default dict .resources).requests -}}
{{- if hasKey $limits $what -}}
{{- if gt (float64 (include "nestrec.quantity" (toString $amount))) (float64 (include "nestrec.quantity" (toString (get $limits $what)))) }}{{ fail (printf "tier %q: resources.requests.%s %q is above resources.limits.%s %q; a pod never asks for more than it may take" $name $what (toString $amount) $what (toString (get $limits $what))) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $max := int .maxDim -}}
{{- $min := int (default .maxDim .minDim) -}}
{{- if not (has $max $sizes) }}{{ fail (printf "tier %q: maxDim %d is not a size of the model; model.sizes has %v" .name $max $sizes) }}{{ end -}}
{{- if not (has $min $sizes) }}{{ fail (printf "tier %q: minDim %d is not a size of the model; model.sizes has %v" .name $min $sizes) }}{{ end -}}
{{- if gt $min $max }}{{ fail (printf "tier %q: minDim %d is above maxDim %d" .name $min $max) }}{{ end -}}
{{- $hpa := mergeOverwrite (deepCopy $.Values.hpa) (default dict .hpa) -}}
{{- if $hpa.enabled -}}
{{- if gt (int $hpa.minReplicas) (int $hpa.maxReplicas) }}{{ fail (printf "tier %q: hpa.minReplicas %d is above hpa.maxReplicas %d" .name (int $hpa.minReplicas) (int $hpa.maxReplicas)) }}{{ end -}}
{{- if and (eq (int $hpa.cpuPercent) 0) (not $hpa.queueTime) }}{{ fail (printf "tier %q: hpa has neither cpuPercent nor queueTime; give one" .name) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $previous := 0 -}}
{{- range $sizes -}}
{{- if le . $previous }}{{ fail (printf "model.sizes %v: sizes go up, from narrow to wide" $sizes) }}{{ end -}}
{{- $previous = . -}}
{{- end -}}
{{- with .Values.grpcRoute.defaultTier }}{{ if not (has . $seen) }}{{ fail (printf "grpcRoute.defaultTier %q is not one of the tiers %v" . $seen) }}{{ end }}{{ end -}}
{{- if and .Values.grpcRoute.enabled (not .Values.grpcRoute.parentRefs) }}{{ fail "grpcRoute.parentRefs is empty; name the Gateway that the route belongs to" }}{{ end -}}
{{- if and .Values.security.tls.clientCaSecretName (not .Values.security.tls.secretName) }}{{ fail "security.tls.clientCaSecretName needs security.tls.secretName: client certificates are part of TLS" }}{{ end -}}
{{- $model := .Values.model -}}
{{- if and (eq $model.source "https") (not $model.https.versions) }}{{ fail "model.https.versions is empty; list at least one version, or choose another model.source" }}{{ end -}}
{{- if and (eq $model.source "image") (not $model.image.repository) }}{{ fail "model.image.repository is empty; name the image that holds the model, or choose another model.source" }}{{ end -}}
{{- if regexMatch "^/+nestrec-models(/|$)" $model.image.path }}{{ fail (printf "model.image.path %q is where the init container mounts what it copies to; put the versions into another folder of the image" $model.image.path) }}{{ end -}}
{{- if regexMatch "(^|/)[.][.](/|$)" (default "" $model.pvc.subPath) }}{{ fail (printf "model.pvc.subPath %q leads out of the claim; name a folder in it" $model.pvc.subPath) }}{{ end -}}
{{- include "nestrec.checkStorage" . -}}
{{- $versions := list -}}
{{- range $model.https.versions -}}
{{- if has .name $versions }}{{ fail (printf "model.https.versions: the name %q is there twice; a version's content never changes under its name" .name) }}{{ end -}}
{{- $versions = append $versions .name -}}
{{- end -}}
{{- end }}
