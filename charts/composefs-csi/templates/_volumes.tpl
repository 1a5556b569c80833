{{/* Files and directories of the host that the node plugin reads, or writes (the last), by volume name. */}}
{{- define "composefs-csi.hostPaths" -}}
{{- range $index, $dir := .Values.node.layoutDirs }}
- {name: layouts-{{ $index }}, path: {{ $dir }}, type: Directory, readOnly: true}
{{- end }}
{{- range $index, $dir := .Values.node.objectSources }}
- {name: object-source-{{ $index }}, path: {{ $dir }}, type: Directory, readOnly: true}
{{- end }}
{{- with .Values.policy.verifierDir }}
- {name: verifiers, path: {{ . }}, type: Directory, readOnly: true}
{{- end }}
{{- with .Values.credentialProviders.configFile }}
- {name: credential-provider-config, path: {{ . }}, type: File, readOnly: true}
- {name: credential-provider-bin, path: {{ $.Values.credentialProviders.binDir }}, type: Directory, readOnly: true}
{{- end }}
{{- with .Values.registries.credentialHelperDir }}
- {name: credential-helpers, path: {{ . }}, type: Directory, readOnly: true}
{{- end }}
{{- range $index, $dir := .Values.registries.mirrors.hostsDirs }}
- {name: registry-hosts-{{ $index }}, path: {{ $dir }}, type: Directory, readOnly: true}
{{- end }}
{{- with .Values.registries.mirrors.registriesConf }}
{{- /* A single file would not follow one that is written anew, and there are drop-ins beside it. */}}
- {name: registries-conf, path: {{ dir . }}, type: Directory, readOnly: true}
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

{{/* Directories of the host in which the controller looks for OCI layouts. OpenShift's nonroot-v2 lets it have none. */}}
{{- define "composefs-csi.controllerLayouts" -}}
{{- if not .Values.openshift.enabled }}
{{- range $index, $dir := .Values.node.layoutDirs }}
- {name: layouts-{{ $index }}, path: {{ $dir }}}
{{- end }}
{{- end }}
{{- end -}}

{{/* What the driver's container of the node plugin sees. */}}
{{- define "composefs-csi.nodeMounts" -}}
{{ include "composefs-csi.commonMounts" . }}
- name: state
  # The same path inside and outside: mounts carry it in their source, and the operator's commands
  # on the node must recognise them. No propagation: the mounts in there are this process's own.
  mountPath: {{ .Values.stateDir }}
- name: pods
  # The same path inside and outside: kubelet names its targets by it.
  mountPath: {{ .Values.kubeletDir }}/pods
  # What is mounted here must appear on the host and in the pods, and stay when this container goes.
  mountPropagation: Bidirectional
- name: staging
  # Only to see which of the driver's staged volumes kubelet still has; nothing is mounted there.
  mountPath: {{ .Values.kubeletDir }}/plugins/kubernetes.io/csi/{{ .Values.driverName }}
  readOnly: true
{{- range include "composefs-csi.hostPaths" . | fromYamlArray }}
- name: {{ .name }}
  mountPath: {{ .path }}
  {{- if .readOnly }}
  readOnly: true
  {{- end }}
{{- end }}
{{- with .Values.node.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- with include "composefs-csi.policyMaps" . | fromYamlArray }}
# Whole directories: a single file would not follow changes of its ConfigMap.
{{- range . }}
- name: {{ . }}
  mountPath: /etc/composefs-csi/{{ . }}
  readOnly: true
{{- end }}
{{- end }}
{{- end -}}

{{/* The volumes of the node plugin's pod, without the operator's. */}}
{{- define "composefs-csi.nodeVolumes" -}}
- name: socket
  hostPath:
    path: {{ .Values.kubeletDir }}/plugins/{{ .Values.driverName }}
    type: DirectoryOrCreate
- name: registration
  hostPath:
    path: {{ .Values.kubeletDir }}/plugins_registry
    # Not made here: if it is missing, kubeletDir is wrong, and the pod's events should say so.
    type: Directory
- name: pods
  hostPath:
    path: {{ .Values.kubeletDir }}/pods
    type: Directory
- name: staging
  hostPath:
    path: {{ .Values.kubeletDir }}/plugins/kubernetes.io/csi/{{ .Values.driverName }}
    # Kubelet makes it with the first staged volume.
    type: DirectoryOrCreate
- name: state
  hostPath:
    path: {{ .Values.stateDir }}
    type: DirectoryOrCreate
{{- range include "composefs-csi.hostPaths" . | fromYamlArray }}
- name: {{ .name }}
  hostPath:
    path: {{ .path }}
    type: {{ .type }}
{{- end }}
{{- range include "composefs-csi.policyMaps" . | fromYamlArray }}
- name: {{ . }}
  configMap:
    name: {{ include "composefs-csi.fullname" $ }}-{{ . }}
{{- end }}
{{ include "composefs-csi.commonVolumes" . }}
{{- end -}}
