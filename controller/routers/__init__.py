"""One file per way to split live traffic, each behind `ports.TrafficRouter`.

`httproute.py` is the thin edge to the API server; `split.py` is the arithmetic on a route, pure and without
dependencies, so that the plugin can take our entries out of a route while no controller runs.
"""
