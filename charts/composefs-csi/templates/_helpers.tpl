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
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/*
Labels of every object: {root, component, extra: the operator's own for this object}. The chart's come first; checks.tpl
refuses others in their place.
*/}}
{{- define "composefs-csi.labels" -}}
{{- $own := include "composefs-csi.selector" . | fromYaml }}
{{- $_ := set $own "app.kubernetes.io/version" .root.Chart.AppVersion }}
{{- $_ := set $own "app.kubernetes.io/part-of" "composefs-csi" }}
{{- $_ := set $own "app.kubernetes.io/managed-by" .root.Release.Service }}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") }}
{{- merge $own (.extra | default dict) .root.Values.commonLabels | toYaml }}
{{- end -}}

{{/* An image's reference: {root, image: the values, default: the tag if none is given}. */}}
{{- define "composefs-csi.image" -}}
{{- $tag := default .default .image.tag -}}
{{- $repository := .image.repository -}}
{{- with .root.Values.global.imageRegistry -}}
{{- /* The first part is a registry if a host's name is what it can be. */ -}}
{{- $parts := splitList "/" $repository -}}
{{- if and (gt (len $parts) 1) (regexMatch "[.:]|^localhost$" (first $parts)) -}}
{{- $repository = rest $parts | join "/" -}}
{{- end -}}
{{- $repository = printf "%s/%s" . $repository -}}
{{- end -}}
{{ $repository }}:{{ $tag }}{{ with .image.digest }}@{{ . }}{{ end }}
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
{{- if or .Values.events.enabled .Values.startupTaint.enabled .Values.pullSecrets.enabled .Values.prefetch.enabled -}}
true
{{- end -}}
{{- end -}}

{{/* The livenessprobe sidecar: asks Probe on the socket for whoever asks its /healthz. */}}
{{- define "composefs-csi.livenessprobe" -}}
- name: livenessprobe
  image: {{ include "composefs-csi.image" (dict "root" . "image" .Values.sidecars.livenessProbe.image) }}
  imagePullPolicy: {{ .Values.sidecars.livenessProbe.image.pullPolicy }}
  args:
    {{- include "composefs-csi.livenessArgs" . | nindent 4 }}
    {{- with .Values.sidecars.livenessProbe.extraArgs }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.sidecars.livenessProbe.extraEnv }}
  env:
    {{- toYaml . | nindent 4 }}
  {{- end }}
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

{{/* Annotations of a pod: {extra: the operator's, which count more}. No checksums: what changes is read anew. */}}
{{- define "composefs-csi.podAnnotations" -}}
{{- $own := dict "kubectl.kubernetes.io/default-container" "driver" }}
{{- merge (dict) .extra $own | toYaml }}
{{- end -}}

{{/* The capabilities of the node plugin; the DaemonSet says why. */}}
{{- define "composefs-csi.nodeCapabilities" -}}
SYS_ADMIN, DAC_OVERRIDE, MKNOD, SYSLOG, SETUID, SETGID, CHOWN, FOWNER, FSETID{{ if or .Values.node.writableMaxMiB .Values.node.writableMaxDiskMiB .Values.node.objectSources }}, DAC_READ_SEARCH{{ end }}{{ if or .Values.node.writableMaxMiB .Values.node.writableMaxDiskMiB }}, SETFCAP{{ end }}
{{- end -}}
