"""kubectl as transport: raw requests out, plain dicts in.

`--raw` needs no discovery, so one request is one round trip. Reads start together and are collected in
order: kubectl's start-up is the larger part of the wait.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

Object = dict[str, Any]

API = "/apis/serin.dev/v1alpha1"
CORE, APPS, GATEWAY = "/api/v1", "/apis/apps/v1", "/apis/gateway.networking.k8s.io/v1"
LEASES, RBAC = "/apis/coordination.k8s.io/v1", "/apis/rbac.authorization.k8s.io/v1"
_SERVER_SAYS = re.compile(r"Error from server \((\w+)\): ")
_UNREACHABLE = re.compile(r"The connection to the server|Unable to connect to the server|dial tcp |Client\.Timeout")
"""kubectl's own words where no answer came"""
_OF_KUBECTL = re.compile(r"Warning:|[IWEF]\d{4} \d\d:")
"""begins lines that are about kubectl's work and not about what was asked"""
_TEST_FAILED = re.compile(r"rejected our request due to an error in our request|testing (value|path) .* failed")
_POLICY_SAYS = re.compile(r".*ValidatingAdmissionPolicy '[^']*' with binding '[^']*' denied request: ", re.DOTALL)


class Failure(Exception):
    """The command cannot go on; the text tells the person why and what to do."""


class Missing(Failure):
    """The object does not exist."""


class UnknownKind(Missing):
    """The API server has no such kind, so nothing is known of the object."""


class Unreachable(Failure):
    """Nobody answered: that says nothing of objects or rights, and the next question would fare no better."""


class Denied(Failure):
    """The user lacks the right."""


class Stale(Failure):
    """The object changed between reading and writing."""


class Cluster(Protocol):
    """What the commands ask of a cluster."""

    def read(self, path: str) -> Object:
        """One object or list. Raises: Missing, Denied, Failure."""

    def read_all(self, *paths: str) -> list[Object | Failure]:
        """Several at once, in order; a failure stands in its place. Raises: Unreachable, once for all of them."""

    def create(self, path: str, body: Object) -> Object:
        """The object as it was stored. Raises: Denied, Failure with the server's reason."""

    def dry_run(self, body: Object) -> Object:
        """The object as the API server would store it. Raises: Denied, Failure with the server's reason."""

    def patch(self, kind: str, namespace: str, name: str, ops: list[Object]) -> None:
        """Apply a JSON patch. Raises: Stale when one of its tests fails, Missing, Denied, Failure."""

    def delete(self, path: str) -> None:
        """Delete one object; that it is gone already is no error."""

    def watch(self, path: str) -> Iterator[Object]:
        """Events of a watch until the server ends it. Raises: Denied, Failure."""

    def whoami(self) -> tuple[str, tuple[str, ...]]:
        """The name and the groups the API server knows the user by."""

    def namespace(self) -> str:
        """The namespace of the current context."""


