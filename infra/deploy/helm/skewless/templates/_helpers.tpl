{{/* All helpers take a dictionary: root (the chart's scope), component, and what the helper says. */}}

{{- define "skewless.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "skewless.metadata" -}}
name: {{ printf "%s-%s" .root.Release.Name .component | quote }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "skewless.selector" . | nindent 2 }}
  app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{/* The number of pods of a component. */}}
{{- define "skewless.replicas" -}}
{{ ternary 0 .replicas .root.Values.stopped }}
{{- end }}

{{/* The environment of a container; env: more variables, names to values. */}}
{{- define "skewless.env" -}}
{{- $values := .root.Values }}
{{- range concat (list "SKEWLESS_DATABASE_URL" "SKEWLESS_REDIS_URL" "SKEWLESS_STORAGE_URL") $values.secretKeys | uniq }}
- name: {{ . }}
  valueFrom: {secretKeyRef: {name: {{ $values.secret | quote }}, key: {{ . }}}}
{{- end }}
{{- if ne .component "server" }}
- name: SKEWLESS_THREADS
  valueFrom: {resourceFieldRef: {containerName: {{ .component }}, resource: requests.cpu}}
{{- end }}
{{- $env := dict "HOME" "/tmp" "SKEWLESS_LOG" "json" "SKEWLESS_STATE" (printf "%s/.skewless/state" $values.project.path) }}
{{- range $name, $value := $values.settings }}
{{- $_ := set $env (printf "SKEWLESS_%s" (upper $name)) (kindIs "string" $value | ternary $value (toJson $value)) }}
{{- end }}
{{- range $name, $value := merge $env (.env | default dict) $values.env }}
- name: {{ $name }}
  value: {{ $value | replace "$" "$$" | quote }}  {{- /* Kubernetes replaces $(NAME). */}}
{{- end }}
{{- end }}

{{/* The template of a pod that cannot write outside its volumes; image, args, resources, grace, env, container (more fields). */}}
{{- define "skewless.pod" -}}
{{- $values := .root.Values }}
metadata:
  labels:
    {{- include "skewless.selector" . | nindent 4 }}
spec:
  serviceAccountName: {{ $values.serviceAccount | quote }}
  automountServiceAccountToken: false
  # A Service named `skewless` would set the variable SKEWLESS_PORT.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .grace }}
  {{- with .restartPolicy }}
  restartPolicy: {{ . }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  {{- with $values.images.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . | quote }}
    {{- end }}
  {{- end }}
  {{- with $values.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if not .restartPolicy }}
  topologySpreadConstraints:
    {{- range $key, $when := dict "kubernetes.io/hostname" $values.spread.hosts "topology.kubernetes.io/zone" $values.spread.zones }}
    - topologyKey: {{ $key }}
      maxSkew: 1
      whenUnsatisfiable: {{ $when }}
      labelSelector:
        matchLabels:
          {{- include "skewless.selector" $ | nindent 10 }}
      matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ .image | quote }}
      imagePullPolicy: {{ $values.images.pullPolicy }}
      args: {{- toYaml .args | nindent 8 }}
      env:
        {{- include "skewless.env" . | nindent 8 }}
      {{- with .container }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
      resources: {{- toYaml .resources | nindent 8 }}
      securityContext:
        readOnlyRootFilesystem: true
        allowPrivilegeEscalation: false
        capabilities: {drop: [ALL]}
      volumeMounts:
        {{- if $values.project.claim }}
        - {name: project, mountPath: {{ $values.project.path | quote }}, readOnly: true}
        {{- end }}
        - {name: state, mountPath: {{ printf "%s/.skewless" $values.project.path | quote }}}
        - {name: tmp, mountPath: /tmp}
        {{- range .secrets }}
        - {name: {{ .name }}, mountPath: /{{ .name }}, readOnly: true}
        {{- end }}
  volumes:
    {{- with $values.project.claim }}
    - {name: project, persistentVolumeClaim: {claimName: {{ . | quote }}, readOnly: true}}
    {{- end }}
    {{- with $values.state }}
    {{- if .storageClass }}
    - name: state
      ephemeral:
        volumeClaimTemplate:
          spec:
            accessModes: [ReadWriteOnce]
            storageClassName: {{ .storageClass | quote }}
            resources: {requests: {storage: {{ .size }}}}
    {{- else }}
    - {name: state, emptyDir: {sizeLimit: {{ .size }}}}
    {{- end }}
    {{- end }}
    - {name: tmp, emptyDir: {sizeLimit: 1Gi}}
    {{- range .secrets }}
    - {name: {{ .name }}, secret: {secretName: {{ .secret | quote }}, defaultMode: 0440}}
    {{- end }}
{{- end }}

{{/* The probes of a component whose only route is that of its metrics, as JSON. */}}
{{- define "skewless.metricsContainer" -}}
{{- $get := dict "httpGet" (dict "path" "/metrics" "port" "metrics") "timeoutSeconds" 5 "periodSeconds" 10 }}
{{- dict
  "ports" (list (dict "name" "metrics" "containerPort" 9102))
  "startupProbe" (merge (dict "failureThreshold" (div .startupSeconds 10 | max 1)) $get)
  "readinessProbe" $get
  "livenessProbe" (merge (dict "failureThreshold" 6) $get)
  | toJson }}
{{- end }}

{{- /* A quantity as a number: cores, or mebibytes. */}}
{{- define "skewless.amount" -}}
{{- if hasSuffix "Gi" . }}{{ trimSuffix "Gi" . | mulf 1024 }}
{{- else if hasSuffix "m" . }}{{ trimSuffix "m" . | mulf 0.001 }}
{{- else }}{{ trimSuffix "Mi" . }}
{{- end }}
{{- end }}
