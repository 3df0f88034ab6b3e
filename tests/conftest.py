"""How many inputs each law is tried on; none of them is timed, for how fast the machine is that day is no property.

`make test` tries the same inputs every time, so that it judges the change and not the draw; `make fuzz` draws new ones.
"""

from hypothesis import HealthCheck, settings

settings.register_profile("check", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fuzz", settings.get_profile("check"), derandomize=False, max_examples=20_000)
settings.load_profile("check")
