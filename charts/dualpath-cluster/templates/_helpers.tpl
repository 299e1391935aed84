{{- define "dualpath-cluster.name" -}}
{{- $name := default .Release.Name .Values.name }}
{{- if or (gt (len $name) 40) (not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name)) }}
{{- fail (printf "the cluster would be called %q: names start with a letter and have at most 40 letters, digits and '-'. Set name." $name) }}
{{- end }}
{{- $name }}
{{- end }}

{{- define "dualpath-cluster.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: dualpath
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* JSON of one role's part of the spec, from its values. */}}
{{- define "dualpath-cluster.role" -}}
{{- $scaling := dict "mode" .mode }}
{{- if not (kindIs "invalid" .replicas) }}{{ $_ := set $scaling "replicas" .replicas }}{{ end }}
{{- if eq .mode "Planner" }}
{{- if not (kindIs "invalid" .minReplicas) }}{{ $_ := set $scaling "minReplicas" .minReplicas }}{{ end }}
{{- if not (kindIs "invalid" .maxReplicas) }}{{ $_ := set $scaling "maxReplicas" .maxReplicas }}{{ end }}
{{- end }}
{{- $resources := dict "gpus" .gpus "dramBuffer" .dramBuffer "kvCache" .kvCache }}
{{- dict "scaling" $scaling "resources" $resources | toJson }}
{{- end }}

{{/* JSON of the whole spec: values, spec over them, and no replicas where somebody else says them. */}}
{{- define "dualpath-cluster.spec" -}}
{{- $given := deepCopy .Values.spec }}
{{- $model := dict "servedName" (default (include "dualpath-cluster.name" .) .Values.model.servedName) }}
{{- with .Values.model.uri }}{{ $_ := set $model "uri" . }}{{ end }}
{{- $spec := dict "model" $model }}
{{- range $role := list "prefill" "decode" }}
{{- $_ := set $spec $role (include "dualpath-cluster.role" (get $.Values $role) | fromJson) }}
{{- end }}
{{- if not (hasKey $given "storage") }}
{{- $files := dict "size" .Values.storage.size }}
{{- with .Values.storage.storageClassName }}{{ $_ := set $files "storageClassName" . }}{{ end }}
{{- $_ := set $spec "storage" (dict "files" $files) }}
{{- end }}
{{- $spec = mustMergeOverwrite $spec $given }}
{{- range $role := list "prefill" "decode" }}
{{- $scaling := get (get $spec $role) "scaling" }}
{{- if ne $scaling.mode "Static" }}{{ $_ := unset $scaling "replicas" }}{{ end }}
{{- end }}
{{- $spec | toJson }}
{{- end }}

{{- define "dualpath-cluster.validate" -}}
{{- include "dualpath-cluster.foreignLabels" (list "labels" .Values.labels) }}
{{- $spec := include "dualpath-cluster.spec" . | fromJson }}
{{- if not (dig "model" "uri" "" $spec) }}
{{- fail "no model is named. Set model.uri, such as hf://org/name." }}
{{- end }}
{{- range $role := list "prefill" "decode" }}
{{- $values := get $.Values $role }}
{{- $mode := (get (get $spec $role) "scaling").mode }}
{{- if and (eq $mode "Planner") (not (get (get $spec $role) "scaling").maxReplicas) }}
{{- fail (printf "%s.mode is Planner: set %s.maxReplicas." $role $role) }}
{{- end }}
{{- if and $values.metrics (ne $mode "External") }}
{{- fail (printf "%s.metrics are for mode External, but the mode is %s. Remove the metrics or set %s.mode to External." $role $mode $role) }}
{{- end }}
{{- if and $values.metrics (not $values.maxReplicas) }}
{{- fail (printf "%s.metrics make an autoscaler, which needs %s.maxReplicas." $role $role) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Labels of the chart's own cannot be given by values: a list of the value's name and the labels. */}}
{{- define "dualpath-cluster.foreignLabels" -}}
{{- $name := index . 0 }}
{{- range $key, $_ := index . 1 }}
{{- if regexMatch "^(app\\.kubernetes\\.io|helm\\.sh|dualpath\\.io)/" $key }}
{{- fail (printf "%s has the label %s: labels of app.kubernetes.io, helm.sh and dualpath.io are the chart's own. Remove it." $name $key) }}
{{- end }}
{{- end }}
{{- end }}
