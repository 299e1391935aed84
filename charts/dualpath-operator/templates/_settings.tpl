{{/* The operator's settings file. Unknown keys end the operator, so that nothing here is silently ignored. */}}
{{- define "dualpath-operator.settings" -}}
watchNamespaces: {{ include "dualpath-operator.namespaces" . }}
leaderElection:
  namespace: {{ .Release.Namespace }}
  name: {{ include "dualpath-operator.fullname" . }}
  {{- toYaml .Values.leaderElection | nindent 2 }}
webhook:
  enabled: {{ if include "dualpath-operator.webhooks" . }}true{{ else }}false{{ end }}
  port: 9443
  certificateDir: /var/run/dualpath/webhook
http:
  port: 8080
images:
  {{- range $name := list "worker" "gateway" "store" }}
  {{ $name }}: {{ default (printf "dualpath/%s:%s" $name $.Chart.AppVersion) (get $.Values.images $name) | quote }}
  {{- end }}
  {{- with .Values.images.etcd }}
  etcd: {{ . | quote }}
  {{- end }}
log:
  {{- toYaml .Values.log | nindent 2 }}
{{ toYaml .Values.config }}
{{- end }}
