"""The API server: transport, informer, queue, lease, events. Knows resources, not what they are for.

Built on the connection and login of `kubernetes.aio` only. Turned down, after measuring: its informer (no
backoff, no custom resources), its leader election (works on past its lease, no fencing term), its models
(100 times the time and ten times the memory of typed structs).
"""
