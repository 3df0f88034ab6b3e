"""One candidate for a Lease, as a process that can be killed: prints `leading TERM`, then a line a second."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from kubernetes.aio.client import Configuration

from controller.kube.credentials import credentials_from, load_credentials
from controller.kube.lease import Election


async def main(namespace: str, name: str, url: str = "") -> None:
    async def floor() -> int:
        return int(os.environ.get("FLOOR", "0"))

    credentials = credentials_from(Configuration(host=url)) if url else await load_credentials()
    identity = f"candidate-{os.getpid()}"
    election = Election(credentials, namespace=namespace, name=name, identity=identity, floor=floor)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print("waiting", flush=True)
    print("leading", await election.acquire(), flush=True)
    await stop.wait()
    await election.release()
    print("released", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
