"""The local cluster's command line.

python -m tests.cluster run -- CMD...    a cluster for the time of one command; its exit status is the command's
python -m tests.cluster up               a cluster that stays, state and logs in build/cluster/
python -m tests.cluster shell -- CMD...  run a command inside that one
python -m tests.cluster env              print what `shell` sets
python -m tests.cluster down             end it
python -m tests.cluster tools            build the tools and do nothing else

With --older before the first word, the API server offers no MutatingAdmissionPolicy, as before Kubernetes 1.36.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.cluster import namespace, tools
from tests.cluster.cluster import BootFailed, Cluster, boot
from tests.cluster.podrunner import CHECKOUT

BUILD = CHECKOUT / "build"
LONG_LIVED = BUILD / "cluster"
# Several clusters at a time do not write over each other's.
KEPT_LOGS = Path(os.environ.get("SERIN_KEEP_LOGS") or BUILD / "cluster-logs")
PATIENCE = 15.0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--older", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("do", choices=("run", "up", "down", "shell", "env", "tools", "inside"))
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    try:
        match args.do:
            case "run":
                return run(command or [os.environ.get("SHELL", "/bin/sh")], older=args.older)
            case "up":
                return up(older=args.older)
            case "down":
                return down()
            case "shell":
                return shell(command or [os.environ.get("SHELL", "/bin/sh")])
            case "env":
                return print_env()
            case "tools":
                tools.ensure()
                return 0
            case _:
                return inside(command, older=args.older)
    except (tools.ToolsUnavailable, namespace.NamespacesForbidden, BootFailed) as error:
        print(f"tests.cluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


# --- one-shot ---


def run(command: list[str], *, older: bool) -> int:
    """Start the namespace and hold its leash until the command has ended or somebody interrupts us."""
    namespace.require()
    tools.ensure()
    leash, held = os.pipe()
    ours = [*_ours(older), str(namespace.STATE), str(leash), *command]
    child = subprocess.Popen(
        [*namespace.UNSHARE, *ours],
        pass_fds=(leash,),
        env=os.environ | {"PYTHONPATH": str(CHECKOUT), "SERIN_CALLED_FROM": os.getcwd()},
        cwd=CHECKOUT,
        preexec_fn=namespace.die_with_parent,
    )
    os.close(leash)
    caught = 0

    def let_go(number: int, _: object) -> None:
        nonlocal caught, held
        caught = caught or number
        if held >= 0:
            os.close(held)
            held = -1

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, let_go)
    while True:
        try:
            code = child.wait(PATIENCE if caught else 0.5)
        except subprocess.TimeoutExpired:
            if caught:
                child.kill()
            continue
        return 128 + caught if caught else code if code >= 0 else 128 - code


def _ours(older: bool) -> list[str]:
    """How the first process of the namespace is called."""
    return [sys.executable, "-m", "tests.cluster", *(["--older"] if older else []), "inside", "--"]


def inside(words: list[str], *, older: bool) -> int:
    """The first process of the namespace: boots, runs the command, and takes everything down by ending."""
    state, leash, command = Path(words[0]), int(words[1]), words[2:]
    namespace.become_init()
    namespace.set_up_network()
    namespace.mount_in_memory()
    try:
        return asyncio.run(_serve(state, leash, command, older))
    except BootFailed as error:
        print(f"tests.cluster: {error}", file=sys.stderr)
        _keep_logs(state)
        return 1


async def _serve(state: Path, leash: int, command: list[str], older: bool) -> int:
    """Boot, then run the command, or wait for ever without one; let go of the leash and all of it ends."""
    loop, let_go = asyncio.get_running_loop(), asyncio.Event()
    if leash >= 0:
        loop.add_reader(leash, let_go.set)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, let_go.set)
    ended = asyncio.create_task(let_go.wait())
    working = asyncio.create_task(_boot_and_run(state, command, let_go, older))
    await asyncio.wait({ended, working}, return_when=asyncio.FIRST_COMPLETED)
    if not working.done():
        loop.remove_reader(leash)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(working, PATIENCE / 2)
        return 130
    code = working.result()
    if code:
        _keep_logs(state)
    return code


async def _boot_and_run(state: Path, command: list[str], let_go: asyncio.Event, older: bool) -> int:
    def say(line: str) -> None:
        print(f"tests.cluster: {line}", file=sys.stderr, flush=True)

    cluster = await boot(state, say, older=older)
    if not command:
        (state / "ready").touch()
        await let_go.wait()
        return 0
    env = os.environ | cluster.env
    process = await asyncio.create_subprocess_exec(*command, env=env, cwd=env.get("SERIN_CALLED_FROM", CHECKOUT))
    waiting = asyncio.create_task(process.wait())
    stopping = asyncio.create_task(let_go.wait())
    await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not waiting.done():
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    code = await waiting
    return code if code >= 0 else 128 - code


def _keep_logs(state: Path) -> None:
    """The state is in memory and goes with us; what explains a failure stays in build/."""
    if state != namespace.STATE:
        return
    shutil.rmtree(KEPT_LOGS, ignore_errors=True)
    shutil.copytree(state / "logs", KEPT_LOGS / "logs")
    shutil.copytree(state / "pods", KEPT_LOGS / "pods", ignore=shutil.ignore_patterns("token"))
    with contextlib.suppress(FileNotFoundError):
        shutil.copy(state / "audit.log", KEPT_LOGS)
    print(f"tests.cluster: logs kept in {KEPT_LOGS}", file=sys.stderr)


# --- long-lived ---


def up(*, older: bool = False) -> int:
    """Start a cluster that outlives this command; nothing to do when there is one."""
    if _first_process():
        print("tests.cluster: already up", file=sys.stderr)
        return 0
    namespace.require()
    tools.ensure()
    shutil.rmtree(LONG_LIVED, ignore_errors=True)
    LONG_LIVED.mkdir(parents=True)
    ours = [*_ours(older), str(LONG_LIVED), "-1"]
    with (LONG_LIVED / "boot.log").open("ab") as log:
        child = subprocess.Popen(
            [*namespace.UNSHARE, *ours],
            env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (LONG_LIVED / "pid").write_text(str(child.pid))
    try:
        while not (LONG_LIVED / "ready").exists():
            if child.poll() is not None:
                raise BootFailed((LONG_LIVED / "boot.log").read_text())
            time.sleep(0.1)
    except BaseException:
        child.kill()
        raise
    return 0


def down() -> int:
    """End the long-lived cluster; nothing to do when there is none."""
    if _first_process():
        pid = int((LONG_LIVED / "pid").read_text())
        os.kill(pid, signal.SIGKILL)
        while _alive(pid):
            time.sleep(0.05)
    shutil.rmtree(LONG_LIVED, ignore_errors=True)
    return 0


def shell(command: list[str]) -> int:
    """Run a command inside the long-lived cluster, with its environment, in the present directory."""
    if (first := _first_process()) is None:
        print("tests.cluster: no cluster is up; start one with: python -m tests.cluster up", file=sys.stderr)
        return 1
    enter = ["nsenter", "--preserve-credentials", "-U", "-n", "-m", "-p", "-t", str(first), f"--wd={os.getcwd()}", "--"]
    return subprocess.run([*enter, *command], env=os.environ | Cluster(LONG_LIVED).env, check=False).returncode


def print_env() -> int:
    """For `eval`: the variables that `shell` sets; the cluster itself is only reachable through `shell`."""
    for name, value in Cluster(LONG_LIVED).env.items():
        print(f"export {name}={json.dumps(value)}")
    return 0


def _first_process() -> int | None:
    """The process id, seen from here, of the long-lived namespace's first process."""
    try:
        pid = int((LONG_LIVED / "pid").read_text())
        mine = str(LONG_LIVED).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, ValueError):
        return None
    return int(children[0]) if mine and children else None


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
