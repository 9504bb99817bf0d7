{{/* The files of the endpoint's folder, as a JSON map of names to texts. */}}
{{- define "endpoint.files" -}}
{{- $values := include "endpoint.values" . | fromJson -}}
{{- $endpoint := $values.endpoint -}}
{{- $name := $endpoint.name | default .Release.Name -}}
{{- $config := dict "display_name" ($endpoint.displayName | default $name) -}}
{{- with $values.resources.limits -}}
{{- with .memory -}}
{{- $_ := set $config "max_held_bytes" (div (include "endpoint.bytes" . | int64) 2) -}}
{{- end -}}
{{- end -}}
{{- $config = mergeOverwrite $config $endpoint.config -}}
{{- $engine := include "endpoint.engine" . -}}
{{- $files := dict -}}
{{- if eq $endpoint.kind "direct" -}}
{{- $_ := set $files "config.yaml" (printf "%s%s" (toYaml $config | printf "%s\n") $engine) -}}
{{- else -}}
{{- $_ := set $files "config.yaml" (toYaml $config | printf "%s\n") -}}
{{- $template := $endpoint.userConfigTemplate -}}
{{- $schema := $endpoint.userConfigSchema -}}
{{- if not $template -}}
{{- /* Nothing in the values is to be read as a template's own signs. */ -}}
{{- if regexMatch "\\{%[-+]?\\s*endraw" $engine -}}
{{- fail "worker: a value has `{% endraw %}` in it, which ends what the template takes as it is: write it otherwise, or write an own endpoint.userConfigTemplate" -}}
{{- end -}}
{{- $template = printf "{%% raw %%}\n%s{%% endraw %%}\n" $engine -}}
{{- $schema = $schema | default (dict "type" "object" "additionalProperties" false) -}}
{{- end -}}
{{- $_ := set $files "user_config_template.yaml.j2" $template -}}
{{- with $schema -}}
{{- $_ := set $files "user_config_schema.json" (toPrettyJson . | printf "%s\n") -}}
{{- end -}}
{{- end -}}
{{- with $endpoint.userEnvironment -}}
{{- $_ := set $files "user_environment.yaml" (toYaml . | printf "%s\n") -}}
{{- end -}}
{{- toJson $files -}}
{{- end -}}

{{/* The block `engine` of a configuration, as YAML. */}}
{{- define "endpoint.engine" -}}
{{- $worker := (include "endpoint.values" . | fromJson).worker -}}
{{- $requests := $worker.resources.requests | default dict -}}
{{- $limits := $worker.resources.limits | default dict -}}
{{- $provider := dict
  "type" "KubernetesProvider"
  "image" (include "endpoint.workerImage" .)
  "namespace" ($worker.namespace | default .Release.Namespace)
  "init_blocks" $worker.initBlocks
  "min_blocks" $worker.minBlocks
  "max_blocks" $worker.maxBlocks
-}}
{{- range $key, $amount := dict "init_cpu" $requests.cpu "init_mem" $requests.memory "max_cpu" $limits.cpu "max_mem" $limits.memory -}}
{{- if not (kindIs "invalid" $amount) -}}
{{- $_ := set $provider $key $amount -}}
{{- end -}}
{{- end -}}
{{- $optional := dict
  "extra_requests" (omit $requests "cpu" "memory")
  "extra_limits" (omit $limits "cpu" "memory")
  "worker_init" $worker.init
  "image_pull_policy" $worker.imagePullPolicy
  "secret" (concat $worker.imagePullSecrets .Values.imagePullSecrets | uniq)
  "service_account_name" (include "endpoint.workerServiceAccountName" .)
  "env_from" $worker.envFrom
  "labels" $worker.labels
  "annotations" $worker.annotations
  "node_selector" $worker.nodeSelector
  "tolerations" $worker.tolerations
  "affinity" $worker.affinity
  "priority_class_name" $worker.priorityClassName
  "runtime_class_name" $worker.runtimeClassName
  "volumes" $worker.volumes
  "volume_mounts" $worker.volumeMounts
  "accelerators" $worker.accelerators
-}}
{{- range $key, $value := $optional -}}
{{- if $value -}}
{{- $_ := set $provider $key $value -}}
{{- end -}}
{{- end -}}
{{- $_ := set $provider "security_profile" $worker.securityProfile -}}
{{- if ne $worker.securityProfile "image" -}}
{{- /* Null is said, too: it leaves user and group to the platform. */ -}}
{{- $_ := set $provider "user_id" $worker.userId -}}
{{- if not (kindIs "invalid" $worker.userId) -}}
{{- $_ := set $provider "group_id" $worker.groupId -}}
{{- end -}}
{{- end -}}
{{- $env := $worker.env -}}
{{- with $worker.taskTimeoutSeconds -}}
{{- $env = append $env (dict "name" "GC_TASK_TIMEOUT" "value" (int64 . | toString)) -}}
{{- end -}}
{{- with $env -}}
{{- $_ := set $provider "env" . -}}
{{- end -}}
{{- $engine := dict
  "type" "GlobusComputeEngine"
  "max_workers_per_node" $worker.maxWorkersPerPod
  "job_status_kwargs" (dict "max_idletime" $worker.maxIdleTime)
  "provider" (mergeOverwrite $provider $worker.provider)
-}}
{{- dict "engine" (mergeOverwrite $engine $worker.engine) | toYaml | printf "%s\n" -}}
{{- end -}}
