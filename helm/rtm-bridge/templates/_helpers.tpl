{{- define "rtm-bridge.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* A release may have dots in its name, and a Service may not. */}}
{{- define "rtm-bridge.fullname" -}}
{{- $release := .Release.Name | replace "." "-" }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride }}
{{- else if contains (include "rtm-bridge.name" .) $release }}
{{- $release | trunc 52 | trimAll "-" }}
{{- else }}
{{- printf "%s-%s" $release (include "rtm-bridge.name" .) | trunc 52 | trimAll "-" }}
{{- end }}
{{- end }}

{{- define "rtm-bridge.selector" -}}
app.kubernetes.io/name: {{ include "rtm-bridge.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "rtm-bridge.ownLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "rtm-bridge.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* An object's metadata. Takes root and name, and may take component, labels and annotations. */}}
{{- define "rtm-bridge.metadata" -}}
{{- $component := ternary (dict "app.kubernetes.io/component" .component) dict (hasKey . "component") -}}
name: {{ .name }}
labels: {{- merge $component (include "rtm-bridge.ownLabels" .root | fromYaml) (.labels | default dict) .root.Values.commonLabels | toYaml | nindent 2 }}
{{- with merge dict (.annotations | default dict) .root.Values.commonAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A pod's metadata. Takes root and component, and may take own: the values that hold podLabels and podAnnotations for this pod. */}}
{{- define "rtm-bridge.podMetadata" -}}
{{- $own := .own | default dict }}
{{- $component := dict "app.kubernetes.io/component" .component -}}
labels: {{- merge $component (include "rtm-bridge.ownLabels" .root | fromYaml) ($own.podLabels | default dict) .root.Values.podLabels .root.Values.commonLabels | toYaml | nindent 2 }}
{{- with merge dict ($own.podAnnotations | default dict) .root.Values.podAnnotations .root.Values.commonAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "rtm-bridge.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "rtm-bridge.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "rtm-bridge.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* What every pod of the chart has. */}}
{{- define "rtm-bridge.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext: {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Who serves probes and metrics: a Service that the outside reaches does not. */}}
{{- define "rtm-bridge.adminService" -}}
{{- include "rtm-bridge.fullname" . }}{{ if ne .Values.service.type "ClusterIP" }}-admin{{ end }}
{{- end }}

{{/* The IP families of a Service that the outside does not reach. */}}
{{- define "rtm-bridge.ipFamilies" -}}
{{- range $key := list "ipFamilyPolicy" "ipFamilies" }}
{{- with get $.Values.service $key }}
{{ $key }}: {{ toJson . }}
{{- end }}
{{- end }}
{{- end }}

{{/* The port of an address such as [::]:8080. */}}
{{- define "rtm-bridge.port" -}}
{{- splitList ":" . | last }}
{{- end }}

{{/* Mebibytes of a quantity such as 512Mi, 1Gi, 2G or a number of bytes, rounded down. */}}
{{- define "rtm-bridge.mebibytes" -}}
{{- $text := ternary . (printf "%.0f" (float64 .)) (kindIs "string" .) }}
{{- $units := dict "m" 1e-3 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 }}
{{- $unit := get $units (regexFind "[a-zA-Z]+$" $text) | default 1.0 }}
{{- divf (mulf (regexFind "^[0-9.]+" $text | float64) $unit) 1048576.0 | floor | int64 }}
{{- end }}

{{/* The table `server`, as JSON. Limits that the values leave out follow from `resources`: per GiB of the pod's memory
15 000 sockets, 4000 connections and 192 MiB of requests, and a thread per requested core. */}}
{{- define "rtm-bridge.server" -}}
{{- $server := deepCopy .Values.config.server }}
{{- $limits := .Values.resources.limits | default dict }}
{{- $requests := .Values.resources.requests | default dict }}
{{- with $limits.memory | default $requests.memory }}
{{- $memory := include "rtm-bridge.mebibytes" . | int64 }}
{{- $defaults := dict
      "max_sockets" (div (mul $memory 15000) 1024 | max 64)
      "max_connections" (div (mul $memory 4000) 1024 | max 64)
      "memory_limit" (printf "%dMiB" (div (mul $memory 192) 1024 | max 32)) }}
{{- $server = merge $server $defaults }}
{{- end }}
{{- with $requests.cpu }}
{{- $cpu := toString . }}
{{- $cores := ternary (divf (trimSuffix "m" $cpu | float64) 1000.0) ($cpu | float64) (hasSuffix "m" $cpu) }}
{{- $server = merge $server (dict "threads" (ceil $cores | int64 | max 1)) }}
{{- end }}
{{- $server | toJson }}
{{- end }}

{{/* The tables of `config`, as JSON. */}}
{{- define "rtm-bridge.config" -}}
{{- merge (dict "server" (include "rtm-bridge.server" . | fromJson)) (omit .Values.config "server") | toJson }}
{{- end }}

{{/* Whole seconds of a duration such as 500ms, 30s, 1m30s, 2h, rounded up. */}}
{{- define "rtm-bridge.seconds" -}}
{{- $total := 0 }}
{{- range regexFindAll "[0-9]+(ms|s|m|h)" . -1 }}
{{- $number := regexFind "^[0-9]+" . | int }}
{{- $unit := regexFind "[a-z]+$" . }}
{{- if eq $unit "h" }}{{ $total = add $total (mul $number 3600) }}
{{- else if eq $unit "m" }}{{ $total = add $total (mul $number 60) }}
{{- else if eq $unit "s" }}{{ $total = add $total $number }}
{{- else }}{{ $total = add $total (div (add $number 999) 1000) }}
{{- end }}
{{- end }}
{{- $total }}
{{- end }}

{{/* The ports that URLs name, or their schemes stand for, behind others that are given. Takes urls and ports; as JSON. */}}
{{- define "rtm-bridge.ports" -}}
{{- $known := dict "https" 443 "wss" 443 "http" 80 "ws" 80 "redis+sentinel" 26379 "rediss+sentinel" 26379 }}
{{- $ports := list }}
{{- range .ports }}{{ $ports = append $ports (int .) }}{{ end }}
{{- range .urls }}
{{- $scheme := regexFind "^[a-z+]+" . }}
{{- range . | regexFind "://[^/?#]*" | trimPrefix "://" | splitList "@" | last | splitList "," }}
{{- $ports = append $ports (regexFind ":[0-9]+$" . | trimPrefix ":" | default (get $known $scheme | default 6379) | int) }}
{{- end }}
{{- end }}
{{- $ports | uniq | toJson }}
{{- end }}

{{/* All bots: those of the values, and the one of the sandbox. As JSON. */}}
{{- define "rtm-bridge.bots" -}}
{{- $bots := deepCopy .Values.bots }}
{{- if .Values.sandbox.enabled }}
{{- $_ := set $bots "sandbox" (dict
      "platform" (printf "http://%s-sandbox:4000" (include "rtm-bridge.fullname" .))
      "chat_bot" "Sandbox" "task_bot_id" "st-sandbox" "client_id" "cs-sandbox"
      "client_secret" (dict "value" "sandbox-secret")) }}
{{- end }}
{{- $bots | toJson }}
{{- end }}

{{/* All callers, likewise: `helm test` sends with the key `helm-test`, which opens the bot of the sandbox only. */}}
{{- define "rtm-bridge.callers" -}}
{{- $callers := deepCopy .Values.callers }}
{{- if .Values.sandbox.enabled }}
{{- $_ := set $callers "helm-test" (dict
      "key_sha256" (sha256sum (include "rtm-bridge.testKey" .))
      "scopes" (list "send" "read") "bots" (list "sandbox")) }}
{{- end }}
{{- $callers | toJson }}
{{- end }}

{{/* Opens nothing but the simulated platform's bot, so it need not be a secret. */}}
{{- define "rtm-bridge.testKey" -}}
{{- printf "helm-test-%s-%s-only-for-the-sandbox" .Release.Namespace .Release.Name }}
{{- end }}

{{/* Whether a value stands for a file that is mounted. */}}
{{- define "rtm-bridge.isMounted" -}}
{{- if kindIs "map" . }}
{{- if or (hasKey . "existingSecret") (hasKey . "existingConfigMap") (hasKey . "value") }}true{{ end }}
{{- end }}
{{- end }}

{{/* Whether a key of a bot holds an object for the platform, which is written as JSON text. */}}
{{- define "rtm-bridge.isObject" -}}
{{- if has . (list "claims" "custom_data") }}true{{ end }}
{{- end }}

{{/* One table's `key = value` lines. Takes path and table. */}}
{{- define "rtm-bridge.entries" -}}
{{- $path := .path }}
{{- range $key, $value := .table }}
{{- if and (kindIs "map" $value) (include "rtm-bridge.isObject" $key) }}
{{ $key }} = {{ toJson $value | toJson }}
{{- else if include "rtm-bridge.isMounted" $value }}
{{ ternary $key (printf "%s_file" $key) (hasSuffix "_file" $key) }} = {{ printf "/etc/rtm-bridge/secrets/%s.%s" $path $key | toJson }}
{{- else if kindIs "map" $value }}
{{- else if kindIs "float64" $value }}
{{ $key }} = {{ if eq (floor $value) $value }}{{ int64 $value }}{{ else }}{{ $value }}{{ end }}
{{- else if not (kindIs "invalid" $value) }}
{{ $key }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{- end }}

{{/* The whole configuration, in TOML. */}}
{{- define "rtm-bridge.toml" -}}
{{- $top := dict }}
{{- $config := include "rtm-bridge.config" . | fromJson }}
{{- range $key, $value := $config }}
{{- if not (kindIs "map" $value) }}{{ $_ := set $top $key $value }}{{ end }}
{{- end }}
{{- include "rtm-bridge.entries" (dict "path" "config" "table" $top) | trim }}
{{- range $section, $table := $config }}
{{- if and (kindIs "map" $table) $table }}

[{{ $section }}]
{{- include "rtm-bridge.entries" (dict "path" $section "table" $table) }}
{{- range $inner, $values := $table }}
{{- if and (kindIs "map" $values) (not (include "rtm-bridge.isMounted" $values)) }}

[{{ $section }}.{{ $inner }}]
{{- include "rtm-bridge.entries" (dict "path" (printf "%s.%s" $section $inner) "table" $values) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $bot := include "rtm-bridge.bots" . | fromJson }}

[[bots]]
name = {{ toJson $name }}
{{- include "rtm-bridge.entries" (dict "path" (printf "bots.%s" $name) "table" (omit $bot "webhooks" "kore_webhook")) }}
{{- range $endpoint, $table := $bot.webhooks }}

[[bots.webhooks]]
name = {{ toJson $endpoint }}
{{- include "rtm-bridge.entries" (dict "path" (printf "bots.%s.webhooks.%s" $name $endpoint) "table" $table) }}
{{- end }}
{{- with $bot.kore_webhook }}

[bots.kore_webhook]
{{- include "rtm-bridge.entries" (dict "path" (printf "bots.%s.kore_webhook" $name) "table" (omit . "clients")) }}
{{- range $id, $client := .clients }}

[[bots.kore_webhook.clients]]
id = {{ toJson $id }}
{{- include "rtm-bridge.entries" (dict "path" (printf "bots.%s.kore_webhook.clients.%s" $name $id) "table" $client) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $caller := include "rtm-bridge.callers" . | fromJson }}

[[callers]]
name = {{ toJson $name }}
{{- include "rtm-bridge.entries" (dict "path" (printf "callers.%s" $name) "table" $caller) }}
{{- end }}
{{- end }}

{{/* Every table with its path, as JSON: what files are mounted is found in them. */}}
{{- define "rtm-bridge.tables" -}}
{{- $tables := dict }}
{{- range $section, $table := .Values.config }}
{{- if kindIs "map" $table }}
{{- $_ := set $tables $section $table }}
{{- range $inner, $values := $table }}
{{- if and (kindIs "map" $values) (not (include "rtm-bridge.isMounted" $values)) }}
{{- $_ := set $tables (printf "%s.%s" $section $inner) $values }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $bot := include "rtm-bridge.bots" . | fromJson }}
{{- $_ := set $tables (printf "bots.%s" $name) (omit $bot "claims" "custom_data" "webhooks" "kore_webhook") }}
{{- range $endpoint, $table := $bot.webhooks }}
{{- $_ := set $tables (printf "bots.%s.webhooks.%s" $name $endpoint) $table }}
{{- end }}
{{- $_ := set $tables (printf "bots.%s.kore_webhook" $name) (omit ($bot.kore_webhook | default dict) "clients") }}
{{- range $id, $client := dig "kore_webhook" "clients" dict $bot }}
{{- $_ := set $tables (printf "bots.%s.kore_webhook.clients.%s" $name $id) $client }}
{{- end }}
{{- end }}
{{- range $name, $caller := include "rtm-bridge.callers" . | fromJson }}
{{- $_ := set $tables (printf "callers.%s" $name) $caller }}
{{- end }}
{{- $tables | toJson }}
{{- end }}

{{/* The contents of the chart's own Secret, as JSON. */}}
{{- define "rtm-bridge.ownSecrets" -}}
{{- $own := dict }}
{{- range $path, $table := include "rtm-bridge.tables" . | fromJson }}
{{- range $key, $value := $table }}
{{- if and (include "rtm-bridge.isMounted" $value) (hasKey $value "value") }}
{{- $_ := set $own (printf "%s.%s" $path $key) $value.value }}
{{- end }}
{{- end }}
{{- end }}
{{- $own | toJson }}
{{- end }}

{{/* The sources of the volume with all secrets. Takes root and the name of the chart's own Secret. */}}
{{- define "rtm-bridge.secretSources" -}}
{{- $own := include "rtm-bridge.ownSecrets" .root | fromJson }}
{{- if $own }}
- secret:
    name: {{ .secret }}
{{- end }}
{{- range $path, $table := include "rtm-bridge.tables" .root | fromJson }}
{{- range $key, $value := $table }}
{{- if include "rtm-bridge.isMounted" $value }}
{{- if hasKey $value "existingSecret" }}
- secret:
    name: {{ $value.existingSecret }}
    items: [{key: {{ required (printf "%s.%s: say which key of the Secret %s" $path $key $value.existingSecret) $value.key | quote }}, path: {{ printf "%s.%s" $path $key | quote }}}]
{{- else if hasKey $value "existingConfigMap" }}
- configMap:
    name: {{ $value.existingConfigMap }}
    items: [{key: {{ required (printf "%s.%s: say which key of the ConfigMap %s" $path $key $value.existingConfigMap) $value.key | quote }}, path: {{ printf "%s.%s" $path $key | quote }}}]
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The names of ConfigMap and Secret hold a hash of the content. So a pod of the release before starts with its own. */}}
{{- define "rtm-bridge.configMap" -}}
{{- printf "%s-%s" (include "rtm-bridge.fullname" .) (include "rtm-bridge.toml" . | sha256sum | trunc 10) }}
{{- end }}

{{- define "rtm-bridge.secret" -}}
{{- printf "%s-%s" (include "rtm-bridge.fullname" .) (include "rtm-bridge.ownSecrets" . | sha256sum | trunc 10) }}
{{- end }}

{{/* Helm and Argo CD delete these objects when no pod needs them any more. */}}
{{- define "rtm-bridge.pruneLast" -}}
argocd.argoproj.io/sync-options: PruneLast=true
{{- end }}

{{/* The Deployment as the cluster has it, in JSON. It is empty before the first installation, and without a cluster. */}}
{{- define "rtm-bridge.running" -}}
{{- lookup "apps/v1" "Deployment" .Release.Namespace (include "rtm-bridge.fullname" .) | default dict | toJson }}
{{- end }}

{{/* The volumes of a pod with the bridge's configuration. Takes root, configMap and secret. */}}
{{- define "rtm-bridge.volumes" -}}
- name: config
  configMap:
    name: {{ .configMap }}
- name: secrets
  projected:
    defaultMode: 0440
    sources: {{- with include "rtm-bridge.secretSources" . | trim }}{{ nindent 6 . }}{{ else }} []{{ end }}
{{- with .root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "rtm-bridge.volumeMounts" -}}
- {name: config, mountPath: /etc/rtm-bridge/config, readOnly: true}
- {name: secrets, mountPath: /etc/rtm-bridge/secrets, readOnly: true}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The variables of a container with the bridge's configuration. */}}
{{- define "rtm-bridge.env" -}}
- {name: RTM_BRIDGE_CONFIG, value: /etc/rtm-bridge/config/config.toml}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* How the store is migrated: hook, initContainer or none. The memory store needs no migration. */}}
{{- define "rtm-bridge.migrateMode" -}}
{{- ternary "none" .Values.migrate.mode (hasPrefix "memory:" (toString .Values.config.store.url)) }}
{{- end }}

{{/* The container that migrates, in the Job and as init container. */}}
{{- define "rtm-bridge.migrateContainer" -}}
name: migrate
image: {{ include "rtm-bridge.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [migrate]
env: {{- include "rtm-bridge.env" . | nindent 2 }}
{{- with .Values.envFrom }}
envFrom: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext: {{- toYaml .Values.securityContext | nindent 2 }}
resources: {{- toYaml .Values.migrate.resources | nindent 2 }}
volumeMounts: {{- include "rtm-bridge.volumeMounts" . | nindent 2 }}
{{- end }}

{{/* What would only show when the pods start is said here. */}}
{{- define "rtm-bridge.check" -}}
{{- $name := include "rtm-bridge.fullname" . }}
{{- if not (regexMatch "^[a-z]" $name) }}
{{- fail (printf "the release's objects would be called %s, and the name of a Service begins with a letter: set fullnameOverride" $name) }}
{{- end }}
{{- $url := .Values.config.store.url }}
{{- if not (or (kindIs "map" $url) (hasKey .Values.config.store "url_file")) }}
{{- $_ := required "config.store.url is missing: the Redis that all replicas share, such as redis://redis:6379/0" $url }}
{{- if hasPrefix "memory:" $url }}
{{- if or (gt (int .Values.replicaCount) 1) .Values.autoscaling.enabled .Values.autoscaling.external }}
{{- fail "config.store.url is memory://: each replica would hold messages of its own; use Redis, or replicaCount 1 and no autoscaling" }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.networkPolicy }}
{{- if and .enabled (not .egress.redis.ports) (not (kindIs "string" $url)) }}
{{- fail "networkPolicy.egress.redis.ports is empty, and config.store.url is in a Secret or a file: say which ports Redis has" }}
{{- end }}
{{- end }}
{{- range $key := list "listen" "admin_listen" }}
{{- $address := get $.Values.config.server $key }}
{{- if regexMatch "^(127[.]|localhost:|\\[::1\\])" $address }}
{{- fail (printf "config.server.%s is %s: neither the Service nor probes would reach it; use [::]" $key $address) }}
{{- end }}
{{- end }}
{{- if eq (include "rtm-bridge.port" .Values.config.server.listen) (include "rtm-bridge.port" .Values.config.server.admin_listen) }}
{{- fail "config.server.listen and config.server.admin_listen have one port, and a pod has one address: give each a port of its own" }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
{{- fail "ingress.hosts is empty: say for which host and paths, or leave ingress.enabled false" }}
{{- end }}
{{- if .Values.sandbox.enabled }}
{{- if hasKey .Values.bots "sandbox" }}
{{- fail "bots.sandbox is the bot that sandbox.enabled adds: give yours another name, or leave sandbox.enabled false" }}
{{- end }}
{{- if hasKey .Values.callers "helm-test" }}
{{- fail "callers.helm-test is the caller that sandbox.enabled adds: give yours another name, or leave sandbox.enabled false" }}
{{- end }}
{{- end }}
{{- with .Values.autoscaling }}
{{- if and .enabled .external }}
{{- fail "autoscaling.enabled and autoscaling.external are both true, and a Deployment has one autoscaler: set one of them" }}
{{- end }}
{{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) }}
{{- fail "autoscaling.minReplicas is more than autoscaling.maxReplicas" }}
{{- end }}
{{- if and .enabled (not (or .targetCPU .targetSockets .targetOldestTurnSeconds)) }}
{{- fail "autoscaling has nothing to scale by: set targetCPU, targetSockets or targetOldestTurnSeconds" }}
{{- end }}
{{- end }}
{{- with .Values.resources.limits }}{{- with .memory }}
{{- $pod := include "rtm-bridge.mebibytes" . | int64 }}
{{- $requests := regexReplaceAll "iB$" (include "rtm-bridge.server" $ | fromJson).memory_limit "i" | trimSuffix "B" | include "rtm-bridge.mebibytes" | int64 }}
{{- if gt (mul 2 $requests) $pod }}
{{- fail (printf "config.server.memory_limit is %d MiB, more than half of resources.limits.memory (%d MiB): the pod would be killed before it refuses a request" $requests $pod) }}
{{- end }}
{{- end }}{{- end }}
{{- if not (or (regexMatch "[1-9]" (toString .Values.rollingUpdate.maxSurge)) (regexMatch "[1-9]" (toString .Values.rollingUpdate.maxUnavailable))) }}
{{- fail "rollingUpdate.maxSurge and rollingUpdate.maxUnavailable are both 0: no pod could ever be replaced" }}
{{- end }}
{{- if not (include "rtm-bridge.bots" . | fromJson) }}
{{- fail "bots is empty: give one at least, or sandbox.enabled=true for a first look" }}
{{- end }}
{{- if not (include "rtm-bridge.callers" . | fromJson) }}
{{- fail "callers is empty, so nobody could send: make a key with `rtm-bridge key new`, and give its hash as callers.NAME.key_sha256" }}
{{- end }}
{{- if and .Values.config.server.metrics_token_file (or .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled) }}
{{- fail "config.server.metrics_token_file: Prometheus cannot read this file, so the monitor would get 401; give metrics_token as {existingSecret, key}" }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled }}
{{- fail "metrics.serviceMonitor and metrics.podMonitor would both read the same metrics: enable one" }}
{{- end }}
{{- end }}
