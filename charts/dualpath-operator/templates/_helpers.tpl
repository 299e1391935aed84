{{/* Stem of names: short enough for the longest suffix. */}}
{{- define "dualpath-operator.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 45 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 45 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Labels that never change: what selects the operator's Pods. */}}
{{- define "dualpath-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels of everything. */}}
{{- define "dualpath-operator.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "dualpath-operator.selectorLabels" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: dualpath
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Metadata of a namespaced object: a list of the context and a suffix of its name. */}}
{{- define "dualpath-operator.metadata" -}}
{{- $root := index . 0 -}}
name: {{ include "dualpath-operator.fullname" $root }}{{ index . 1 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "dualpath-operator.labels" $root | nindent 2 }}
{{- end }}

{{/* Name of a cluster-scoped object: the namespace keeps releases apart. A list of the context and a suffix. */}}
{{- define "dualpath-operator.clusterName" -}}
{{- $root := index . 0 -}}
{{- printf "%s-%s%s" $root.Release.Namespace (include "dualpath-operator.fullname" $root) (index . 1) }}
{{- end }}

{{- define "dualpath-operator.serviceAccountName" -}}
{{- default (include "dualpath-operator.fullname" .) .Values.serviceAccount.name }}
{{- end }}

{{- define "dualpath-operator.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}
{{- end }}

{{/* JSON list of the namespaces that are watched; empty: all. */}}
{{- define "dualpath-operator.namespaces" -}}
{{- if and (eq .Values.rbac.scope "namespaced") (empty .Values.watchNamespaces) -}}
{{ list .Release.Namespace | toJson }}
{{- else -}}
{{ .Values.watchNamespaces | toJson }}
{{- end }}
{{- end }}

{{/* "true" with webhooks, else empty. */}}
{{- define "dualpath-operator.webhooks" -}}
{{- if kindIs "invalid" .Values.webhook.enabled }}
{{- if eq .Values.rbac.scope "cluster" }}true{{ end }}
{{- else if .Values.webhook.enabled }}true{{ end }}
{{- end }}

{{- define "dualpath-operator.certificateSecret" -}}
{{- if eq .Values.webhook.certificate.source "existingSecret" -}}
{{ .Values.webhook.certificate.existingSecret }}
{{- else -}}
{{ include "dualpath-operator.fullname" . }}-webhook-certificate
{{- end }}
{{- end }}

{{/* JSON list of the names under which the API server reaches the webhooks. */}}
{{- define "dualpath-operator.webhookHosts" -}}
{{- $service := printf "%s-webhook.%s.svc" (include "dualpath-operator.fullname" .) .Release.Namespace -}}
{{ list $service (printf "%s.cluster.local" $service) | toJson }}
{{- end }}

{{/* "true" when an optional kind is wanted: a list of the context, the switch (null: detect) and the kind. */}}
{{- define "dualpath-operator.wanted" -}}
{{- $root := index . 0 }}
{{- if kindIs "invalid" (index . 1) }}
{{- if $root.Capabilities.APIVersions.Has (index . 2) }}true{{ end }}
{{- else if index . 1 }}true{{ end }}
{{- end }}