@dataclass(frozen=True)
class Kubectl:
    """A cluster behind the kubectl on PATH; `flags` choose context and user."""

    flags: tuple[str, ...] = ()
    binary: str = "kubectl"

    def read(self, path: str) -> Object:
        return self._finish(self._start("get", "--raw", path))

    def read_all(self, *paths: str) -> list[Object | Failure]:
        started = [self._start("get", "--raw", path) for path in paths]
        answers: list[Object | Failure] = []
        for process in started:
            try:
                answers.append(self._finish(process))
            except Failure as failure:
                answers.append(failure)
        for answer in answers:
            if isinstance(answer, Unreachable):
                raise answer
        return answers

    def create(self, path: str, body: Object) -> Object:
        return self._finish(self._start("create", "--raw", path, "-f", "-", stdin=True), body)

    def dry_run(self, body: Object) -> Object:
        words = (
            "apply",
            "--server-side",
            "--dry-run=server",
            "--force-conflicts",
            "--field-manager=kubectl-canary-plan",
        )
        return self._finish(self._start(*words, "-f", "-", "-o", "json", stdin=True), body)

    def patch(self, kind: str, namespace: str, name: str, ops: list[Object]) -> None:
        words = ("patch", kind, name, "-n", namespace, "--type=json", "--patch-file=/dev/stdin")
        self._finish(self._start(*words, "--field-manager=serin", "-o", "json", stdin=True), ops)

    def delete(self, path: str) -> None:
        try:
            self._finish(self._start("delete", "--raw", path))
        except Missing:
            return

    def watch(self, path: str) -> Iterator[Object]:
        process = self._start("get", "--raw", path)
        try:
            assert process.stdout is not None
            for line in process.stdout:
                yield json.loads(line)
            self._finish(process, text="")
        finally:
            process.kill()
            process.wait()

    def whoami(self) -> tuple[str, tuple[str, ...]]:
        answer = self._finish(self._start("auth", "whoami", "-o", "json"))
        user = answer.get("status", {}).get("userInfo", {})
        name = user.get("username", "")
        if not name:
            raise Failure("the API server does not say who you are: see `kubectl auth whoami`")
        return str(name), tuple(map(str, user.get("groups") or ()))

    def namespace(self) -> str:
        process = self._start("config", "view", "--minify", "-o", "json")
        try:
            config = self._finish(process)
        except Failure:
            return "default"
        contexts = config.get("contexts") or [{}]
        return str(contexts[0].get("context", {}).get("namespace") or "default")

    def _start(self, *words: str, stdin: bool = False) -> subprocess.Popen[str]:
        try:
            return subprocess.Popen(
                [self.binary, *words, *self.flags],
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            raise Failure(f"cannot start {self.binary}: {error.strerror}; install kubectl or set KUBECTL") from error

    def _finish(
        self, process: subprocess.Popen[str], body: Object | list[Object] | None = None, *, text: str | None = None
    ) -> Object:
        out, complaint = process.communicate(None if body is None else json.dumps(body))
        if process.returncode != 0:
            raise failure_from(complaint)
        try:
            answer = json.loads(out if text is None else "{}")
        except ValueError as error:
            raise Failure(f"kubectl answered something that is not JSON: {out[:200]}") from error
        return answer if isinstance(answer, dict) else {}


def from_environment(flags: tuple[str, ...]) -> Kubectl:
    """The kubectl that `KUBECTL` names, else the one on PATH."""
    return Kubectl(flags, os.environ.get("KUBECTL") or "kubectl")


def failure_from(complaint: str) -> Failure:
    """What kubectl wrote to stderr, as the failure it means.

    >>> failure_from('Error from server (NotFound): canaries.serin.dev "cart" not found')
    Missing('canaries.serin.dev "cart" not found')
    """
    text = "\n".join(line for line in complaint.strip().splitlines() if not _OF_KUBECTL.match(line))
    text = text or complaint.strip() or "kubectl failed without a word"
    said = _SERVER_SAYS.search(text)
    reason = said.group(1) if said else ""
    text = text[said.end() :] if said else text.removeprefix("error: ")
    text = _POLICY_SAYS.sub("", text)
    if "could not find the requested resource" in text:
        return UnknownKind(
            "the API server does not know this kind: is Serin installed in this cluster, and is it the one you mean?"
        )
    if not said and _UNREACHABLE.search(text):
        return Unreachable(f"the API server cannot be asked: {text}")
    if _TEST_FAILED.search(text):
        return Stale(text)
    kinds: dict[str, type[Failure]] = {"NotFound": Missing, "Forbidden": Denied, "Conflict": Stale}
    return kinds.get(reason, Failure)(text)


def no_canary(namespace: str, name: str) -> Missing:
    """What to say where there is no Canary of that name."""
    return Missing(f'no Canary "{name}" in namespace "{namespace}": see `kubectl canary list -A`')


def unread(what: str, failure: Failure) -> str:
    """That it is not known, and whose business that is.

    >>> unread("freezes", Denied("no")), unread("freezes", Failure("too many requests"))
    ('freezes may not be read by you', 'freezes could not be read')
    """
    return f"{what} {'may not be read by you' if isinstance(failure, Denied) else 'could not be read'}"


def read_canary(cluster: Cluster, namespace: str, name: str) -> Object:
    """One Canary. Raises: Missing with where to look, Denied, Failure."""
    return read_named(cluster, path_of(API, namespace, "canaries", name), no_canary(namespace, name))


def read_named(cluster: Cluster, path: str, missing: Failure) -> Object:
    """One object that a person named. Raises: `missing` where there is none of that name; UnknownKind, Failure."""
    try:
        return cluster.read(path)
    except UnknownKind:
        raise
    except Missing:
        raise missing from None


def path_of(api: str, namespace: str, plural: str, name: str = "", **query: str) -> str:
    """The address of an object, or of a list.

    >>> path_of("/apis/apps/v1", "shop", "deployments", "cart")
    '/apis/apps/v1/namespaces/shop/deployments/cart'
    """
    parts = [api, *(["namespaces", quote(namespace, safe="")] if namespace else []), plural]
    path = "/".join([*parts, quote(name, safe="")] if name else parts)
    return path + ("?" + "&".join(f"{key}={quote(value, safe='')}" for key, value in query.items()) if query else "")
