{{/*
The memory of a tier's pod in MiB. docs/kubernetes.md has the formula and how it was measured; tools/serving_memory.py
computes the same outside of a cluster, and tests/deploy compares the two.

  model(d) = items x (4 d                         the vectors, mapped
                    + per size s up to d:         an index for requests that name their dim,
                        s + 20 where it is nested (from 64 columns and 4096 items on), else 4 s
                    + per size s of the tier:     its own, where it is another one
                        nested s + 20; Flat 4 s; codes of FAISS, see below; others 4 s + 300
                    + field bytes)
           + 4 s x lists                                 centres
           + blocks x 28 x sum over levels j of w_j s_j  weights
  and 80 MiB more for building nested indexes

  Codes: [IVF<lists>,] before SQ8 (s), SQ4 (s / 2), SQfp16 (2 s) or PQ<m>[x<b>][fs] (m b / 8 bytes); with lists 8 more for an item's
  number; twice where they grow by doubling, which is with lists or fs. Building them takes 4 s x (t + 256 x lists where that is fewer
  than t) more, but for SQfp16 without lists; t is 2^20 or 256 x lists, the larger one, but no more than the items.

(root, tier, of): MiB of a model as a tier's pod holds it, or with `of` "indexes" of its indexes that are kept in files, which are all but
Flat ones; with `of` "file" of the model's own file, whose catalogue is no larger than in memory; with `of` "training" of what training FAISS's
codes takes for a while.
*/}}
{{- define "nestrec.modelMiB" -}}
{{- $root := index . 0 -}}
{{- $tier := index . 1 -}}
{{- $of := index . 2 -}}
{{- $max := int $tier.maxDim -}}
{{- $min := int (default $tier.maxDim $tier.minDim) -}}
{{- $index := default "auto" $tier.index -}}
{{- $items := int64 $root.Values.model.items -}}
{{- $fileBytes := add (int64 $root.Values.model.fieldBytes) (mul 4 $max) -}}
{{- $keptBytes := int64 0 -}}
{{- $flatBytes := int64 0 -}}
{{- $weights := int64 0 -}}
{{- $centres := int64 0 -}}
{{- $training := int64 0 -}}
{{- $coded := regexMatch "^(IVF[1-9][0-9]*,)?(SQ8|SQ4|SQfp16|PQ[1-9][0-9]*(x[1-9][0-9]*)?(fs)?)$" $index -}}
{{- $codes := regexReplaceAll "^IVF[0-9]+," $index "" -}}
{{- $lists := int64 0 -}}
{{- if hasPrefix "IVF" $index }}{{ $lists = int64 (regexFind "[0-9]+" $index) }}{{ end -}}
{{- $narrower := 0 -}}
{{- range $root.Values.model.sizes -}}
{{- $s := int . -}}
{{- if le $s $max -}}
{{- $nested := eq "yes" (include "nestrec.isNested" (list $root $s)) -}}
{{- if $nested }}{{ $keptBytes = add $keptBytes $s 20 }}{{ else }}{{ $flatBytes = add $flatBytes (mul 4 $s) }}{{ end -}}
{{- $weights = add $weights (mul 28 (sub $s $narrower) $s) -}}
{{- if ge $s $min -}}
{{- if eq $index "nested" }}{{ $keptBytes = add $keptBytes (ternary 0 (add $s 20) $nested) -}}
{{- else if eq $index "Flat" }}{{ $flatBytes = add $flatBytes (ternary (mul 4 $s) 0 $nested) -}}
{{- else if $coded }}
{{- $code := mul 2 $s -}}
{{- if eq $codes "SQ8" }}{{ $code = int64 $s -}}
{{- else if eq $codes "SQ4" }}{{ $code = div (add $s 1) 2 -}}
{{- else if hasPrefix "PQ" $codes }}
{{- $numbers := regexFindAll "[0-9]+" $codes -1 -}}
{{- $bits := 8 }}{{ if gt (len $numbers) 1 }}{{ $bits = int64 (index $numbers 1) }}{{ end -}}
{{- $code = div (add (mul (int64 (index $numbers 0)) $bits) 7) 8 -}}
{{- end -}}
{{- $code = add $code (ternary 8 0 (gt $lists 0)) -}}
{{- $keptBytes = add $keptBytes (mul $code (ternary 2 1 (or (gt $lists 0) (hasSuffix "fs" $codes)))) -}}
{{- $centres = add $centres (mul 4 $s $lists) -}}
{{- $sample := mul 256 $lists -}}
{{- $most := min $items (max 1048576 $sample) -}}
{{- if or (gt $lists 0) (ne $codes "SQfp16") }}{{ $training = add $training (mul 4 $s (add $most (ternary $sample 0 (lt $sample $most)))) }}{{ end -}}
{{- else if ne $index "auto" }}{{ $keptBytes = add $keptBytes (mul 4 $s) 300 }}{{ end -}}
{{- end -}}
{{- $narrower = $s -}}
{{- end -}}
{{- end -}}
{{- $weights = mul $weights (int64 $root.Values.model.blocks) -}}
{{- $bytes := add (mul (add $fileBytes $keptBytes $flatBytes) $items) $centres $weights -}}
{{- if eq $of "indexes" }}{{ $bytes = add (mul $keptBytes $items) $centres }}{{ end -}}
{{- if eq $of "training" }}{{ $bytes = $training }}{{ end -}}
{{- if eq $of "file" }}{{ $bytes = add (mul $fileBytes $items) $weights }}{{ end -}}
{{- div (add $bytes 1048575) 1048576 -}}
{{- end }}

{{/* (root, size): whether what a size has without being told is a nested index. */}}
{{- define "nestrec.isNested" -}}
{{- if and (ge (int (index . 1)) 64) (ge (int64 (index . 0).Values.model.items) (int64 4096)) }}yes{{ end -}}
{{- end }}

{{- define "nestrec.memoryMiB" -}}
{{- $root := index . 0 -}}
{{- $tier := index . 1 -}}
{{- $anyNested := eq "nested" (default "auto" $tier.index) -}}
{{- range $root.Values.model.sizes -}}
{{- if and (le (int .) (int $tier.maxDim)) (eq "yes" (include "nestrec.isNested" (list $root .))) }}{{ $anyNested = true }}{{ end -}}
{{- end -}}
{{- $states := 0 -}}
{{- if ne $root.Values.sessions.store "none" }}{{ $states = int64 $root.Values.sessions.stateMiB }}{{ end -}}
{{- $model := int64 (include "nestrec.modelMiB" (list $root $tier "memory")) -}}
{{- $sum := add (int64 $root.Values.memory.baseMiB) (mul (int64 $root.Values.memory.versions) $model) $states -}}
{{- $sum = add $sum (int64 (include "nestrec.modelMiB" (list $root $tier "training"))) -}}
{{- if $anyNested }}{{ $sum = add $sum 80 }}{{ end -}}
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
