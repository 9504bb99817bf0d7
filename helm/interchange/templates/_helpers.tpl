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

{{/* What does not go together, in words. */}}
{{- define "interchange.refusals" -}}
{{- if not .Values.database.secretName -}}
{{- fail "database.secretName is empty: set it to the name of a Secret whose key `url` is postgres://user:password@host/name (`kubectl create secret generic NAME --from-literal=url=...`)" -}}
{{- end -}}
{{- if not .Values.broker.secretName -}}
{{- fail "broker.secretName is empty: set it to the name of a Secret whose keys `url` and `management-url` are amqp://user:password@host:5672/%2F and http://user:password@host:15672" -}}
{{- end -}}
{{- if and .Values.image.digest .Values.image.tag -}}
{{- fail "image.tag and image.digest are both set, and say which image: keep exactly one of them" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "ingress.enabled is true, and ingress.host is empty: set it to the name that clients use" -}}
{{- end -}}
{{- if and .Values.ingress.host (not .Values.ingress.enabled) -}}
{{- fail "ingress.host is set, and ingress.enabled is false: set it to true, or remove the host (publicUrl says by which address clients come)" -}}
{{- end -}}
{{- if le (int .Values.terminationGracePeriodSeconds) (int .Values.drainSeconds) -}}
{{- fail (printf "terminationGracePeriodSeconds is %d, no more than drainSeconds (%d): a pod would be killed before it has ended" (int .Values.terminationGracePeriodSeconds) (int .Values.drainSeconds)) -}}
{{- end -}}
{{- end -}}
