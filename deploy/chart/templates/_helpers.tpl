{{- define "polyplane.labels" -}}
app.kubernetes.io/name: polyplane
app.kubernetes.io/part-of: polyplane
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}
