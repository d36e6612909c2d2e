{{/*
The memory of a tier's pod in MiB. docs/kubernetes.md has the formula and how it was measured; tools/serving_memory.py
computes the same outside of a cluster, and tests/deploy compares the two.

  levels(d) = items x (4 d  vectors, mapped
                     + 4 x (sum of the sizes up to d)  a flat index per size
                     + tier's own index, per size of the tier: nested s + 20; other than Flat 4 s + 300
                     + field bytes)
            + blocks x 28 x sum over levels j of w_j s_j  weights
  and 80 MiB more for building nested indexes
*/}}
{{- define "nestrec.memoryMiB" -}}
{{- $root := index . 0 -}}
{{- $tier := index . 1 -}}
{{- $max := int $tier.maxDim -}}
{{- $min := int (default $tier.maxDim $tier.minDim) -}}
{{- $index := default "Flat" $tier.index -}}
{{- $itemBytes := int64 $root.Values.model.fieldBytes -}}
{{- $itemBytes = add $itemBytes (mul 4 $max) -}}
{{- $weights := int64 0 -}}
{{- $narrower := 0 -}}
{{- range $root.Values.model.sizes -}}
{{- $s := int . -}}
{{- if le $s $max -}}
{{- $itemBytes = add $itemBytes (mul 4 $s) -}}
{{- $weights = add $weights (mul 28 (sub $s $narrower) $s) -}}
{{- if ge $s $min -}}
{{- if eq $index "nested" }}{{ $itemBytes = add $itemBytes $s 20 }}{{ else if ne $index "Flat" }}{{ $itemBytes = add $itemBytes (mul 4 $s) 300 }}{{ end -}}
{{- end -}}
{{- $narrower = $s -}}
{{- end -}}
{{- end -}}
{{- $model := add (mul $itemBytes (int64 $root.Values.model.items)) (mul $weights (int64 $root.Values.model.blocks)) -}}
{{- $modelMiB := div (add $model 1048575) 1048576 -}}
{{- $states := 0 -}}
{{- if ne $root.Values.sessions.store "none" }}{{ $states = int64 $root.Values.sessions.stateMiB }}{{ end -}}
{{- $sum := add (int64 $root.Values.memory.baseMiB) (mul (int64 $root.Values.memory.versions) $modelMiB) $states -}}
{{- if eq $index "nested" }}{{ $sum = add $sum 80 }}{{ end -}}
{{- div (add (mul $sum (add 100 (int64 $root.Values.memory.headroomPercent))) 99) 100 -}}
{{- end }}

{{- define "nestrec.resources" -}}
{{- $root := index . 0 -}}
{{- $tier := index . 1 -}}
{{- if $tier.resources -}}
{{- toYaml $tier.resources -}}
{{- else -}}
{{- $memory := include "nestrec.memoryMiB" . -}}
requests:
  cpu: {{ default $root.Values.threads $tier.threads | quote }}
  memory: {{ $memory }}Mi
limits:
  memory: {{ $memory }}Mi
{{- end -}}
{{- end }}
