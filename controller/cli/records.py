"""`kubectl canary records`: what was released, exported for whoever keeps it, verified by whoever doubts it.

Verifying asks nobody of ours: the records, the head of the chain that each Canary's status remembers, an export or a
hash that was kept elsewhere, and the same pure functions that sealed them.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from controller.cli.files import read_text
from controller.cli.kubectl import API, Cluster, Failure, Object, path_of
from controller.cli.screen import Screen
from controller.cli.text import parse_time, plain, render_document, render_table
from controller.cli.view import render_origin
from controller.model.chain import Finding, Link, canonical, verify_chain

ACTIONS = ("show", "verify", "export")
TOLD_EVERY = 200
"""records; some tenths of a second"""


def run(options: argparse.Namespace, cluster: Cluster, screen: Screen) -> int:
    """Show the rollouts of one Canary, or verify or export them."""
    action, name = asked(options.words)
    namespace = "" if options.all_namespaces else options.namespace or cluster.namespace()
    if action == "verify":
        return _verify(options, cluster, screen, namespace, name)
    found = [one for one in _records(cluster, namespace) if name in ("", one["spec"].get("canary"))]
    if action == "export":
        for line in render_lines(found):
            screen.say(line)
    elif options.output:
        screen.say(render_document([{"name": one["metadata"]["name"], **one["spec"]} for one in found], options.output))
    elif not found:
        screen.say(f"No rollout of {plain(name)} is recorded in namespace {plain(namespace)}.")
    else:
        for line in render_records(found):
            screen.say(line)
    return 0


def asked(words: list[str]) -> tuple[str, str]:
    """What to do and with whose records; empty for those of every Canary.

    Raises: Failure: neither a name nor something to do with all.

    >>> asked(["checkout"]), asked(["verify"]), asked(["show", "verify"])
    (('show', 'checkout'), ('verify', ''), ('show', 'verify'))
    """
    action, names = (words[0], words[1:]) if words and words[0] in ACTIONS else ("show", words)
    if len(names) > 1 or (action == "show" and not names):
        raise Failure(
            "write records NAME, records verify [NAME] or records export [NAME]; "
            "a Canary that is called verify or export: records show verify"
        )
    return action, names[0] if names else ""


def _records(cluster: Cluster, namespace: str) -> list[Object]:
    """Oldest first."""
    found = [one for one in cluster.read(path_of(API, namespace, "releaserecords")).get("items", []) if one.get("spec")]
    return sorted(found, key=lambda one: (str(one["spec"].get("startedAt", "")), str(one["metadata"]["name"])))


def render_lines(records: Iterable[Object]) -> Iterator[str]:
    """JSON lines, the same for the same records."""
    for one in records:
        metadata = {name: one["metadata"][name] for name in ("name", "namespace") if name in one["metadata"]}
        kind = {"apiVersion": "serin.dev/v1alpha1", "kind": "ReleaseRecord"}
        yield json.dumps(json.loads(canonical({**kind, "metadata": metadata, "spec": one["spec"]})), sort_keys=True)


@dataclass
class Chain:
    """All that is there about one Canary's records."""

    links: dict[str, Link] = field(default_factory=dict)
    last: int = 0
    head: str = ""
    found: list[Finding] = field(default_factory=list)


def _verify(options: argparse.Namespace, cluster: Cluster, screen: Screen, namespace: str, name: str) -> int:
    kept = [one for path in options.file for one in read_export(path)]
    screen.tell("reading the release records")
    records, canaries = cluster.read_all(path_of(API, namespace, "releaserecords"), path_of(API, namespace, "canaries"))
    if isinstance(records, Failure):
        raise records
    if isinstance(canaries, Failure):
        screen.say(f"Without the Canaries, whose status knows the newest record: {plain(canaries)}", "yellow")
        canaries = {}
    chains = gather(records.get("items", []), canaries.get("items", []), kept)
    chains = {key: chain for key, chain in chains.items() if name in ("", key[1]) and namespace in ("", key[0])}
    if not chains:
        screen.say("No release record, and no Canary that knows of one.")
    if options.head and len(chains) != 1:
        raise Failure("--head is the hash of one Canary's newest record: name that Canary")
    broken = 0
    counted = _counted(screen, sum(len(chain.links) for chain in chains.values()))
    for (where, canary), chain in sorted(chains.items()):
        findings = findings_of(canary, chain, options.head, counted)
        broken += bool(findings)
        for finding in findings:
            screen.say(f"{plain(where)}/{plain(finding.record)} {plain(finding.finding)}", "red")
        if not findings:
            screen.say(f"{plain(where)}/{plain(canary)}: {len(chain.links)} records, whole{_newest(chain)}", "green")
    return 1 if broken else 0


