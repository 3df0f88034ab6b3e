"""What is known before a rollout, in sentences: the same in `status`, `plan` and `explain`."""

from __future__ import annotations

from controller.cli.kubectl import Object
from controller.cli.text import percent, plain, span


def render_outlook(outlook: Object) -> list[str]:
    """Traffic and what the steps see with it, relief, noise of pods, and the rehearsal; warnings are not in it.

    >>> steps = [{"weight": 1, "requests": 600, "lasts": 310, "sees": 0.01}, {"weight": 5, "requests": 3000}]
    >>> noise = "assumed: no pod exports counters"
    >>> for line in render_outlook({"rate": 200, "ratio": 0.001, "relief": 15, "noiseFrom": noise, "steps": steps}):
    ...     print(line)
    at 200 requests a second, 0.1 % of them failing: step 1 (1%) sees failures from 1 % on; step 2 (5%) sees nothing
    users are relieved after 15s at best: that is how often the source scrapes
    noise of pods: assumed: no pod exports counters
    """
    lines = []
    if rate := float(outlook.get("rate") or 0.0):
        steps = "; ".join(
            f"step {number} ({percent(float(step.get('weight', 0)))}) sees "
            + (f"failures from {100 * float(step['sees']):g} % on" if step.get("sees") else "nothing")
            for number, step in enumerate(outlook.get("steps") or (), start=1)
        )
        ratio = 100 * float(outlook.get("ratio") or 0.0)
        lines.append(f"at {rate:g} requests a second, {ratio:g} % of them failing: {steps}")
    if relief := float(outlook.get("relief") or 0.0):
        lines.append(f"users are relieved after {span(relief)} at best: that is how often the source scrapes")
    if words := outlook.get("noiseFrom"):
        lines.append(f"noise of pods: {plain(str(words))}")
    for one in outlook.get("bounds") or ():
        bounds = sorted(float(each) for each in (one.get("threshold", 0), *(one.get("also") or ())))
        lines.append(
            f"{plain(str(one.get('metric')))} is compared at {', '.join(f'{1000 * each:g}ms' for each in bounds)}: "
            f"chosen from {float(one.get('requests') or 0):,.0f} requests of stable's"
        )
    if rehearsal := outlook.get("rehearsal"):
        lines.append(plain(str(rehearsal.get("message", ""))))
    return lines


def render_warnings(outlook: Object) -> list[str]:
    """What the plan cannot do."""
    return [plain(str(one)) for one in outlook.get("warnings") or ()]
