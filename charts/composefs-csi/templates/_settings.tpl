{{/*
Settings that the operator's commands have as well as the run modes, by the names of their variables without
COMPOSEFS_CSI_. They are the container's environment and no arguments, so that `kubectl exec` runs a command with the
settings of the plugin. All values are text.
*/}}
{{- define "composefs-csi.commonSettings" -}}
STATE_DIR: {{ .Values.stateDir | quote }}
INSECURE_REGISTRIES_FILE: /etc/composefs-csi/settings/insecure-registries
{{- with .Values.registries.certificateAuthorities }}
{{- $files := list }}
{{- range $file, $_ := . }}
{{- $files = append $files (printf "/etc/composefs-csi/registry-ca/%s" $file) }}
{{- end }}
REGISTRY_CA: {{ join "," $files | quote }}
{{- end }}
{{- if .Values.registries.authSecret }}
AUTH_FILE: /etc/composefs-csi/auth/.dockerconfigjson
{{- end }}
{{- end -}}

{{/* The same for the node plugin: with what decides which images it mounts, and for whom. */}}
{{- define "composefs-csi.nodeSettings" -}}
{{ include "composefs-csi.commonSettings" . }}
SELINUX_CONTEXT: {{ .Values.selinux.context | quote }}
GC_HIGH: {{ .Values.node.gc.highPercent | int | quote }}
GC_LOW: {{ .Values.node.gc.lowPercent | int | quote }}
MIN_FREE: {{ .Values.node.gc.minFreePercent | int | quote }}
RANGE_SIZE: {{ .Values.node.ranges.sizeMiB | int | quote }}
RANGES: {{ .Values.node.ranges.atOnce | int | quote }}
RANGE_CONNECTIONS: {{ .Values.node.ranges.connections | int | quote }}
KEEP_PARTIAL: {{ .Values.node.ranges.keepSeconds | int | quote }}
PARTIAL_PULLS: {{ .Values.node.partialPulls | quote }}
{{- with .Values.node.objectSources }}
OBJECT_SOURCE: {{ join "," . | quote }}
{{- end }}
BUILD_MEMORY: {{ .Values.node.buildMemoryMiB | int | quote }}
WITHOUT_POLICY: {{ .Values.policy.withoutPolicy }}
POLICY_MODE: {{ .Values.policy.mode }}
{{- if .Values.policy.json }}
POLICY: /etc/composefs-csi/policy/policy.json
{{- end }}
{{- if .Values.policy.namespaces }}
POLICY_DIR: /etc/composefs-csi/namespaces
{{- end }}
{{- with .Values.policy.verifierDir }}
VERIFIER_DIR: {{ . }}
VERIFIER_TIMEOUT: {{ $.Values.policy.verifierTimeoutSeconds | int | quote }}
{{- end }}
{{- with .Values.registries.credentialHelperDir }}
CREDENTIAL_HELPER_DIR: {{ . }}
{{- end }}
{{- with .Values.registries.mirrors }}
{{- with .hostsDirs }}
REGISTRY_HOSTS_DIR: {{ join "," . | quote }}
{{- end }}
{{- with .registriesConf }}
REGISTRIES_CONF: {{ . }}
{{- end }}
{{- if or .hostsDirs .registriesConf }}
MIRROR_PROOF: {{ .proof }}
{{- end }}
{{- end }}
{{- with .Values.node.keyDir }}
NODE_KEY: {{ . }}/node.key
{{- end }}
KEEP_PRIVILEGES: {{ .Values.policy.keepPrivileges | quote }}
KEEP_SPECIAL_FILES: {{ .Values.policy.keepSpecialFiles | quote }}
IMAGE_CREDENTIAL_POLICY: {{ .Values.imageCredentials.policy }}
{{- with .Values.imageCredentials.allow }}
IMAGE_CREDENTIAL_ALLOW: {{ join "," . | quote }}
{{- end }}
ACCESS_TTL: {{ .Values.imageCredentials.ttlSeconds | int | quote }}
{{- end -}}

