{{/*
Values that each are right and together are not: they would render, and the pods would not start, or the API server would
refuse half of the release. values.schema.json judges single values; this is what it cannot say. Every message begins with
the value to change.
*/}}
{{- define "composefs-csi.checks" -}}
{{- include "composefs-csi.checkNumbers" . }}
{{- include "composefs-csi.checkTogether" . }}
{{- include "composefs-csi.checkPaths" . }}
{{- include "composefs-csi.checkLabels" . }}
{{- include "composefs-csi.checkLists" . }}
{{- end -}}

{{- define "composefs-csi.checkNumbers" -}}
{{- $high := int .Values.node.gc.highPercent }}
{{- $low := int .Values.node.gc.lowPercent }}
{{- if gt $low $high }}
{{- fail (printf "node.gc.lowPercent (%d) is above node.gc.highPercent (%d): removal of images begins at the high mark and stops at the low one" $low $high) }}
{{- end }}
{{- $limit := dig "limits" "memory" "" .Values.resources | toString }}
{{- if regexMatch "^[0-9]+[MG]i$" $limit }}
{{- $mebibytes := mul (regexFind "[0-9]+" $limit | int) (ternary 1024 1 (hasSuffix "Gi" $limit)) }}
{{- if lt $mebibytes (add 128 (int .Values.node.buildMemoryMiB)) }}
{{- fail (printf "resources.limits.memory (%s) leaves no room beside node.buildMemoryMiB (%d): the process would be ended in the middle of a build; keep 128 MiB between them" $limit (int .Values.node.buildMemoryMiB)) }}
{{- end }}
{{- end }}
{{- $metrics := int .Values.metrics.port }}
{{- if and .Values.metrics.enabled (eq $metrics (int .Values.sidecars.livenessProbe.port)) }}
{{- fail (printf "metrics.port and sidecars.livenessProbe.port are both %d: the containers of a pod share their ports; change one" $metrics) }}
{{- end }}
{{- $socket := printf "%s/plugins/%s/csi.sock" .Values.kubeletDir .Values.driverName }}
{{- if gt (len $socket) 107 }}
{{- fail (printf "driverName is too long for this kubeletDir: the socket %s has %d characters, and Linux allows 107" $socket (len $socket)) }}
{{- end }}
{{- end -}}

