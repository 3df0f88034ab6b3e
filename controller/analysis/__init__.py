"""Pure comparison of canary and baseline: samples in, verdict out. Read `judge.py` first.

`increments.py` turns raw counters into disjoint intervals, `evidence.py` turns intervals into
e-values and `judge.py` turns those into a verdict. Nothing here knows a clock or a network.

Why e-values and not p-values: the question is asked at every scrape, for as long as a rollout
lasts, while the traffic share changes. A test that is valid once is wrong in a quarter of the
harmless rollouts when it is repeated like that. Turned down for the same reason: pooled z-tests
and mSPRT (Simpson's paradox under changing weights), Mann-Whitney on one-minute points.
"""
