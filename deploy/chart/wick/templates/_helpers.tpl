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
metadata:
  labels:
    {{- include "wick.labels" (list $root $component) | nindent 4 }}
    {{- with $values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: wick-{{ $component }}
  enableServiceLinks: false
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    seccompProfile: {type: RuntimeDefault}
  {{- with $values.terminationGracePeriodSeconds }}
  terminationGracePeriodSeconds: {{ . }}
  {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
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
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      {{- with $values.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end }}

{{/* Where both listen unless told otherwise: `/livez`, `/readyz`, `/metrics`, and what an activator
tells the operator. */}}
{{- define "wick.port" -}}9090{{- end }}
