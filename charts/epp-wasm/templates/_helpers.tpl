{{- define "epp-wasm.cluster" -}}
{{- if eq .Values.gateway "istio" -}}
outbound|{{ .Values.port }}||{{ .Values.service }}
{{- else -}}
httproute/{{ .Release.Namespace }}/{{ .Values.route }}/rule/0
{{- end -}}
{{- end -}}
