{{/* Names. Every object's begins with this: the release's name, unless the values say otherwise. */}}
{{- define "endpoint.fullname" -}}
{{- $name := .Release.Name -}}
{{- if .Values.fullnameOverride -}}
{{- $name = .Values.fullnameOverride -}}
{{- else if and .Values.nameOverride (not (contains .Values.nameOverride .Release.Name)) -}}
{{- $name = printf "%s-%s" .Release.Name .Values.nameOverride -}}
{{- end -}}
{{- $name = $name | trunc 44 | trimSuffix "-" -}}
{{- if not (regexMatch "^[a-z][a-z0-9-]*$" $name) -}}
{{- fail (printf "%q can not name a Service: it must begin with a letter, and have small letters, digits and hyphens only. Choose another release name, or set fullnameOverride" $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* By the release alone: whatever else is renamed, the state is found again. */}}
{{- define "endpoint.stateSecret" -}}
{{ .Release.Name }}-state
{{- end -}}

{{- define "endpoint.anchor" -}}
{{ include "endpoint.fullname" . }}-anchor
{{- end -}}

{{- define "endpoint.serviceAccountName" -}}
{{- $values := include "endpoint.values" . | fromJson -}}
{{- $values.serviceAccount.name | default (ternary (include "endpoint.fullname" .) "default" $values.serviceAccount.create) -}}
{{- end -}}

{{- define "endpoint.workerServiceAccountName" -}}
{{- $account := .Values.worker.serviceAccount -}}
{{- $account.name | default (ternary (printf "%s-worker" (include "endpoint.fullname" .)) "" $account.create) -}}
{{- end -}}

{{- define "endpoint.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "endpoint.credentialsSecret" -}}
{{- $credentials := (include "endpoint.values" . | fromJson).credentials -}}
{{- $credentials.secretName | default (ternary "compute-sdk-tokens" (printf "%s-credentials" .Release.Name) (eq $credentials.type "user")) -}}
{{- end -}}

{{/* The namespaces of worker pods, as a JSON list. */}}
{{- define "endpoint.workerNamespaces" -}}
{{- $worker := (include "endpoint.values" . | fromJson).worker -}}
{{- prepend $worker.extraNamespaces ($worker.namespace | default .Release.Namespace) | uniq | toJson -}}
{{- end -}}

{{/* What selects the agent's pod, and no other. */}}
{{- define "endpoint.selector" -}}
app.kubernetes.io/name: waypost-endpoint
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* What selects the worker pods of this release. The agent sets both. */}}
{{- define "endpoint.workerSelector" -}}
app.kubernetes.io/name: waypost-worker
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "endpoint.labels" -}}
{{ include "endpoint.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* `metadata` of an object: (list . NAME NAMESPACE), and dictionaries with more annotations and more labels if need be. */}}
{{- define "endpoint.metadata" -}}
{{- $root := first . -}}
{{- $more := concat (slice . 3) (list (dict) (dict)) -}}
metadata:
  name: {{ index . 1 }}
  namespace: {{ index . 2 }}
  labels:
    {{- include "endpoint.labels" $root | nindent 4 }}
    {{- with index $more 1 }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with merge (dict) (index $more 0) $root.Values.commonAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* A quantity of bytes, such as 512Mi, as a number. */}}
{{- define "endpoint.bytes" -}}
{{- $text := toString (ternary (int64 .) . (kindIs "float64" .)) -}}
{{- $number := regexFind "^[0-9]+([.][0-9]+)?" $text -}}
{{- $unit := trimPrefix $number $text -}}
{{- $units := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- if or (not $number) (not (hasKey $units $unit)) -}}
{{- fail (printf "resources.limits.memory: %q is not an amount of memory such as 512Mi or 1Gi" $text) -}}
{{- end -}}
{{- mulf $number (index $units $unit) | int64 -}}
{{- end -}}

{{/* The image that tasks run in. */}}
{{- define "endpoint.workerImage" -}}
{{- (include "endpoint.values" . | fromJson).worker.image | default (printf "waypost-worker:%s" .Chart.AppVersion) -}}
{{- end -}}
