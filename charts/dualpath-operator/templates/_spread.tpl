{{/* topologySpreadConstraints: given ones get the operator's selector where they have none. */}}
{{- define "dualpath-operator.spread" -}}
{{- $labels := include "dualpath-operator.selectorLabels" . | fromYaml }}
{{- $_ := set $labels "app.kubernetes.io/component" "operator" }}
{{- $mine := dict "labelSelector" (dict "matchLabels" $labels) }}
{{- $given := .Values.topologySpreadConstraints }}
{{- if kindIs "invalid" $given }}
{{- $given = list (dict "maxSkew" 1 "topologyKey" "kubernetes.io/hostname" "whenUnsatisfiable" "ScheduleAnyway") }}
{{- end }}
{{- with $given }}
topologySpreadConstraints:
{{- range . }}
- {{ merge (dict) . $mine | toYaml | nindent 2 | trim }}
{{- end }}
{{- end }}
{{- end }}
