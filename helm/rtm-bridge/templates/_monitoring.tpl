{{/* The alerts of files/alerts.yaml, for this release alone and with the values' changes. */}}
{{- define "rtm-bridge.alerts" -}}
{{- $values := .Values.metrics.prometheusRule }}
{{- $file := required "files/alerts.yaml is empty: the chart was packed without it" (.Files.Get "files/alerts.yaml") | fromYaml }}
{{- $changes := deepCopy $values.alerts }}
{{- $wanted := ternary .Values.autoscaling.minReplicas .Values.replicaCount .Values.autoscaling.enabled | int }}
{{- $replicas := get $changes "RtmBridgeReplicasMissing" | default dict }}
{{- if not .Values.autoscaling.external }}
{{- $_ := set $changes "RtmBridgeReplicasMissing" (merge $replicas (dict "threshold" $wanted)) }}
{{- end }}
{{- $selector := tpl $values.selector . }}
{{- $rules := list }}
{{- range (index $file.groups 0).rules }}
{{- $change := get $changes .alert | default dict }}
{{- $changes = omit $changes .alert }}
{{- $rule := . }}
{{- $expr := .expr }}
{{- range $number := list "threshold" "users" }}
{{- $mark := printf "# %s" $number }}
{{- if and (hasKey $change $number) (not (contains $mark $expr)) }}
{{- fail (printf "metrics.prometheusRule.alerts.%s.%s: this alert has no %s" $rule.alert $number $number) }}
{{- end }}
{{- if hasKey $change $number }}
{{- $expr = regexReplaceAll (printf "[0-9.]+ %s" $mark) $expr (printf "%v %s" (get $change $number) $mark) }}
{{- end }}
{{- end }}
{{- if $selector }}
{{- $expr = regexReplaceAll "\\b((?:rtm_bridge|process)_[a-z_]+)\\b" $expr (printf "${1}{%s}" $selector) }}
{{- $expr = regexReplaceAll "\\}\\{" $expr "," }}
{{- end }}
{{- $rule = merge (dict "expr" $expr) . }}
{{- with $change.for }}{{ $_ := set $rule "for" . }}{{ end }}
{{- $severity := ternary dict (dict "severity" $change.severity) (not $change.severity) }}
{{- $_ := set $rule "labels" (merge $severity .labels $values.alertLabels) }}
{{- with $values.runbookUrl }}
{{- $_ := set $rule "annotations" (merge (dict "runbook_url" (printf "%s#%s" (trimSuffix "#" .) (lower $rule.alert))) $rule.annotations) }}
{{- end }}
{{- if dig "enabled" true $change }}{{ $rules = append $rules $rule }}{{ end }}
{{- end }}
{{- with omit $changes "RtmBridgeReplicasMissing" }}
{{- fail (printf "metrics.prometheusRule.alerts: there is no alert %s" (keys . | sortAlpha | join ", ")) }}
{{- end }}
{{- dict "groups" (list (dict "name" (include "rtm-bridge.fullname" .) "rules" $rules)) | toYaml }}
{{- end }}

{{/* The dashboard of files/dashboard.json. Grafana knows it by its uid, so each release has another. */}}
{{- define "rtm-bridge.dashboard" -}}
{{- $release := printf "%s/%s" .Release.Namespace .Release.Name }}
{{- required "files/dashboard.json is empty: the chart was packed without it" (.Files.Get "files/dashboard.json")
      | replace "\"uid\": \"rtm-bridge\"" (printf "\"uid\": \"rtm-bridge-%s\"" (sha256sum $release | trunc 12))
      | replace "\"title\": \"rtm-bridge\"" (printf "\"title\": \"rtm-bridge %s\"" $release) }}
{{- end }}
