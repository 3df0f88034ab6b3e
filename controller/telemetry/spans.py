"""A rollout as a trace: one span for the attempt, one below it for each stretch between two changes of traffic.

The one thing to know: a rollout outlives processes, so no span is ever open. The whole trace is rendered from the
status at the moment the attempt ends, with identifiers derived from the attempt: a trace told twice, by two leaders,
is the same trace. Needs the extra `otel`, and `OTEL_EXPORTER_OTLP_ENDPOINT` as OpenTelemetry documents it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog

from controller.model.status import Attempt, Outcome, Status
from controller.ports import Ref
from controller.rollout.moves import Become, Decision
from controller.telemetry.metrics import ends

log = structlog.get_logger()

ENDED_BADLY = frozenset({Outcome.ROLLED_BACK, Outcome.ABORTED, Outcome.REJECTED})


@dataclass(frozen=True)
class Span:
    """One stretch of time. `parent` is empty for the attempt itself."""

    name: str
    id: int
    parent: int | None
    begin: datetime
    end: datetime
    failed: bool = False
    facts: dict[str, str | float] = field(default_factory=dict)


def render_spans(ref: Ref, attempt: Attempt) -> tuple[Span, ...]:
    """The trace of an attempt that has ended: itself first, then its stretches in order of time.

    Raises: ValueError: it has not ended.
    """
    if attempt.sealed_at is None or attempt.outcome is None:
        raise ValueError(f"attempt {attempt.id} has not ended")
    failed = attempt.outcome in ENDED_BADLY
    facts: dict[str, str | float] = {
        "serin.namespace": ref.namespace,
        "serin.canary": ref.name,
        "serin.attempt": attempt.id,
        "serin.origin": attempt.origin,
        "serin.outcome": attempt.outcome.value,
        "serin.canary_requests": attempt.canary_requests,
        "serin.canary_errors": attempt.canary_errors,
    }
    if attempt.seconds_to_relief is not None:
        facts["serin.relief_seconds"] = attempt.seconds_to_relief
    whole = Span("rollout", _id(ref, attempt, "rollout"), None, attempt.started_at, attempt.sealed_at, failed, facts)
    changes: list[tuple[datetime, str, dict[str, str | float]]] = [(attempt.started_at, "prepare", {})]
    changes += [
        (seen.at, "step", {"serin.step": seen.step, "serin.weight": seen.weight}) for seen in attempt.steps_seen
    ]
    changes += [(judged.at, "retreat", {"serin.reason": judged.reason}) for judged in attempt.retreats]
    changes.sort(key=lambda change: change[0])
    stretches = []
    for number, (begin, name, about) in enumerate(changes):
        end = changes[number + 1][0] if number + 1 < len(changes) else attempt.sealed_at
        made = Span(name, _id(ref, attempt, f"{number}"), whole.id, begin, max(begin, end), name == "retreat", about)
        stretches.append(made)
    return (whole, *stretches)


def trace_id(ref: Ref, attempt: Attempt) -> int:
    """128 bits that are the same in every process."""
    return int.from_bytes(hashlib.sha256(f"{ref.uid}/{attempt.id}".encode()).digest()[:16])


def _id(ref: Ref, attempt: Attempt, part: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{ref.uid}/{attempt.id}/{part}".encode()).digest()[:8])


class Traces:
    """Hands traces to an OTLP endpoint from a thread with a bounded queue: what does not fit is dropped."""

    def __init__(self, version: str) -> None:
        """Raises `ImportError`: the extra `otel` is not installed."""
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._processor = BatchSpanProcessor(OTLPSpanExporter())
        self._resource = Resource.create({"service.name": "serin-controller", "service.version": version})

    def decided(self, ref: Ref, before: Status, decision: Decision) -> None:
        """Tell the trace of an attempt once it has ended. Never raises, never waits."""
        if not isinstance(decision, Become) or decision.status.attempt is None:
            return
        attempt = decision.status.attempt
        if not ends(before, attempt):
            return
        for span in render_spans(ref, attempt):
            self._processor.on_end(self._readable(span, trace_id(ref, attempt)))

    def _readable(self, span: Span, trace: int) -> Any:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

        def context(number: int) -> SpanContext:
            return SpanContext(trace, number, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

        return ReadableSpan(
            name=span.name,
            context=context(span.id),
            parent=None if span.parent is None else context(span.parent),
            resource=self._resource,
            attributes=span.facts,
            status=Status(StatusCode.ERROR if span.failed else StatusCode.OK),
            start_time=_nanoseconds(span.begin),
            end_time=_nanoseconds(span.end),
        )

    def close(self) -> None:
        """Send what is left, for as long as a shutdown may take."""
        self._processor.force_flush(2000)
        self._processor.shutdown()


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1e6) * 1000
