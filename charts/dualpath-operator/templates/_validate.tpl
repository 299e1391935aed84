{{/*
Values that contradict each other, or the cluster. What one value may be is in values.schema.json.
Each message says what is wrong and what to set instead.
*/}}
{{- define "dualpath-operator.validate" -}}
{{- include "dualpath-operator.validateCertificate" . }}
{{- include "dualpath-operator.validateLeaderElection" . }}
{{- include "dualpath-operator.validateOnlyOne" . }}
{{- include "dualpath-operator.foreignLabels" (list "commonLabels" .Values.commonLabels) }}
{{- include "dualpath-operator.foreignLabels" (list "podLabels" .Values.podLabels) }}
{{- if and (not .Values.serviceAccount.create) (empty .Values.serviceAccount.name) }}
{{- fail "serviceAccount.create is false and serviceAccount.name is empty: the operator would run as the namespace's default account. Set serviceAccount.name." }}
{{- end }}
{{- $known := list }}
{{- range (.Files.Get "rules/alerts.yaml" | fromYaml).groups }}
{{- range .rules }}{{ $known = append $known .alert }}{{ end }}
{{- end }}
{{- range .Values.metrics.prometheusRule.disabled }}
{{- if not (has . $known) }}
{{- fail (printf "metrics.prometheusRule.disabled names %s, which is no alert. Alerts are: %s." . (join ", " $known)) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "dualpath-operator.validateCertificate" -}}
{{- $certificate := .Values.webhook.certificate }}
{{- $source := $certificate.source }}
{{- if include "dualpath-operator.webhooks" . }}
{{- if not $source }}
{{- fail "webhooks are on and webhook.certificate.source is empty: they would have no certificate. Set it to generated, certManager or existingSecret, or set webhook.enabled to false." }}
{{- end }}
{{- if and (eq $source "existingSecret") (empty $certificate.existingSecret) }}
{{- fail "webhook.certificate.source is existingSecret and webhook.certificate.existingSecret is empty. Set it to the name of a Secret with tls.crt and tls.key." }}
{{- end }}
{{- if and (eq $source "existingSecret") (empty $certificate.caBundle) }}
{{- fail "webhook.certificate.source is existingSecret and webhook.certificate.caBundle is empty: the API server would not trust the webhooks. Set it to the PEM certificate of the authority." }}
{{- end }}
{{- end }}
{{- if and $certificate.existingSecret (ne $source "existingSecret") }}
{{- fail (printf "webhook.certificate.existingSecret is set, but the source is %q. Set webhook.certificate.source to existingSecret, or remove existingSecret." $source) }}
{{- end }}
{{- if and $certificate.caBundle (ne $source "existingSecret") }}
{{- fail (printf "webhook.certificate.caBundle is for source existingSecret; with source %q the authority is known. Remove caBundle." $source) }}
{{- end }}
{{- if and $certificate.issuerRef (ne $source "certManager") }}
{{- fail (printf "webhook.certificate.issuerRef is set, but the source is %q. Set webhook.certificate.source to certManager, or remove issuerRef." $source) }}
{{- end }}
{{- end }}

{{- define "dualpath-operator.validateLeaderElection" -}}
{{- $seconds := dict }}
{{- range $key, $value := .Values.leaderElection }}
{{- $_ := set $seconds $key (trimSuffix "s" $value | float64) }}
{{- end }}
{{- if or (le $seconds.leaseDuration $seconds.renewDeadline) (le $seconds.renewDeadline (mulf 2 $seconds.retryPeriod)) }}
{{- with .Values.leaderElection }}
{{- fail (printf "leaderElection: leaseDuration (%s) must be more than renewDeadline (%s), and that more than twice retryPeriod (%s); else two leaders are possible." .leaseDuration .renewDeadline .retryPeriod) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Two operators that watch all namespaces would undo each other's work. Templates without a cluster find nothing. */}}
{{- define "dualpath-operator.validateOnlyOne" -}}
{{- if and (eq .Values.rbac.scope "cluster") .Values.rbac.create (empty .Values.watchNamespaces) }}
{{- $root := . }}
{{- range (lookup "rbac.authorization.k8s.io/v1" "ClusterRole" "" "").items }}
{{- $labels := default dict .metadata.labels }}
{{- $annotations := default dict .metadata.annotations }}
{{- if eq (dig "dualpath.io/watches" "" $labels) "all-namespaces" }}
{{- $release := dig "meta.helm.sh/release-name" "?" $annotations }}
{{- $namespace := dig "meta.helm.sh/release-namespace" "?" $annotations }}
{{- if or (ne $release $root.Release.Name) (ne $namespace $root.Release.Namespace) }}
{{- fail (printf "release %s in namespace %s already runs the operator of all namespaces; two would undo each other's work. Upgrade or uninstall that one, or set watchNamespaces or rbac.scope=namespaced." $release $namespace) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Labels of the chart's own cannot be given by values: a list of the value's name and the labels. */}}
{{- define "dualpath-operator.foreignLabels" -}}
{{- $name := index . 0 }}
{{- range $key, $_ := index . 1 }}
{{- if regexMatch "^(app\\.kubernetes\\.io|helm\\.sh|dualpath\\.io)/" $key }}
{{- fail (printf "%s has the label %s: labels of app.kubernetes.io, helm.sh and dualpath.io are the chart's own. Remove it." $name $key) }}
{{- end }}
{{- end }}
{{- end }}
