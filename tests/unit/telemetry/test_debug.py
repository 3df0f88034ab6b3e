"""The page for debugging is on loopback, and only there."""

from __future__ import annotations

import socket

import aiohttp
import pytest

from controller.app import parser
from controller.telemetry.debug import serve_debug
from controller.telemetry.metrics import Inside, Shown


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_it_is_off_unless_asked_for() -> None:
    assert parser().parse_args([]).debug_port == 0


async def test_it_answers_on_loopback_and_on_no_other_address() -> None:
    port = free_port()
    runner = await serve_debug(port, Inside(canaries=lambda: [Shown("shop", "checkout", {"phase": "Idle"})]))
    try:
        assert {address[0] for address in runner.addresses} == {"127.0.0.1"}
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            async with session.get("/debug/state") as answer:
                assert (await answer.json())["canaries"] == {"shop/checkout": "Idle"}
            async with session.get("/debug/tasks") as answer:
                assert "test_it_answers_on_loopback" in await answer.text()
    finally:
        await runner.cleanup()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
