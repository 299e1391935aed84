{{/* Labels of everything that this chart makes. */}}
{{- define "dualpath-crds.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: dualpath-crds
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels of the chart's own cannot be given by values: a list of the value's name and the labels. */}}
{{- define "dualpath-crds.foreignLabels" -}}
{{- $name := index . 0 }}
{{- range $key, $_ := index . 1 }}
{{- if regexMatch "^(app\\.kubernetes\\.io|helm\\.sh|dualpath\\.io)/" $key }}
{{- fail (printf "%s has the label %s: labels of app.kubernetes.io, helm.sh and dualpath.io are the chart's own. Remove it." $name $key) }}
{{- end }}
{{- end }}
{{- end }}
