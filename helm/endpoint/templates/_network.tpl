{{/* The API server's addresses as a JSON list of CIDRs: given, or looked up (nothing outside of a cluster). */}}
{{- define "endpoint.apiServer" -}}
{{- $server := .Values.networkPolicy.apiServer -}}
{{- $found := list -}}
{{- if and $server.lookup (not $server.addresses) -}}
{{- range (lookup "discovery.k8s.io/v1" "EndpointSlice" "default" "kubernetes").endpoints -}}
{{- $found = concat $found .addresses -}}
{{- end -}}
{{- with lookup "v1" "Service" "default" "kubernetes" -}}
{{- $found = concat $found .spec.clusterIPs -}}
{{- end -}}
{{- end -}}
{{- $addresses := $server.addresses -}}
{{- range $found -}}
{{- $addresses = append $addresses (printf "%s/%s" . (ternary "128" "32" (contains ":" .))) -}}
{{- end -}}
{{- $addresses | uniq | toJson -}}
{{- end -}}

{{/* Peers: every address but those in a JSON list of CIDRs. */}}
{{- define "endpoint.everywhereBut" -}}
{{- $four := list -}}
{{- $six := list -}}
{{- range fromJsonArray . -}}
{{- if contains ":" . -}}
{{- $six = append $six . -}}
{{- else -}}
{{- $four = append $four . -}}
{{- end -}}
{{- end -}}
- ipBlock:
    cidr: 0.0.0.0/0
    {{- with $four }}
    except:
      {{- toYaml . | nindent 6 }}
    {{- end }}
- ipBlock:
    cidr: ::/0
    {{- with $six }}
    except:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end -}}
