{{/* The server's config of one tier, protobuf text (proto/nestrec/v1/server_config.proto). */}}
{{- define "nestrec.tierConfig" -}}
{{- $root := index . 0 -}}
{{- $tier := index . 1 -}}
tiers {
  name: {{ $tier.name | quote }}
  min_dim: {{ int (default $tier.maxDim $tier.minDim) }}
  max_dim: {{ int $tier.maxDim }}
  {{- if ne (default "auto" $tier.index) "auto" }}
  index: {{ $tier.index | quote }}
  {{- end }}
  {{- with $tier.indexParameters }}
  index_parameters: {{ . | quote }}
  {{- end }}
  {{- with $tier.latencyBudget }}
  latency_budget: {{ . | quote }}
  {{- end }}
  {{- with $tier.maxK }}
  max_k: {{ int . }}
  {{- end }}
}
{{- range $root.Values.server.filterFields }}
filter_fields: {{ . | quote }}
{{- end }}
{{- end }}

{{/* The flags of `nestrec serve`. */}}
{{- define "nestrec.args" -}}
{{- $root := index . 0 -}}
{{- $tier := index . 1 -}}
{{- $v := $root.Values -}}
- serve
- --model=/models
- --model-poll={{ int $v.model.pollSeconds }}s
- --max-dim={{ int $tier.maxDim }}
- --config=/etc/nestrec/config/tiers.textproto
- --index-folder=/var/cache/nestrec
- --listen=0.0.0.0:50051
- --health-listen=0.0.0.0:50053
- --http-listen=0.0.0.0:9090
{{- if $v.admin.enabled }}
- --admin-listen=127.0.0.1:50052
{{- end }}
- --threads={{ int (default $v.threads $tier.threads) }}
- --queue={{ int $v.server.queue }}
- --batch={{ int $v.server.batch }}
- --batch-delay={{ $v.server.batchDelay }}
- --overload-target={{ $v.server.overloadTarget }}
- --grace={{ int $v.drain.graceSeconds }}s
- --log-format={{ $v.server.logFormat }}
{{- if ne $v.sessions.store "none" }}
- {{ printf "--sessions=%s" $v.sessions.store | quote }}
- --session-events={{ int $v.sessions.events }}
- --session-ttl={{ $v.sessions.ttl }}
- --session-state-bytes={{ mul (int64 $v.sessions.stateMiB) 1048576 }}
- --redis-timeout={{ $v.sessions.timeout }}
{{- if $v.sessions.passwordSecret }}
- --redis-password-file=/etc/nestrec/redis/password
{{- end }}
{{- end }}
{{- if $v.security.tls.secretName }}
- --tls-cert=/etc/nestrec/tls/tls.crt
- --tls-key=/etc/nestrec/tls/tls.key
{{- end }}
{{- if $v.security.tls.clientCaSecretName }}
- --tls-client-ca=/etc/nestrec/client-ca/ca.crt
{{- end }}
{{- if $v.security.tokens.secretName }}
- --token-file=/etc/nestrec/tokens/tokens
{{- end }}
{{- if $v.security.rateLimit }}
- --rate-limit={{ $v.security.rateLimit }}
{{- end }}
{{- range $v.server.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}

{{- define "nestrec.grpcProbe" -}}
grpc:
  port: 50053
periodSeconds: {{ int .Values.probes.periodSeconds }}
timeoutSeconds: 3
{{- end }}

{{/* The container that brings listed versions: once, before the server starts, and then again and again. */}}
{{- define "nestrec.fetchContainer" -}}
{{- $root := index . 0 -}}
{{- $mode := index . 1 -}}
- name: models-{{ $mode }}
  image: {{ $root.Values.model.https.image }}
  command: [sh, /etc/nestrec/models/fetch.sh, {{ $mode }}]
  env:
    - {name: LIST, value: /etc/nestrec/models/versions}
    - {name: LABELS, value: /etc/nestrec/models/labels.textproto}
    - {name: MODELS, value: /models}
    - {name: POLL_SECONDS, value: {{ $root.Values.model.https.pollSeconds | quote }}}
    - {name: STALL_SECONDS, value: {{ $root.Values.model.https.stallSeconds | quote }}}
    {{- if $root.Values.model.https.authSecret }}
    - {name: HEADER_FILE, value: /etc/nestrec/fetch/header}
    {{- end }}
    {{- if $root.Values.model.https.caSecret }}
    - {name: CURL_CA_BUNDLE, value: /etc/nestrec/fetch-ca/ca.crt}
    {{- end }}
  securityContext:
    {{- include "nestrec.containerSecurity" $root | nindent 4 }}
  resources:
    requests: {cpu: 10m, memory: 32Mi}
    limits: {memory: 128Mi}
  volumeMounts:
    - {name: models, mountPath: /models}
    - {name: versions, mountPath: /etc/nestrec/models, readOnly: true}
    {{- if $root.Values.model.https.authSecret }}
    - {name: fetch, mountPath: /etc/nestrec/fetch, readOnly: true}
    {{- end }}
    {{- if $root.Values.model.https.caSecret }}
    - {name: fetch-ca, mountPath: /etc/nestrec/fetch-ca, readOnly: true}
    {{- end }}
{{- end }}
