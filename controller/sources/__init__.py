"""Where metrics come from: one file for each kind of server, behind `ports.MetricSource`.

Fetching stands in `prometheus.py`, its retries and limits with it; `templates.py` writes queries and
`answers.py` reads what comes back, both pure. No data, odd data and half an answer are told apart
from a failure here, and none of them is ever a zero.
"""