def _counted(screen: Screen, total: int) -> Callable[[], None]:
    """To be called after each record: says now and then how many of all that were."""
    numbers = itertools.count(1)

    def count() -> None:
        if (number := next(numbers)) % TOLD_EVERY == 0:
            screen.tell(f"verified {number:,} of {total:,} records")

    return count


def read_export(file: str) -> list[Object]:
    """Records of an export.

    Raises: Failure: it cannot be read, or a line of it is no record.
    """
    found = []
    for number, line in enumerate(read_text(file, "--file").splitlines(), start=1):
        try:
            one = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError) as error:
            raise Failure(f"--file {plain(file)}: line {number} is not JSON: {error}") from error
        if one is None:
            continue
        if not isinstance(one, dict) or not isinstance(one.get("spec"), dict) or not _named(one):
            raise Failure(f"--file {plain(file)}: line {number} is no release record: write what records export prints")
        found.append(one)
    return found


def _named(one: Object) -> bool:
    metadata = one.get("metadata")
    return isinstance(metadata, dict) and isinstance(metadata.get("name"), str)


def gather(records: list[Object], canaries: list[Object], kept: list[Object]) -> dict[tuple[str, str], Chain]:
    """Chains by namespace and Canary; a record that differs from the one that was exported is a finding."""
    chains: dict[tuple[str, str], Chain] = {}
    for one in (*records, *kept):
        spec, metadata = one.get("spec") or {}, one["metadata"]
        chain = chains.setdefault((str(metadata.get("namespace", "")), str(spec.get("canary", ""))), Chain())
        link = Link(str(metadata["name"]), spec)
        live = chain.links.setdefault(link.name, link)
        if live is not link and link.own_hash and canonical(live.spec) != canonical(link.spec):
            chain.found.append(Finding(link.name, "is not the one that was exported"))
    for one in canaries:
        head = (one.get("status") or {}).get("head") or {}
        if head.get("number"):
            key = str(one["metadata"].get("namespace", "")), str(one["metadata"]["name"])
            chain = chains.setdefault(key, Chain())
            chain.last, chain.head = int(head["number"]), str(head.get("hash") or "")
    return chains


def findings_of(canary: str, chain: Chain, head: str, count: Callable[[], None]) -> list[Finding]:
    """Everything that is wrong with one chain, by the head that the Canary knows and one that was kept elsewhere."""
    links = list(chain.links.values())
    found = [*chain.found, *verify_chain(canary, links, last=chain.last, head=chain.head, count=count)]
    hashes = {link.own_hash for link in chain.links.values()}
    if head and head not in hashes:
        found.append(Finding(f"record {head}", "is missing: no record has this hash, which --head asks for"))
    return found


def _newest(chain: Chain) -> str:
    sealed = [link for link in chain.links.values() if link.own_hash]
    newest = max(sealed, key=lambda link: link.number, default=None)
    return f"; the newest is {plain(newest.name)}, {plain(newest.own_hash)}" if newest else ""


def render_records(records: list[Object]) -> list[str]:
    """One line a rollout: what it was, how it ended, how long users waited for relief, and why."""
    head = [
        "ATTEMPT",
        "IMAGES",
        "ORIGIN",
        "OUTCOME",
        "SECONDS",
        "RELIEF",
        "RETREATS",
        "CANARY-REQUESTS",
        "FAILED",
        "WHY",
    ]
    rows = []
    for one in records:
        spec = one["spec"]
        origin = spec.get("origin") or {}
        started, finished = parse_time(spec.get("startedAt")), parse_time(spec.get("finishedAt"))
        relief = spec.get("secondsToRelief")
        rows.append(
            [
                plain(spec.get("attempt", "")),
                plain(", ".join(_short(image) for image in spec.get("images") or []) or "-", 60),
                render_origin(
                    str(origin.get("treated") or "unknown"),
                    str(origin.get("trust") or "T0"),
                    _claim(origin),
                ),
                plain(spec.get("outcome") or "running"),
                f"{(finished - started).total_seconds():.0f}" if started and finished else "-",
                f"{relief:.1f}" if isinstance(relief, int | float) else "-",
                str(len(spec.get("retreats") or [])),
                f"{spec['canaryRequests']:,}" if "canaryRequests" in spec else "-",
                f"{spec['canaryErrors']:,}" if "canaryErrors" in spec else "-",
                plain(spec.get("message") or "-", 160),
            ]
        )
    return render_table(head, rows)


def _claim(origin: Object) -> str:
    claimed = str(origin.get("claimed") or "")
    return "" if claimed == "unknown" else claimed


def _short(image: str) -> str:
    """The part of an image's name that tells two revisions apart.

    >>> _short("registry.example/shop/checkout:1.8"), _short("shop@sha256:0123456789abcdef0123")
    ('checkout:1.8', 'shop@sha256:0123456789ab')
    """
    name = image.rsplit("/", 1)[-1]
    before, at, digest = name.partition("@sha256:")
    return f"{before}@sha256:{digest[:12]}" if at else name
