{{/* Namespaces whose objects are checked: those watched, never kube-system, and what the values ask for. */}}
{{- define "dualpath-operator.namespaceSelector" -}}
{{- $namespaces := include "dualpath-operator.namespaces" . | fromJsonArray }}
{{- $given := .Values.webhook.namespaceSelector }}
{{- with $given.matchLabels -}}
matchLabels:
  {{- toYaml . | nindent 2 }}
{{ end -}}
matchExpressions:
- {key: kubernetes.io/metadata.name, operator: NotIn, values: [kube-system]}
{{- with $namespaces }}
- {key: kubernetes.io/metadata.name, operator: In, values: {{ toJson . }}}
{{- end }}
{{- with $given.matchExpressions }}
{{ toYaml . }}
{{- end }}
{{- end }}
