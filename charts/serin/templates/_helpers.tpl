{{/* Names are fixed: the admission policies and the lease are the cluster's, so there is one Serin in it. */}}

{{- define "serin.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "serin.selector" -}}
app.kubernetes.io/name: serin
app.kubernetes.io/component: controller
{{- end -}}

{{- define "serin.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/name: serin
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* pause where the value asks for it, or where the cluster has no MutatingAdmissionPolicy; else the value. */}}
{{- define "serin.hold" -}}
{{- $offered := .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy" -}}
{{- if and (eq .Values.hold.by "auto") (not $offered) -}}pause{{- else -}}{{ .Values.hold.by }}{{- end -}}
{{- end -}}

{{/*
The objects of one file under files/, which is a copy of manifests/: the same text, but in the release's namespace
(the service account's user name included) and with the chart's labels.
Takes: root (the chart's context), path, annotations and labels (put on each object).
*/}}
{{- define "serin.objects" -}}
{{- $root := .root -}}
{{- $annotations := .annotations | default dict -}}
{{- $given := .labels | default dict -}}
{{- $paused := eq (include "serin.hold" $root) "pause" -}}
{{- $text := $root.Files.Get .path | replace "serin-system" $root.Release.Namespace -}}
{{- $text = replace "duration('2160h')" (printf "duration('%dh')" (mul 24 $root.Values.records.retentionDays)) $text -}}
{{- $text = replace "['serin:agents', 'system:serviceaccounts:agents']" (printf "['%s']" (join "', '" $root.Values.protection.agents)) $text -}}
{{- range regexSplit "(?m)^---\\s*$" $text -1 }}
{{- $object := fromYaml . }}
{{- if and $object.kind (not (and $paused (hasPrefix "MutatingAdmissionPolicy" $object.kind))) }}
{{- $labels := merge (include "serin.labels" $root | fromYaml) (deepCopy $given) ($object.metadata.labels | default dict) }}
{{- $_ := set $object.metadata "labels" $labels }}
{{- if $annotations }}
{{- $_ := set $object.metadata "annotations" (merge (deepCopy $annotations) ($object.metadata.annotations | default dict)) }}
{{- end }}
{{- if and (eq $object.metadata.name "serin-hold") (hasSuffix "AdmissionPolicy" $object.kind) }}
{{- $_ := set $object.spec "failurePolicy" $root.Values.hold.failurePolicy }}
{{- with $root.Values.hold.namespaceSelector }}
{{- $_ := set $object.spec.matchConstraints "namespaceSelector" . }}
{{- end }}
{{- end }}
{{- if and (eq $object.metadata.name "serin-config") (hasSuffix "Binding" $object.kind) }}
{{- $_ := set $object.spec "validationActions" (list $root.Values.hold.configuration) }}
{{- end }}
{{- if and $root.Values.rbac.onlyNamespace (eq $object.kind "ClusterRoleBinding") (has $object.metadata.name (list "serin-controller" "serin-controller-workloads")) }}
{{- $_ := set $object "kind" "RoleBinding" }}
{{- $_ := set $object.metadata "namespace" $root.Values.rbac.onlyNamespace }}
{{- /* Its own name: the release's own namespace has a RoleBinding serin-controller already. */}}
{{- $_ := set $object.metadata "name" (printf "%s-here" $object.metadata.name) }}
{{- end }}
---
{{ toYaml $object }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The pod of the controller and of its errands: restricted, and told who and where it is. */}}
{{- define "serin.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "serin.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "serin.environment" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- end -}}