{{/* Settings as a container's environment. */}}
{{- define "composefs-csi.env" -}}
{{- range $name, $value := . }}
- name: COMPOSEFS_CSI_{{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{/* Arguments that both run modes have, and no command. */}}
{{- define "composefs-csi.commonArgs" -}}
- --driver-name={{ .Values.driverName }}
- --log-level-file=/etc/composefs-csi/settings/log-level
- --log-format={{ .Values.logFormat }}
{{- if .Values.metrics.enabled }}
- --metrics-listen=[::]:{{ .Values.metrics.port | int }}
{{- end }}
{{- with .Values.tracing.otlpEndpoint }}
- --otlp-endpoint={{ . }}
{{- end }}
{{- end -}}

{{/* The node plugin's arguments, without the operator's. */}}
{{- define "composefs-csi.nodeArgs" -}}
- node
{{ include "composefs-csi.commonArgs" . }}
- --kubelet-dir={{ .Values.kubeletDir }}
- --integrity={{ .Values.node.integrity }}
- --writable-max-size={{ .Values.node.writableMaxMiB | int }}
- --writable-max-disk-size={{ .Values.node.writableMaxDiskMiB | int }}
- --parallel-layers={{ .Values.node.parallelLayers | int }}
- --pull-grace={{ .Values.node.pullGraceSeconds | int }}
- --pull-wait={{ .Values.node.pullWaitSeconds | int }}
- --gc-interval={{ .Values.node.gc.intervalSeconds | int }}
{{- with .Values.node.followIntervalSeconds }}
- --follow-interval={{ . | int }}
{{- end }}
- --scrub-days={{ .Values.node.scrub.everyDays | int }}
- --scrub-rate={{ .Values.node.scrub.rateMiB | int }}
- --stat-ahead={{ .Values.node.statAhead | int }}
{{- range .Values.node.layoutDirs }}
- --layout-dir={{ . }}
{{- end }}
{{- if .Values.policy.requireComposefsDigest }}
- --require-composefs-digest
{{- end }}
{{- with .Values.credentialProviders.configFile }}
- --credential-provider-config={{ . }}
- --credential-provider-bin-dir={{ $.Values.credentialProviders.binDir }}
{{- end }}
{{- if .Values.pullSecrets.enabled }}
- --pull-secrets
{{- range .Values.pullSecrets.namespaces }}
- --pull-secrets-namespace={{ . }}
{{- end }}
{{- end }}
{{- if .Values.events.enabled }}
- --kubernetes-events
{{- end }}
{{- if .Values.startupTaint.enabled }}
- --startup-taint
{{- end }}
{{- if .Values.prefetch.enabled }}
- --image-prefetch
{{- end }}
{{- end -}}

{{/* The controller's arguments, without the operator's. */}}
{{- define "composefs-csi.controllerArgs" -}}
- controller
{{ include "composefs-csi.commonArgs" . }}
{{- range include "composefs-csi.controllerLayouts" . | fromYamlArray }}
- --layout-dir={{ .path }}
{{- end }}
{{- if .Values.controller.claimAnnotations }}
- --pvc-annotations
{{- end }}
{{- if .Values.prefetch.enabled }}
- --image-prefetch
{{- end }}
{{- end -}}

{{/* The sidecars' arguments, without the operator's. */}}
{{- define "composefs-csi.registrarArgs" -}}
- --csi-address=/csi/csi.sock
- --kubelet-registration-path={{ .Values.kubeletDir }}/plugins/{{ .Values.driverName }}/csi.sock
{{- end -}}

{{- define "composefs-csi.livenessArgs" -}}
- --csi-address=/csi/csi.sock
- --http-endpoint=:{{ .Values.sidecars.livenessProbe.port | int }}
- --probe-timeout=3s
{{- end -}}

{{- define "composefs-csi.provisionerArgs" -}}
- --csi-address=/csi/csi.sock
- --v={{ .Values.sidecars.externalProvisioner.verbosity | int }}
- --leader-election
- --leader-election-namespace=$(NAMESPACE)
# The controller asks a registry what a tag means, which may take longer than the default of 10 s.
- --timeout=60s
# Tells the controller which claim it works for.
- --extra-create-metadata
{{- end -}}

{{/* The external-provisioner's environment, without the operator's. */}}
{{- define "composefs-csi.provisionerEnv" -}}
- name: NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- if semverCompare "<1.27-0" .Capabilities.KubeVersion.Version }}
# Its client would wait for ever for a bookmark that an API server before 1.27 does not send.
- name: KUBE_FEATURE_WatchListClient
  value: "false"
{{- end }}
{{- end -}}