{{/* Values that need or exclude each other. */}}
{{- define "composefs-csi.checkTogether" -}}
{{- with .Values.credentialProviders }}
{{- if ne (empty .configFile) (empty .binDir) }}
{{- fail "credentialProviders.configFile and credentialProviders.binDir belong together: give both or neither" }}
{{- end }}
{{- end }}
{{- if and .Values.registries.credentialHelperDir (not .Values.registries.authSecret) }}
{{- fail "registries.credentialHelperDir needs registries.authSecret: the docker config in it names the helper programs" }}
{{- end }}
{{- with .Values.metrics }}
{{- if and (not .enabled) (or .podMonitor.enabled .serviceMonitor.enabled .prometheusRule.enabled) }}
{{- fail "metrics.enabled is false, and podMonitor, serviceMonitor or prometheusRule would watch metrics that nobody serves: enable it, or disable them" }}
{{- end }}
{{- if and .podMonitor.enabled .serviceMonitor.enabled }}
{{- fail "metrics.podMonitor.enabled and metrics.serviceMonitor.enabled are both true: everything would be counted twice; enable one" }}
{{- end }}
{{- end }}
{{- if and .Values.storageClasses (not .Values.controller.enabled) }}
{{- fail "storageClasses needs controller.enabled: without the controller nobody provisions their volumes" }}
{{- end }}
{{- if and .Values.prefetch.enabled (not .Values.controller.enabled) }}
{{- fail "prefetch.enabled needs controller.enabled: without the controller no node is ever let to begin" }}
{{- end }}
{{- with .Values.serviceAccount }}
{{- if and $.Values.controller.enabled .node.create .controller.create (eq (include "composefs-csi.serviceAccount" (dict "root" $ "component" "node")) (include "composefs-csi.serviceAccount" (dict "root" $ "component" "controller"))) }}
{{- fail (printf "serviceAccount.node.name and serviceAccount.controller.name are both %s: each needs an account of its own" .node.name) }}
{{- end }}
{{- end }}
{{- range $place, $selector := dict "nodeSelector" .Values.nodeSelector "controller.nodeSelector" .Values.controller.nodeSelector }}
{{- $os := get $selector "kubernetes.io/os" | default "linux" }}
{{- if ne $os "linux" }}
{{- fail (printf "%s has kubernetes.io/os: %s, and the driver is a program for linux" $place $os) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Directories: inside the container they have the places that they have on the host. */}}
{{- define "composefs-csi.checkPaths" -}}
{{- $state := .Values.stateDir }}
{{- range list "pods" "plugins" "plugins_registry" }}
{{- $kubelets := printf "%s/%s" $.Values.kubeletDir . }}
{{- if include "composefs-csi.nested" (list $state $kubelets) }}
{{- fail (printf "stateDir (%s) and kubelet's %s must not be the same directory, nor one inside the other" $state $kubelets) }}
{{- end }}
{{- end }}
{{- with .Values.node.keyDir }}
{{- if eq . $state }}
{{- fail (printf "node.keyDir is stateDir (%s), where the key is anyway: leave it empty" .) }}
{{- end }}
{{- if hasPrefix (printf "%s/store/" $state) (printf "%s/" .) }}
{{- fail (printf "node.keyDir (%s) is inside the store, whose records the key authenticates: choose a directory outside %s/store" . $state) }}
{{- end }}
{{- end }}
{{- $taken := dict }}
{{- range include "composefs-csi.nodeMounts" . | fromYamlArray }}
{{- if ne .name "socket" }}
{{- $path := printf "%s/" .mountPath }}
{{- /* Above one of these the container would not find its program, its socket or its settings. */}}
{{- range list "/usr/bin/" "/csi/" "/etc/composefs-csi/" "/proc/" "/sys/" "/dev/" }}
{{- if hasPrefix $path . }}
{{- fail (printf "%s would hide %s of the driver's container: choose another directory, or link to it from one" (trimSuffix "/" $path) (trimSuffix "/" .)) }}
{{- end }}
{{- end }}
{{- end }}
{{- if hasKey $taken .mountPath }}
{{- fail (printf "%s is wanted for two volumes of the node plugin's container, %s and %s: each of stateDir, node.layoutDirs, node.objectSources, node.keyDir, node.extraVolumeMounts, policy.verifierDir, registries.credentialHelperDir, registries.mirrors and credentialProviders needs a path of its own" .mountPath (get $taken .mountPath) .name) }}
{{- end }}
{{- $_ := set $taken .mountPath .name }}
{{- end }}
{{- end -}}

{{/* Whether one of two paths is inside the other, or the same: "true" or nothing. */}}
{{- define "composefs-csi.nested" -}}
{{- $one := printf "%s/" (first .) }}
{{- $other := printf "%s/" (last .) }}
{{- if or (hasPrefix $one $other) (hasPrefix $other $one) }}true{{ end }}
{{- end -}}

