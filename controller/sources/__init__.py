"""Where metrics come from: one file for each kind of server, behind `ports.MetricSource`.

Fetching stands in `prometheus.py`, its retries with it, and the limits of one answer in `server.py`; `sharing.py` asks
once for many. `templates.py` writes queries and `answers.py` reads what comes back, both pure. No data, odd data and
half an answer are told apart from a failure here, and none of them is ever a zero.
"""
