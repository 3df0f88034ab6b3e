"""What a plan can see, reckoned before it begins: pure arithmetic on the traffic of the last hours.

The formulas are for independent requests and a baseline with far more traffic than the canary; against
the simulated judge they are right within a third. They warn and inform, nothing is
decided by them.
"""

from __future__ import annotations

import math

import msgspec

from controller.analysis.evidence import CERTIFICATE_MARGIN, CERTIFICATE_RHO

SMALLEST = 1e-6
"""A bad ratio below this cannot be told from none."""
FEWEST_BAD = 4.0
"""However large the regression, fewer bad canary requests than this convince nobody."""
WORTH_SEEING = 0.01
"""One request in a hundred: where the baseline hardly fails, ten times its ratio is nothing that anybody wants seen."""
BLIND = 5.0
"""Expected bad canary requests at the ratio that is worth seeing below which a step sees nothing at all."""


class StepOutlook(msgspec.Struct, frozen=True, rename="camel"):
    """What one step can see. Ratios are fractions of requests, durations seconds."""

    weight: float
    requests: float
    """canary requests in the bake"""
    sees: float | None
    """the smallest bad ratio that is convicted within the bake, about; None where not even all requests failing is"""
    bake_for: float
    """seconds this step must last to see ten times the baseline's ratio, at least one request in a hundred"""
    blind: bool
    """not even that shows here"""


class Outlook(msgspec.Struct, frozen=True, rename="camel"):
    """What the whole plan can see."""

    rate: float
    """requests a second, over both arms"""
    ratio: float
    """the baseline's bad ratio"""
    relief: float
    """seconds in which users can be relieved at best: one scrape"""
    steps: tuple[StepOutlook, ...]
    to_certify: float
    """canary requests that a certificate takes"""
    warnings: tuple[str, ...]


def to_convict(canary: float, baseline: float, *, margin: float, rho: float, alpha: float) -> float:
    """Canary requests until a canary with bad ratio `canary` is convicted, about; infinite within the margin.

    >>> round(to_convict(0.01, 0.001, margin=0.0001, rho=1.25, alpha=0.01))
    616
    """
    allowed = rho * max(baseline, SMALLEST) + margin
    if canary <= allowed:
        return math.inf
    gain = canary * math.log(canary / allowed) - canary + allowed
    return max((2.4 - math.log(alpha)) / gain, FEWEST_BAD / canary)


def to_certify(baseline: float, *, margin: float, rho: float, missing: float) -> float:
    """Canary requests until a canary as good as the baseline is certified, about; `missing` in nats of evidence.

    >>> round(to_certify(0.001, margin=0.001, rho=1.5, missing=3.0), -2)
    6900.0
    """
    ratio = max(baseline, SMALLEST)
    allowed = rho * ratio + margin
    return (max(missing, 0.0) + 1.0) / (allowed - ratio + ratio * math.log(ratio / allowed))


def outlook(
    steps: list[tuple[float, float]],
    *,
    rate: float,
    ratio: float,
    margin: float = 0.0001,
    rho: float = 1.25,
    alpha: float = 0.01,
    scrape: float = 5.0,
    beta: float = 0.05,
) -> Outlook:
    """What each of `steps` (percent, seconds) can see with `rate` requests a second of which `ratio` are bad."""
    ratio = max(ratio, SMALLEST)
    worth = min(max(10 * ratio, WORTH_SEEING), 1.0)
    needed = to_convict(min(worth + margin, 1.0), ratio, margin=margin, rho=rho, alpha=alpha)
    seen, warnings = [], []
    for number, (weight, bake) in enumerate(steps, start=1):
        a_second = rate * weight / 100
        requests = a_second * bake
        blind = requests * worth < BLIND and requests < needed
        sees = _smallest(requests, ratio, margin=margin, rho=rho, alpha=alpha)
        bake_for = needed / a_second if a_second else math.inf
        seen.append(StepOutlook(weight, round(requests), sees, round(min(bake_for, 1e9)), blind))
        if blind:
            shows = (
                "not even all of them failing shows"
                if sees is None
                else f"nothing below {_percent(sees)} failing shows"
            )
            warnings.append(
                f"step {number} ({weight:g} % for {_words(bake)}) gets about {requests:,.0f} canary requests, in which "
                f"{shows}{_of_stable(ratio)}: to see {_percent(worth)}, let it last {_words(bake_for)} "
                "or raise its weight"
            )
    wide = max(CERTIFICATE_MARGIN, 2.0 * margin)
    certify = to_certify(ratio, margin=wide, rho=CERTIFICATE_RHO, missing=-math.log(beta))
    whole = sum(one.requests for one in seen)
    if whole < certify:
        warnings.append(
            f"the whole plan gets about {whole:,.0f} canary requests and the certificate for promotion takes about "
            f"{certify:,.0f}: the last step will hold until it has them"
        )
    if scrape > 5.0:
        warnings.append(f"users are relieved after one scrape at best, and this source scrapes every {scrape:g} s")
    return Outlook(rate, ratio, scrape, tuple(seen), round(certify), tuple(warnings))


def _smallest(requests: float, ratio: float, *, margin: float, rho: float, alpha: float) -> float | None:
    """The smallest bad ratio that so many requests convict, by halving; to two digits."""

    def enough(canary: float) -> bool:
        return to_convict(canary, ratio, margin=margin, rho=rho, alpha=alpha) <= requests

    low, high = rho * ratio + margin, 1.0
    if not enough(high):
        return None
    for _ in range(30):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return float(f"{high:.2g}")


def _of_stable(ratio: float) -> str:
    """What users meet without the canary; nothing of a stable that hardly fails."""
    return f" (of stable's {_percent(ratio)} fail)" if 10 * ratio >= WORTH_SEEING else ""


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.2g} %" if ratio < 0.995 else "100 %"


def _words(seconds: float) -> str:
    if not math.isfinite(seconds) or seconds > 7 * 86400:
        return "longer than a week"
    if seconds >= 3 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
