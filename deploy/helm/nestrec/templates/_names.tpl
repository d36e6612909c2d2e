{{/* Names and labels. */}}
{{- define "nestrec.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 32 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 32 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 32 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "nestrec.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "nestrec.labels" -}}
{{ include "nestrec.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "nestrec.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "nestrec.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "nestrec.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end }}

{{/* What every container may do: nothing. */}}
{{- define "nestrec.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* The tier's name is part of names and goes first in the messages of what is wrong with it. */}}
{{- define "nestrec.checkTiers" -}}
{{- $sizes := list -}}
{{- range .Values.model.sizes }}{{ $sizes = append $sizes (int .) }}{{ end -}}
{{- $seen := list -}}
{{- range .Values.tiers -}}
{{- if has .name $seen }}{{ fail (printf "tiers: the name %q is there twice; give each tier its own" .name) }}{{ end -}}
{{- $seen = append $seen .name -}}
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
{{- $names := list -}}
{{- range $model.https.versions -}}
{{- if has .name $names }}{{ fail (printf "model.https.versions: the name %q is there twice; a version's content never changes under its name" .name) }}{{ end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- end }}
