"""A page for whoever debugs the process itself: what each task waits for, what is queued, how old the watches are.

Off unless `--debug-port` is given, and then on loopback only: reach it with `kubectl port-forward`.
"""

from __future__ import annotations

import asyncio
import io
import json

from aiohttp import web

from controller.telemetry.metrics import Inside

LOOPBACK = "127.0.0.1"


async def serve_debug(port: int, inside: Inside) -> web.AppRunner:
    """Serve `/debug/tasks` and `/debug/state` on loopback."""

    async def tasks(request: web.Request) -> web.Response:
        out = io.StringIO()
        for task in sorted(asyncio.all_tasks(), key=lambda task: task.get_name()):
            out.write(f"{task.get_name()}\n")
            task.print_stack(file=out)
            out.write("\n")
        return web.Response(text=out.getvalue())

    async def state(request: web.Request) -> web.Response:
        seen = {
            "leaseLeftSeconds": round(inside.lease_left(), 3),
            "queued": inside.queued(),
            "watchAgeSeconds": {resource: round(age, 3) for resource, age, _ in inside.watches()},
            "canaries": {f"{one.namespace}/{one.name}": one.status.get("phase", "") for one in inside.canaries()},
        }
        return web.Response(text=json.dumps(seen, indent=1) + "\n", content_type="application/json")

    app = web.Application()
    app.router.add_get("/debug/tasks", tasks)
    app.router.add_get("/debug/state", state)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, LOOPBACK, port).start()
    return runner
