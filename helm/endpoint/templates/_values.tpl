{{/*
The values as the templates use them, as JSON: those of the old chart stand where they belong now.
What can only be said of several values together is refused here, in words.
*/}}
{{- define "endpoint.values" -}}
{{- $values := deepCopy .Values -}}
{{- $defaults := include "endpoint.oldNames" . | fromYaml -}}
{{- range $old, $new := $defaults.renamed -}}
{{- $given := index $values $old -}}
{{- if not (kindIs "invalid" $given) -}}
{{- include "endpoint.move" (list $values $old $given (splitList "." $new)) -}}
{{- end -}}
{{- end -}}
{{- include "endpoint.oldService" $values -}}
{{- include "endpoint.oldCredentials" $values -}}
{{- with $values.endpointCLIargs -}}
{{- $_ := set $values.endpoint "extraArgs" (concat $values.endpoint.extraArgs (regexSplit "\\s+" (trim .) -1)) -}}
{{- end -}}
{{- if $values.workerDebug -}}
{{- $_ := set $values.endpoint "extraArgs" (append $values.endpoint.extraArgs "--debug" | uniq) -}}
{{- end -}}
{{- with $values.imagePullSecret -}}
{{- $_ := set $values.worker "imagePullSecrets" (append $values.worker.imagePullSecrets .) -}}
{{- end -}}
{{- if eq (toString $values.rbacEnabled) "false" -}}
{{- $_ := set $values.rbac "create" false -}}
{{- $_ := set $values.serviceAccount "create" false -}}
{{- end -}}
{{- include "endpoint.refusals" $values -}}
{{- toJson $values -}}
{{- end -}}

{{/* Where each old value belongs that is only called otherwise. */}}
{{- define "endpoint.oldNames" -}}
renamed:
  endpointUUID: endpoint.uuid
  endpointName: endpoint.name
  endpointDisplayName: endpoint.displayName
  workerImage: worker.image
  workerInit: worker.init
  workerNamespace: worker.namespace
  initMem: worker.resources.requests.memory
  maxMem: worker.resources.limits.memory
  initCPU: worker.resources.requests.cpu
  maxCPU: worker.resources.limits.cpu
  initBlocks: worker.initBlocks
  minBlocks: worker.minBlocks
  maxBlocks: worker.maxBlocks
  maxWorkersPerPod: worker.maxWorkersPerPod
  maxIdleTime: worker.maxIdleTime
  taskTTLSeconds: worker.taskTimeoutSeconds
{{- end -}}

{{/* Sets what stands at a path: (list MAP OLD-NAME VALUE PATH). */}}
{{- define "endpoint.move" -}}
{{- $map := index . 0 -}}
{{- $path := index . 3 -}}
{{- range initial $path -}}
{{- $map = index $map . -}}
{{- end -}}
{{- $_ := set $map (last $path) (index . 2) -}}
{{- end -}}

{{- define "endpoint.oldService" -}}
{{- with .funcXServiceAddress -}}
{{- if not (regexMatch "^https?://[^\\s]+$" .) -}}
{{- fail (printf "funcXServiceAddress: %q is not a URL. Write `webService: {url: https://...}` for a self-hosted interchange, or leave it out for Globus's own service" .) -}}
{{- end -}}
{{- $_ := set $.webService "url" (. | trimSuffix "/" | trimSuffix "/v2") -}}
{{- end -}}
{{- end -}}

{{- define "endpoint.oldCredentials" -}}
{{- if and .useClientCredentials .useUserCredentials -}}
{{- fail "Please specify EXACTLY one of 'useClientCredentials' (boolean) or 'useUserCredentials' (boolean); or write `credentials: {type: client, secretName: ...}` or `credentials: {type: user}` in their place" -}}
{{- end -}}
{{- if and .useClientCredentials (not .secrets) (not .credentials.secretName) -}}
{{- fail "Missing `secrets` store specification for client credentials: set `secrets`, or `credentials.secretName`, to the name of a Secret with GLOBUS_COMPUTE_CLIENT_ID and GLOBUS_COMPUTE_CLIENT_SECRET (or FUNCX_SDK_CLIENT_ID and FUNCX_SDK_CLIENT_SECRET)" -}}
{{- end -}}
{{- if .useUserCredentials -}}
{{- $_ := set .credentials "type" "user" -}}
{{- else if .secrets -}}
{{- $_ := set .credentials "secretName" .secrets -}}
{{- end -}}
{{- end -}}

{{- define "endpoint.refusals" -}}
{{- if regexMatch "(^|/)(compute|funcx)/kube-endpoint$" .image.repository -}}
{{- fail (printf "image.repository: %s is the image of the Python endpoint, which this chart does not run. Remove image.repository and image.tag, or set them to an image that is built from agent/Dockerfile" .image.repository) -}}
{{- end -}}
{{- if and .image.digest .image.tag -}}
{{- fail "image.tag and image.digest are both set, and say which image: keep exactly one of them" -}}
{{- end -}}
{{- if hasKey .endpoint.config "engine" -}}
{{- fail "endpoint.config.engine: the engine is made of `worker` (with worker.engine and worker.provider for more options); remove it, or write an own endpoint.userConfigTemplate" -}}
{{- end -}}
{{- if and (eq .endpoint.kind "direct") (or .endpoint.userConfigTemplate .endpoint.userConfigSchema) -}}
{{- fail "endpoint.kind is `direct`, which has no template: remove endpoint.userConfigTemplate and endpoint.userConfigSchema, or set endpoint.kind to `template`" -}}
{{- end -}}
{{- if gt (int .worker.minBlocks) (int .worker.maxBlocks) -}}
{{- fail (printf "worker.minBlocks is %d, more than worker.maxBlocks (%d)" (int .worker.minBlocks) (int .worker.maxBlocks)) -}}
{{- end -}}
{{- if and .persistence.existingClaim (not .persistence.enabled) -}}
{{- fail "persistence.existingClaim is set, and persistence.enabled is false: set it to true, or remove the claim" -}}
{{- end -}}
{{- end -}}
