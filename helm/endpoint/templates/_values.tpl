{{/*
The values as the templates use them, as JSON: those of the old chart stand where they belong now.
What the schema can not refuse is refused here, in words.
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
{{- if gt (int .worker.minBlocks) (int .worker.maxBlocks) -}}
{{- fail (printf "worker.minBlocks is %d, more than worker.maxBlocks (%d)" (int .worker.minBlocks) (int .worker.maxBlocks)) -}}
{{- end -}}
{{- end -}}
