{{/*
Values that the schema lets through and that could not work, each with what was found and what to write. The schema
says it where a type, a bound or a choice is enough; where it would print a regular expression, it is said here.
*/}}

{{- define "serin.refused" -}}
{{- $said := list -}}
{{- $address := "write an address that begins with http:// or https://, without a login in it, such as http://prometheus.monitoring:9090" -}}
{{- with .Values.image.tag -}}
{{- if not (regexMatch "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$" .) -}}
{{- $said = append $said (printf "image.tag: found %q: write a tag such as 1.2.3; a digest goes into image.digest, the name into image.repository" .) -}}
{{- end -}}
{{- end -}}
{{- with .Values.image.digest -}}
{{- if not (regexMatch "^sha256:[0-9a-f]{64}$" .) -}}
{{- $said = append $said (printf "image.digest: found %q: write sha256: and its 64 digits of 0-9 and a-f" .) -}}
{{- end -}}
{{- end -}}
{{- range $part, $amounts := .Values.resources -}}
{{- range $what, $amount := $amounts -}}
{{- if not (regexMatch "^[0-9]+(\\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti|e[0-9]+)?$" (toString $amount)) -}}
{{- $said = append $said (printf "resources.%s.%s: found %q: write an amount such as 100m for cpu, or 512Mi for memory" $part $what (toString $amount)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.metrics.url -}}
{{- if not (regexMatch "^https?://[^\\s@]+$" .) -}}
{{- $said = append $said (printf "metrics.url: found %q: %s" . $address) -}}
{{- end -}}
{{- end -}}
{{- range tuple "url" "scrapeInterval" -}}
{{- if hasKey $.Values.metrics.spec . -}}
{{- $said = append $said (printf "metrics.spec.%s: write it as metrics.%s" . .) -}}
{{- end -}}
{{- end -}}
{{- with .Values.metrics.spec.timeout -}}
{{- if not (regexMatch "^([1-9]|[12][0-9]|30)s$" (toString .)) -}}
{{- $said = append $said (printf "metrics.spec.timeout: found %q: write a duration from 1s to 30s" (toString .)) -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := .Values.metrics.spec.headers -}}
{{- if not (regexMatch "^[-_A-Za-z0-9]+$" $name) -}}
{{- $said = append $said (printf "metrics.spec.headers: found %q: write the name of a header, such as X-Scope-OrgID" $name) -}}
{{- end -}}
{{- end -}}
{{- with .Values.metrics.spec.credentials -}}
{{- if eq (hasKey . "bearerToken") (hasKey . "basicAuth") -}}
{{- $said = append $said "metrics.spec.credentials: write exactly one of bearerToken and basicAuth" -}}
{{- end -}}
{{- end -}}
{{- range $field, $_ := .Values.metrics.spec -}}
{{- if not (has $field (list "credentials" "gauges" "headers" "namespaces" "scrapeInterval" "templates" "timeout" "tls" "url")) -}}
{{- $said = append $said (printf "metrics.spec.%s: a MetricsSource has credentials, gauges, headers, namespaces, templates, timeout and tls" $field) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.metrics.spec (not .Values.metrics.url) -}}
{{- $said = append $said "metrics.spec: found without metrics.url, and then no MetricsSource is made: write that too" -}}
{{- end -}}
{{- with .Values.observability.traces.endpoint -}}
{{- if not (regexMatch "^https?://[^\\s@]+$" .) -}}
{{- $said = append $said (printf "observability.traces.endpoint: found %q: %s" . $address) -}}
{{- end -}}
{{- end -}}
{{- with .Values.metrics.scrapeInterval -}}
{{- $minutes := regexFind "^[0-9]+m" . | trimSuffix "m" | default "0" | int -}}
{{- $seconds := regexFind "[0-9]+s$" . | trimSuffix "s" | default "0" | int -}}
{{- $all := add (mul 60 $minutes) $seconds -}}
{{- if or (not (regexMatch "^([0-9]{1,3}m)?([0-9]{1,3}s)?$" .)) (lt $all 1) (gt $all 300) -}}
{{- $said = append $said (printf "metrics.scrapeInterval: found %q: write a duration from 1s to 5m, such as 15s or 1m" .) -}}
{{- end -}}
{{- end -}}
{{- with .Values.observability.serviceMonitor.interval -}}
{{- if not (regexMatch "^[0-9]+(s|m)$" .) -}}
{{- $said = append $said (printf "observability.serviceMonitor.interval: found %q: write a duration such as 30s or 1m" .) -}}
{{- end -}}
{{- end -}}
{{- $namespace := "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" -}}
{{- range $name := append (.Values.rbac.namespaces | default list) .Values.rbac.onlyNamespace -}}
{{- if and $name (not (regexMatch $namespace $name)) -}}
{{- $said = append $said (printf "rbac: found the namespace %q: write names of a-z, 0-9 and '-', as kubectl get namespaces shows them" $name) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.rbac.onlyNamespace .Values.rbac.namespaces -}}
{{- $said = append $said "rbac: found onlyNamespace and namespaces: write one of them; onlyNamespace is for a Serin that sees one namespace, namespaces for one that sees all and writes in some" -}}
{{- end -}}
{{- if and (eq .Values.hold.failurePolicy "Fail") (not .Values.hold.namespaceSelector) -}}
{{- $said = append $said "hold.failurePolicy: found Fail without hold.namespaceSelector: write which namespaces, such as matchLabels: {serin.dev/held: \"true\"}; without it every update of every Deployment could be refused" -}}
{{- end -}}
{{- range .Values.protection.agents -}}
{{- if not (regexMatch "^[A-Za-z0-9:._@/-]+$" .) -}}
{{- $said = append $said (printf "protection.agents: found %q: write the name of a group, such as system:serviceaccounts:agents" .) -}}
{{- end -}}
{{- end -}}
{{- range $list := list "registries" "insecureRegistries" "unaskedRegistries" -}}
{{- range $host := index $.Values.attestations $list -}}
{{- if not (regexMatch "^[A-Za-z0-9.-]+(:[0-9]+)?$" $host) -}}
{{- $said = append $said (printf "attestations.%s: found %q: write the host alone, such as ghcr.io or registry.example:5000" $list $host) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if has (int .Values.observability.debugPort) (list 8080 8081) -}}
{{- $said = append $said (printf "observability.debugPort: found %d, where metrics and probes are served: write another port" (int .Values.observability.debugPort)) -}}
{{- end -}}
{{- if $said -}}
{{- fail (printf "these values cannot work:\n  %s\n" (join "\n  " $said)) -}}
{{- end -}}
{{- end -}}
