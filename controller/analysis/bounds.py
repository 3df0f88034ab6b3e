"""How much worse, or better, the canary is: an interval for the difference that holds at every look.

It is the e-value of `evidence.py` turned around: every difference on a grid is a hypothesis with a
margin of its own, and the interval is what the data has not spoken against yet. On a grid, so the
ends are rounded outwards, never inwards.
"""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np

from controller.analysis.evidence import Floats, log_e_value_of

_POSITIVE = np.array([0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075])
_LARGE = np.array([0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9])
DIFFERENCES: Floats = np.concatenate([-_LARGE[:3][::-1], -_POSITIVE[::-1], [0.0], _POSITIVE, _LARGE])
"""Canary's bad ratio minus baseline's: the hypotheses, rising."""
_FACTORS = np.array([2.0, 10.0])

# Axes: side (is the difference at most d, at least d), difference, factor. Where d is negative the arms
# change places, so that the margin is never negative. Of all this nothing changes from interval to interval.
_swapped = DIFFERENCES < 0
_rising = np.stack([~_swapped, _swapped])
_R = np.where(_rising[:, :, None], _FACTORS, 1.0 / _FACTORS)
_LOG_R, _RAISED = np.log(_R), _R - 1.0
_OWN = np.broadcast_to(_swapped[None, :, None], _R.shape).astype(np.intp, order="C")
_OTHER = 1 - _OWN
"""Which arm a hypothesis is about, and which it is compared with: 0 the canary, 1 the baseline."""
_SLACK = np.broadcast_to(np.abs(DIFFERENCES)[None, :, None], _R.shape).copy()
_START = np.full(_R.shape, -np.log(len(_FACTORS)))


def begin() -> Floats:
    """Nothing is spoken against. Shape (2, differences, factors), natural logarithms."""
    return _START


def update(seen: Floats, n_c: float, e_c: float, n_b: float, e_b: float, *, phi: Any) -> Floats:
    """Take in one interval with requests on both arms; `phi` as for the evidence."""
    if n_c <= 0 or n_b <= 0:
        return seen
    requests, bad = np.array([n_c, n_b]), np.array([e_c, e_b])
    own, own_bad = requests[_OWN], bad[_OWN]
    other, other_bad = requests[_OTHER], bad[_OTHER]
    gain = log_e_value_of(own, own_bad, other, other_bad, log_r=_LOG_R, rho=1.0, raised=_RAISED, slack=_SLACK)
    moved: Floats = seen + gain / phi
    return moved


def interval(seen: Floats, *, alpha: float) -> tuple[float, float]:
    """The differences not spoken against yet, as fractions of requests, within -1 and 1.

    Args: alpha: inside (0, 1); the chance that the interval ever misses, for independent requests
        and a difference that stays; both ends and all looks together.
    By inversion of the test in `evidence.py`. Coverage: tests/statistics/test_bounds.py.

    >>> seen = begin()
    >>> for _ in range(20): seen = update(seen, 500, 25, 9500, 10, phi=1.0)
    >>> interval(seen, alpha=0.05)
    (0.03, 0.075)
    """
    against = np.logaddexp(seen[..., 0], seen[..., 1]) >= math.log(2.0 / alpha)
    low = DIFFERENCES[against[0]]
    high = DIFFERENCES[against[1]]
    return (float(low.max()) if low.size else -1.0, float(high.min()) if high.size else 1.0)


def dump(seen: Floats) -> str:
    """Base64 of little-endian float16: what is shown needs no more."""
    return base64.b64encode(np.clip(seen, -6e4, 6e4).astype("<f2").tobytes()).decode()


def load(text: str) -> Floats:
    """The inverse of `dump`; what another version wrote on another grid begins anew."""
    values = np.frombuffer(base64.b64decode(text), dtype="<f2").astype(np.float64)
    return values.reshape(_R.shape) if values.size == _R.size else begin()
