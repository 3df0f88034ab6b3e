"""What is known of a service before a rollout begins: what each step can see, and how its pods differ.

Reckoned from recent traffic, once for each edit of the Canary and once for each attempt; the attempt's noise of pods
is read from here, so a new leader reckons with the same.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from controller.model.value import Value

Short = Annotated[str, Meta(max_length=63)]
Text = Annotated[str, Meta(max_length=1024)]
Count = Annotated[int, Meta(ge=0)]


class Sight(Value, frozen=True):
    """What one step can see."""

    weight: Annotated[float, Meta(ge=0, le=100)]
    requests: float
    """canary requests in the bake"""
    lasts: float
    """seconds it must last to see ten times stable's ratio, at least one request in a hundred"""
    sees: float | None = None
    """the smallest ratio of failed requests that is convicted within the bake; absent where none is"""
    blind: bool = False
    """not even that shows here"""


class Bounds(Value, frozen=True):
    """The bounds at which a latency without a threshold is compared."""

    metric: Short
    threshold: float
    """seconds; the one that is shown: the first that no more than one in a hundred requests of stable's exceeded"""
    also: Annotated[tuple[float, ...], Meta(max_length=5)] = ()
    requests: float = 0.0
    """of stable's that they were chosen from"""


class Rehearsal(Value, frozen=True):
    """The judge played over stable pods alone, so that every alarm was a false one."""

    rollouts: Count
    retreated: Count = 0
    rolled_back: Count = 0
    message: Text = ""
    """what it comes to, and settings to write where they are proposed"""


class Outlook(Value, frozen=True):
    """Before a rollout: its traffic, its steps, its pods."""

    at: datetime
    generation: Count = 0
    """of the Canary whose plan this is about"""
    attempt: Short = ""
    """whose plan this is about; empty while none has begun"""
    rate: float = 0.0
    """requests a second to both arms, lately"""
    ratio: float = 0.0
    """of them failed on stable"""
    relief: float = 0.0
    """seconds in which users can be relieved at best: one scrape"""
    certify: float = 0.0
    """canary requests that the certificate for promotion takes, about"""
    steps: Annotated[tuple[Sight, ...], Meta(max_length=60)] = ()
    warnings: Annotated[tuple[Text, ...], Meta(max_length=64)] = ()
    noise: Annotated[tuple[float, ...], Meta(max_length=3)] = ()
    """of pods, over short and long blocks, in CV^2 seconds, and bursts a pod-second; empty where it is assumed"""
    noise_from: Text = ""
    """where the noise comes from, in words"""
    bounds: Annotated[tuple[Bounds, ...], Meta(max_length=16)] = ()
    """of latencies without a threshold, as stable's past suggests them"""
    rehearsal: Rehearsal | None = None
