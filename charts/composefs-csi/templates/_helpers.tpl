{{/* The chart's name, for labels. */}}
{{- define "composefs-csi.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* What the names of objects begin with; 50 characters leave room for "-controller". */}}
{{- define "composefs-csi.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Labels by which selectors find the pods of a component; they can never change. */}}
{{- define "composefs-csi.selector" -}}
app.kubernetes.io/name: {{ include "composefs-csi.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of every object. */}}
{{- define "composefs-csi.labels" -}}
{{ include "composefs-csi.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: composefs-csi
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* An image's reference: {image: the values, default: the tag if none is given}. */}}
{{- define "composefs-csi.image" -}}
{{- $tag := default .default .image.tag -}}
{{- if .image.digest -}}
{{ .image.repository }}:{{ $tag }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ $tag }}
{{- end -}}
{{- end -}}

{{/* The ServiceAccount of a component, its own or the operator's. */}}
{{- define "composefs-csi.serviceAccount" -}}
{{- $account := index .root.Values.serviceAccount .component -}}
{{- if $account.create -}}
{{- default (printf "%s-%s" (include "composefs-csi.fullname" .root) .component) $account.name -}}
{{- else -}}
{{- required (printf "serviceAccount.%s.name is needed where serviceAccount.%s.create is false" .component .component) $account.name -}}
{{- end -}}
{{- end -}}

{{/* Whether the node plugin talks to the API server: "true" or nothing. */}}
{{- define "composefs-csi.nodeUsesApi" -}}
{{- if or .Values.events.enabled .Values.startupTaint.enabled .Values.pullSecrets.enabled -}}
true
{{- end -}}
{{- end -}}

{{/* Arguments that both run modes have. */}}
{{- define "composefs-csi.commonArgs" -}}
- --driver-name={{ .Values.driverName }}
- --state-dir={{ .Values.stateDir }}
- --log-level-file=/etc/composefs-csi/settings/log-level
- --log-format={{ .Values.logFormat }}
{{- range .Values.registries.insecure }}
- --insecure-registry={{ . }}
{{- end }}
{{- range $file, $_ := .Values.registries.certificateAuthorities }}
- --registry-ca=/etc/composefs-csi/registry-ca/{{ $file }}
{{- end }}
{{- if .Values.registries.authSecret }}
- --auth-file=/etc/composefs-csi/auth/.dockerconfigjson
{{- end }}
{{- if .Values.metrics.enabled }}
- --metrics-listen=[::]:{{ .Values.metrics.port | int }}
{{- end }}
{{- with .Values.tracing.otlpEndpoint }}
- --otlp-endpoint={{ . }}
{{- end }}
{{- end -}}

{{/* Arguments about which images the node plugin mounts, and for whom. */}}
{{- define "composefs-csi.trustArgs" -}}
- --without-policy={{ .Values.policy.withoutPolicy }}
- --policy-mode={{ .Values.policy.mode }}
{{- if .Values.policy.json }}
- --policy=/etc/composefs-csi/policy/policy.json
{{- end }}
{{- if .Values.policy.namespaces }}
- --policy-dir=/etc/composefs-csi/namespaces
{{- end }}
{{- with .Values.policy.verifierDir }}
- --verifier-dir={{ . }}
- --verifier-timeout={{ $.Values.policy.verifierTimeoutSeconds | int }}
{{- end }}
{{- if .Values.policy.requireComposefsDigest }}
- --require-composefs-digest
{{- end }}
{{- with .Values.node.keyDir }}
- --node-key={{ . }}/node.key
{{- end }}
- --image-credential-policy={{ .Values.imageCredentials.policy }}
{{- range .Values.imageCredentials.allow }}
- --image-credential-allow={{ . }}
{{- end }}
- --access-ttl={{ .Values.imageCredentials.ttlSeconds | int }}
{{- with .Values.credentialProviders }}
{{- if ne (empty .configFile) (empty .binDir) }}
{{- fail "credentialProviders.configFile and credentialProviders.binDir belong together: give both or neither" }}
{{- end }}
{{- with .configFile }}
- --credential-provider-config={{ . }}
- --credential-provider-bin-dir={{ $.Values.credentialProviders.binDir }}
{{- end }}
{{- end }}
{{- if .Values.pullSecrets.enabled }}
- --pull-secrets
{{- end }}
{{- if .Values.events.enabled }}
- --kubernetes-events
{{- end }}
{{- if .Values.startupTaint.enabled }}
- --startup-taint
{{- end }}
{{- end -}}

{{/* Files and directories of the host that the node plugin reads, or writes (the last), by volume name. */}}
{{- define "composefs-csi.hostPaths" -}}
{{- range $index, $dir := .Values.node.layoutDirs }}
- {name: layouts-{{ $index }}, path: {{ $dir }}, type: Directory, readOnly: true}
{{- end }}
{{- with .Values.policy.verifierDir }}
- {name: verifiers, path: {{ . }}, type: Directory, readOnly: true}
{{- end }}
{{- with .Values.credentialProviders.configFile }}
- {name: credential-provider-config, path: {{ . }}, type: File, readOnly: true}
- {name: credential-provider-bin, path: {{ $.Values.credentialProviders.binDir }}, type: Directory, readOnly: true}
{{- end }}
{{- with .Values.node.keyDir }}
- {name: node-key, path: {{ . }}, type: DirectoryOrCreate, readOnly: false}
{{- end }}
{{- end -}}

{{/* ConfigMaps of policies, by what they are called and where they are mounted. */}}
{{- define "composefs-csi.policyMaps" -}}
{{- if .Values.policy.json }}
- policy
{{- end }}
{{- if .Values.policy.namespaces }}
- namespaces
{{- end }}
{{- if .Values.policy.keys }}
- keys
{{- end }}
{{- end -}}

{{/* Where both run modes find their files. */}}
{{- define "composefs-csi.commonMounts" -}}
- name: socket
  mountPath: /csi
- name: settings
  mountPath: /etc/composefs-csi/settings
  readOnly: true
{{- if .Values.registries.certificateAuthorities }}
- name: registry-ca
  mountPath: /etc/composefs-csi/registry-ca
  readOnly: true
{{- end }}
{{- if .Values.registries.authSecret }}
- name: auth
  mountPath: /etc/composefs-csi/auth
  readOnly: true
{{- end }}
{{- end -}}

{{/* The volumes behind them, without the socket. */}}
{{- define "composefs-csi.commonVolumes" -}}
- name: settings
  configMap:
    name: {{ include "composefs-csi.fullname" . }}-settings
{{- if .Values.registries.certificateAuthorities }}
- name: registry-ca
  configMap:
    name: {{ include "composefs-csi.fullname" . }}-registry-ca
{{- end }}
{{- if .Values.registries.authSecret }}
- name: auth
  secret:
    secretName: {{ .Values.registries.authSecret }}
    # 0440: only the container's own user and group need it.
    defaultMode: 288
{{- end }}
{{- end -}}

{{/* Annotations that make new pods when a file changes that is read at the start only. */}}
{{- define "composefs-csi.checksums" -}}
{{- with .Values.registries.certificateAuthorities }}
composefs-csi/registry-ca: {{ toJson . | sha256sum | trunc 32 }}
{{- end }}
{{- end -}}

{{/* The livenessprobe sidecar: asks Probe on the socket for whoever asks its /healthz. */}}
{{- define "composefs-csi.livenessprobe" -}}
- name: livenessprobe
  image: {{ include "composefs-csi.image" (dict "image" .Values.sidecars.livenessProbe.image) }}
  imagePullPolicy: {{ .Values.sidecars.livenessProbe.image.pullPolicy }}
  args:
    - --csi-address=/csi/csi.sock
    - --http-endpoint=:{{ .Values.sidecars.livenessProbe.port }}
    - --probe-timeout=3s
{{- end -}}

{{/* Asks that sidecar. The first answer may take its time: the store is opened and the kernel tested first. */}}
{{- define "composefs-csi.probes" -}}
startupProbe:
  httpGet:
    path: /healthz
    port: healthz
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 150
livenessProbe:
  httpGet:
    path: /healthz
    port: healthz
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 5
{{- if .Values.metrics.enabled }}
# A rollout goes on when volumes can be mounted, not when the process runs.
readinessProbe:
  httpGet:
    path: /readyz
    port: metrics
  periodSeconds: 5
  timeoutSeconds: 5
{{- end }}
{{- end -}}
