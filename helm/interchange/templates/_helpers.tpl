{{/* Names. Every object's begins with this: the release's name, unless the values say otherwise. */}}
{{- define "interchange.fullname" -}}
{{- $name := .Release.Name -}}
{{- if .Values.fullnameOverride -}}
{{- $name = .Values.fullnameOverride -}}
{{- else if and .Values.nameOverride (not (contains .Values.nameOverride .Release.Name)) -}}
{{- $name = printf "%s-%s" .Release.Name .Values.nameOverride -}}
{{- end -}}
{{- $name = $name | trunc 50 | trimSuffix "-" -}}
{{- if not (regexMatch "^[a-z][a-z0-9-]*$" $name) -}}
{{- fail (printf "%q can not name a Service: it must begin with a letter, and have small letters, digits and hyphens only. Choose another release name, or set fullnameOverride" $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "interchange.serviceAccountName" -}}
{{- $account := .Values.serviceAccount -}}
{{- $account.name | default (ternary (include "interchange.fullname" .) "default" $account.create) -}}
{{- end -}}

{{- define "interchange.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* By the release alone: whatever else is renamed, the key is found again. */}}
{{- define "interchange.serverKeySecret" -}}
{{- .Values.serverKey.secretName | default (printf "%s-key" .Release.Name) -}}
{{- end -}}

{{/* The address as clients and browsers reach it; empty if it is not known. */}}
{{- define "interchange.publicUrl" -}}
{{- if .Values.publicUrl -}}
{{- .Values.publicUrl -}}
{{- else if .Values.ingress.enabled -}}
{{- printf "%s://%s/" (ternary "https" "http" (ne .Values.ingress.tlsSecretName "")) .Values.ingress.host -}}
{{- end -}}
{{- end -}}

{{/* What selects the pods, and no others. */}}
{{- define "interchange.selector" -}}
app.kubernetes.io/name: waypost-interchange
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* What selects the pod of `helm test`. */}}
{{- define "interchange.testSelector" -}}
app.kubernetes.io/name: waypost-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* What every command of `interchange` is told: the database, and where the broker's users are. */}}
{{- define "interchange.addresses" -}}
- name: WAYPOST_INTERCHANGE_DATABASE
  valueFrom:
    secretKeyRef:
      name: {{ .Values.database.secretName }}
      key: {{ .Values.database.key }}
- name: WAYPOST_INTERCHANGE_BROKER_MANAGEMENT_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.broker.secretName }}
      key: {{ .Values.broker.managementUrlKey }}
{{- end -}}

{{- define "interchange.labels" -}}
{{ include "interchange.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* `metadata` of an object: (dict "root" . "name" NAME), with more `annotations` and `labels` if need be. */}}
{{- define "interchange.metadata" -}}
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "interchange.labels" .root | nindent 4 }}
    {{- with .labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* What the schema can not refuse. */}}
{{- define "interchange.refusals" -}}
{{- if le (int .Values.terminationGracePeriodSeconds) (int .Values.drainSeconds) -}}
{{- fail (printf "terminationGracePeriodSeconds is %d, no more than drainSeconds (%d): a pod would be killed before it has ended" (int .Values.terminationGracePeriodSeconds) (int .Values.drainSeconds)) -}}
{{- end -}}
{{- end -}}
