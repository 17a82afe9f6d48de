{{/* Labels of everything; the argument is a list of the root and the component. */}}
{{- define "wick.labels" -}}
{{ include "wick.selector" . }}
app.kubernetes.io/version: {{ (first .).Chart.AppVersion | quote }}
app.kubernetes.io/part-of: wick
{{- end }}

{{/* What never changes, since a Deployment's selector can't. */}}
{{- define "wick.selector" -}}
app.kubernetes.io/name: wick
app.kubernetes.io/component: {{ last . }}
{{- end }}

{{- define "wick.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* The pod of a component; the argument is a list of the root and the component. */}}
{{- define "wick.pod" -}}
{{- $root := first . -}}
{{- $component := last . -}}
{{- $values := index $root.Values $component -}}
{{ include "wick.podMetadata" . }}
spec:
  {{- include "wick.placed" . | nindent 2 }}
  securityContext:
    {{- include "wick.user" . | nindent 4 }}
  {{- with $values.terminationGracePeriodSeconds }}
  terminationGracePeriodSeconds: {{ . }}
  {{- end }}
  {{- with $values.topologySpread }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: {{ .topologyKey }}
      whenUnsatisfiable: {{ .whenUnsatisfiable }}
      labelSelector:
        matchLabels:
          {{- include "wick.selector" (list $root $component) | nindent 10 }}
  {{- end }}
  containers:
    - name: {{ $component }}
      image: {{ include "wick.image" $root | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args:
        - {{ $component }}
        - run
        {{- with $root.Values.operator.only }}
        - --only={{ . }}
        {{- end }}
        {{- with $values.extraArgs }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      env:
        - {name: RUST_LOG, value: {{ $values.log | quote }}}
        - name: WICK_IDENTITY
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        - name: WICK_NAMESPACE
          valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
      ports:
        - {name: http, containerPort: {{ include "wick.port" $root }}}
      readinessProbe:
        httpGet: {path: /readyz, port: http}
        periodSeconds: 2
      livenessProbe:
        httpGet: {path: /livez, port: http}
        periodSeconds: 10
        timeoutSeconds: 5
      securityContext:
        {{- include "wick.confined" . | nindent 8 }}
      {{- with $values.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end }}

{{- define "wick.podMetadata" -}}
{{- $values := index (first .).Values (last .) -}}
metadata:
  labels:
    {{- include "wick.labels" . | nindent 4 }}
    {{- with $values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* As whom and where a component's pods run. */}}
{{- define "wick.placed" -}}
{{- $root := first . -}}
{{- $values := index $root.Values (last .) -}}
serviceAccountName: wick-{{ last . }}
enableServiceLinks: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What the security level `restricted` asks of a pod, and of a container. */}}
{{- define "wick.user" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "wick.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The claim of a component that keeps something. */}}
{{- define "wick.claim" -}}
{{- $values := index (first .).Values (last .) -}}
- metadata:
    name: state
    labels:
      {{- include "wick.selector" . | nindent 6 }}
  spec:
    accessModes: [ReadWriteOnce]
    {{- with $values.persistence.storageClass }}
    storageClassName: {{ . }}
    {{- end }}
    resources: {requests: {storage: {{ $values.persistence.size }}}}
{{- end }}

{{/* Where all listen unless told otherwise: `/livez`, `/readyz`, `/metrics`, and what an activator tells
the operator. */}}
{{- define "wick.port" -}}9090{{- end }}
