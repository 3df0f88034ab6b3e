"""The laboratory: how often the judge is wrong and how fast it is right, counted over simulated rollouts.

`worlds.py` makes the noise, `rollouts.py` plays whole rollouts against the judge through its JSON
lines, `peers.py` has the rules of other tools on the same streams, `bench.py` prints the tables and
writes `build/judge.json`, `pictures.py` draws. Settings are chosen in `worlds.SELECTION`; nothing is
tuned for `worlds.HELD_OUT`.
"""
