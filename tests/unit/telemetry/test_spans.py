"""The trace of a rollout, rendered and sent to a real OTLP endpoint."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from controller.model.status import Judged, Outcome, Phase, StepSeen
from controller.ports import Ref
from controller.rollout.moves import Become
from controller.telemetry.spans import Traces, render_spans
from tests.builders import MINUTE, NOON, attempt, status

REF = Ref("shop", "checkout", "uid-1")
BEGAN = NOON - 10 * MINUTE
ENDED = attempt(
    started_at=BEGAN,
    sealed_at=NOON,
    outcome=Outcome.ROLLED_BACK,
    outcome_message="MARKER: text that a person wrote",
    seconds_to_relief=1.5,
    steps_seen=(
        StepSeen(0, 10, BEGAN + MINUTE),
        StepSeen(0, 10, BEGAN + 4 * MINUTE),
        StepSeen(1, 50, BEGAN + 6 * MINUTE),
    ),
    retreats=(Judged(at=BEGAN + 3 * MINUTE, verdict="inconclusive", reason="ErrorsHigh"),),
)


def test_the_stretches_of_a_rollout_cover_it_without_a_gap() -> None:
    whole, *stretches = render_spans(REF, ENDED)

    assert [one.name for one in stretches] == ["prepare", "step", "retreat", "step", "step"]
    assert whole.begin == stretches[0].begin
    assert [one.begin for one in stretches[1:]] == [one.end for one in stretches[:-1]]
    assert stretches[-1].end == whole.end
    assert {one.parent for one in stretches} == {whole.id}


def test_only_what_went_badly_is_an_error() -> None:
    good, *_ = render_spans(REF, attempt(sealed_at=NOON, outcome=Outcome.PROMOTED))
    bad, *stretches = render_spans(REF, ENDED)

    assert (good.failed, bad.failed) == (False, True)
    assert [one.name for one in stretches if one.failed] == ["retreat"]


def test_a_rollout_that_has_not_ended_has_no_trace() -> None:
    with pytest.raises(ValueError, match="has not ended"):
        render_spans(REF, attempt())


def test_a_rollout_told_twice_is_the_same_trace() -> None:
    assert render_spans(REF, ENDED) == render_spans(REF, ENDED)
    assert render_spans(REF, ENDED)[0].id != render_spans(Ref("shop", "checkout", "uid-2"), ENDED)[0].id


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ExportTraceServiceRequest]]:
    """What an OTLP endpoint on this machine is sent."""
    requests: list[ExportTraceServiceRequest] = []

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            requests.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield requests
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_end_of_a_rollout_reaches_the_endpoint_as_one_trace(received: list[ExportTraceServiceRequest]) -> None:
    traces = Traces("0.0.1")

    traces.decided(REF, status(), Become(status(Phase.ROLLING_BACK, attempt=ENDED), "TrafficOnStable"))
    again = status(Phase.ROLLING_BACK, attempt=ENDED)
    traces.decided(REF, again, Become(again.but(phase=Phase.ROLLED_BACK), "RolledBack"))
    traces.close()

    spans = [
        span for one in received for group in one.resource_spans for scope in group.scope_spans for span in scope.spans
    ]
    assert [span.name for span in spans] == ["rollout", "prepare", "step", "retreat", "step", "step"]
    assert len({span.trace_id for span in spans}) == 1
    assert {span.parent_span_id for span in spans[1:]} == {spans[0].span_id}
    assert spans[0].end_time_unix_nano - spans[0].start_time_unix_nano == timedelta(minutes=10).total_seconds() * 1e9
    facts = {one.key: one.value for one in spans[0].attributes}
    assert facts["serin.outcome"].string_value == "RolledBack"
    assert facts["serin.relief_seconds"].double_value == 1.5
    assert not any(b"MARKER" in one.SerializeToString() for one in received)