{{/* Labels that the chart sets itself, and by which selectors find pods. */}}
{{- define "composefs-csi.checkLabels" -}}
{{- $own := dict }}
{{- range list "name" "instance" "component" "version" "part-of" "managed-by" }}
{{- $_ := set $own (printf "app.kubernetes.io/%s" .) true }}
{{- end }}
{{- $_ := set $own "helm.sh/chart" true }}
{{- $places := dict "commonLabels" .Values.commonLabels "podLabels" .Values.podLabels "controller.podLabels" .Values.controller.podLabels "metrics.podMonitor.labels" .Values.metrics.podMonitor.labels "metrics.serviceMonitor.labels" .Values.metrics.serviceMonitor.labels "metrics.prometheusRule.labels" .Values.metrics.prometheusRule.labels "grafanaDashboard.labels" .Values.grafanaDashboard.labels }}
{{- range $place, $labels := $places }}
{{- range $label, $_ := $labels }}
{{- if hasKey $own $label }}
{{- fail (printf "%s has %s, which the chart sets itself: selectors and helm find objects by it; choose another label" $place $label) }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Lists of the operator's that are joined to the chart's own. */}}
{{- define "composefs-csi.checkLists" -}}
{{- $node := include "composefs-csi.nodeSettings" . | fromYaml }}
{{- $common := include "composefs-csi.commonSettings" . | fromYaml }}
{{- $fixed := dict "ENDPOINT" "unix:///csi/csi.sock" "NODE_ID" "the node's name" }}
{{- include "composefs-csi.checkFlags" (dict "place" "node.extraArgs" "own" (include "composefs-csi.nodeArgs" . | fromYamlArray) "settings" (merge (dict) $node $fixed) "more" .Values.node.extraArgs) }}
{{- include "composefs-csi.checkFlags" (dict "place" "controller.extraArgs" "own" (include "composefs-csi.controllerArgs" . | fromYamlArray) "settings" (merge (dict) $common $fixed) "more" .Values.controller.extraArgs) }}
{{- with .Values.sidecars }}
{{- include "composefs-csi.checkFlags" (dict "place" "sidecars.nodeDriverRegistrar.extraArgs" "own" (include "composefs-csi.registrarArgs" $ | fromYamlArray) "settings" (dict) "more" .nodeDriverRegistrar.extraArgs) }}
{{- include "composefs-csi.checkFlags" (dict "place" "sidecars.livenessProbe.extraArgs" "own" (include "composefs-csi.livenessArgs" $ | fromYamlArray) "settings" (dict) "more" .livenessProbe.extraArgs) }}
{{- include "composefs-csi.checkFlags" (dict "place" "sidecars.externalProvisioner.extraArgs" "own" (include "composefs-csi.provisionerArgs" $ | fromYamlArray) "settings" (dict) "more" .externalProvisioner.extraArgs) }}
{{- include "composefs-csi.checkNames" (dict "place" "sidecars.nodeDriverRegistrar.extraEnv" "own" list "more" .nodeDriverRegistrar.extraEnv) }}
{{- include "composefs-csi.checkNames" (dict "place" "sidecars.livenessProbe.extraEnv" "own" list "more" .livenessProbe.extraEnv) }}
{{- include "composefs-csi.checkNames" (dict "place" "sidecars.externalProvisioner.extraEnv" "own" (include "composefs-csi.provisionerEnv" $ | fromYamlArray) "more" .externalProvisioner.extraEnv) }}
{{- end }}
{{- $env := include "composefs-csi.env" $node | fromYamlArray }}
{{- $env = concat $env (list (dict "name" "CSI_ENDPOINT") (dict "name" "NODE_ID")) }}
{{- include "composefs-csi.checkNames" (dict "place" "extraEnv" "own" $env "more" .Values.extraEnv) }}
{{- $volumes := include "composefs-csi.nodeVolumes" . | fromYamlArray }}
{{- include "composefs-csi.checkNames" (dict "place" "node.extraVolumes" "own" $volumes "more" .Values.node.extraVolumes) }}
{{- include "composefs-csi.checkNames" (dict "place" "storageClasses" "own" list "more" .Values.storageClasses) }}
{{- $there := list }}
{{- range concat $volumes .Values.node.extraVolumes }}
{{- $there = append $there .name }}
{{- end }}
{{- range .Values.node.extraVolumeMounts }}
{{- if not (has .name $there) }}
{{- fail (printf "node.extraVolumeMounts names the volume %s, which node.extraVolumes does not have" .name) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* {place, own, more}: lists of objects with names, each name once. */}}
{{- define "composefs-csi.checkNames" -}}
{{- $seen := dict }}
{{- range .own }}
{{- $_ := set $seen .name "which the chart sets itself: use its value for that" }}
{{- end }}
{{- $place := .place }}
{{- range .more }}
{{- $name := .name }}
{{- with get $seen $name }}
{{- fail (printf "%s has %s, %s" $place $name .) }}
{{- end }}
{{- $_ := set $seen $name "twice: keep one" }}
{{- end }}
{{- end -}}

{{/* {place, own, settings, more}: arguments, each flag once, as the program takes it. */}}
{{- define "composefs-csi.checkFlags" -}}
{{- $place := .place }}
{{- $settings := .settings }}
{{- $own := dict }}
{{- range .own }}
{{- $_ := set $own (first (splitList "=" .)) . }}
{{- end }}
{{- $repeated := list "--layout-dir" "--object-source" "--insecure-registry" "--registry-ca" "--registry-hosts-dir" "--image-credential-allow" }}
{{- $seen := dict }}
{{- range .more }}
{{- $flag := first (splitList "=" .) }}
{{- $setting := $flag | trimPrefix "--" | upper | replace "-" "_" }}
{{- if hasKey $settings $setting }}
{{- fail (printf "%s has %s, which the chart sets itself (%s): change the value that it comes from" $place $flag (get $settings $setting)) }}
{{- else if and (hasKey $own $flag) (not (has $flag $repeated)) }}
{{- fail (printf "%s has %s, which the chart gives itself (%s), and the program takes it once: change the value that it comes from" $place $flag (get $own $flag)) }}
{{- else if and (hasKey $seen $flag) (not (has $flag $repeated)) }}
{{- fail (printf "%s has %s twice, and the program takes it once: keep one" $place $flag) }}
{{- end }}
{{- $_ := set $seen $flag true }}
{{- end }}
{{- end -}}
