"""`approve`, `abort`, `permit` and the others that steer a rollout: each writes one Decision.

A Decision is bound to what the person looked at: attempt, step, images and plan. If any of them has moved
on meanwhile, the controller refuses it, and the answer says so.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime, timedelta

from controller.cli.kubectl import API, Cluster, Denied, Failure, Missing, Object, path_of, read_canary, read_named
from controller.cli.screen import Screen
from controller.cli.text import plain
from controller.cli.view import AT_REST
from controller.model.bound import bound_digest

PATIENCE = 15.0
"""seconds to wait for the controller's answer: more than the next leader takes to come"""
NEXT = {
    "approve": "the rollout leaves step {step} once its bake is over and the analysis agrees",
    "reject": "all traffic goes to stable and the attempt ends",
    "abort": "all traffic goes to stable and the attempt ends",
    "promote": "bakes and steps that are left are skipped; approvals, freezes and a failing verdict are not",
    "retry": "the rejected revision gets a new attempt, from the first step on",
    "pause": "no raise until `kubectl canary resume`; analysis and rollback go on",
    "resume": "the rollout goes on; the step's bake starts again",
    "permit": "you may do it until then, and nobody else",
    "override": "that freeze does not hold this attempt until it expires; approvals and other freezes do",
    "break-glass": "no approval and no freeze stands before this attempt until it expires; the record says so",
}
ASKS = frozenset({"promote", "retry", "break-glass", "override"})
"""what brings users onto a revision is asked about on a terminal; getting them off it never is"""


def run(options: argparse.Namespace, cluster: Cluster, screen: Screen) -> int:
    """Write one Decision about the present attempt, and print the controller's answer."""
    namespace, verb = options.namespace or cluster.namespace(), options.command
    path = path_of(API, namespace, "canaries", options.name)
    canary = read_canary(cluster, namespace, options.name)
    freeze = read_freeze(cluster, options.freeze) if options.freeze else None
    ends = datetime.now(UTC) + timedelta(seconds=options.lasting) if options.lasting else None
    wanted = render_decision(
        canary,
        verb,
        options.reason,
        by="",
        attempt=options.attempt,
        step=options.step,
        expires_at=ends,
        permits=options.permits,
        freeze=freeze,
    )
    if verb in ASKS and not options.yes and not confirm(sentence(wanted)):
        screen.say("Nothing written.")
        return 1
    wanted["spec"]["by"], groups = cluster.whoami()
    # Rights held through a group are asked for again when the decision is acted on; this one every login has.
    wanted["spec"]["groups"] = [group for group in groups if group != "system:authenticated"][:100]
    try:
        written = cluster.create(path_of(API, namespace, "decisions"), wanted)
    except Denied as denied:
        role = "canary-breakglass" if verb in {"break-glass", "override"} else "canary-approver"
        raise Denied(
            f"{denied}\nask for the verb `{verb.replace('-', '')}` on canaries/{options.name} (role {role})"
        ) from denied
    screen.say(f"decision.serin.dev/{plain(written['metadata']['name'])} written: {sentence(wanted)}")
    answer = await_answer(cluster, path, str(written["metadata"]["uid"]))
    if not answer:
        screen.say(f"next: {NEXT[verb].format(step=wanted['spec'].get('step', ''))}")
        screen.say(
            f"no answer yet after {PATIENCE:.0f}s; see `kubectl canary status {plain(options.name)} -n {namespace}`"
        )
        return 0
    if answer.get("taken"):
        screen.say(f"taken: {plain(answer.get('answer', ''))}", "green")
        return 0
    screen.say(f"not taken: {plain(answer.get('answer', ''))}", "red")
    return 1


def render_decision(
    canary: Object,
    verb: str,
    reason: str,
    *,
    by: str,
    attempt: str = "",
    step: int | None = None,
    expires_at: datetime | None = None,
    permits: str = "",
    freeze: Object | None = None,
) -> Object:
    """The object to write, bound to what status says now.

    Raises: Failure: there is nothing this verb could speak about.
    """
    name, namespace = canary["metadata"]["name"], canary["metadata"].get("namespace", "")
    status = canary.get("status") or {}
    phase = str(status.get("phase") or "Pending")
    present = status.get("attempt") or {}
    if not reason.strip():
        raise Failure('--reason is empty: write why, for whoever reads the record, for example --reason "error rate"')
    if len(reason) > 1024:
        raise Failure(f"--reason has {len(reason)} characters; at most 1024 fit into the record")
    if verb != "permit":
        _check_attempt(name, verb, phase, present, attempt, rejected=str(status.get("rejected") or ""))
    spec: Object = {"canary": name, "decision": "".join(part.capitalize() for part in verb.split("-")), "by": by}
    if permits:
        spec["permits"] = permits
    else:
        spec |= {
            "attempt": present["id"],
            "digest": digest_of(present),
            "planDigest": str(present.get("planDigest") or ""),
        }
    spec["reason"] = reason
    if verb == "approve":
        spec["step"] = gate_of(present, step)
    if freeze is not None:
        spec["freeze"] = freeze
    if expires_at is not None:
        spec["expiresAt"] = f"{expires_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return {
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "Decision",
        "metadata": {"generateName": f"{name[:200]}-{verb}-", "namespace": namespace},
        "spec": spec,
    }


def read_freeze(cluster: Cluster, name: str) -> Object:
    """Which Freeze, by its uid: another of the same name is another. Raises: Missing."""
    missing = Missing(f'no Freeze "{name}": see `kubectl get freezes`')
    meta = read_named(cluster, path_of(API, "", "freezes", name), missing)["metadata"]
    return {"name": meta["name"], "uid": meta["uid"]}


def _check_attempt(name: str, verb: str, phase: str, present: Object, attempt: str, *, rejected: str) -> None:
    """There is an attempt this verb could speak about.

    Raises: Failure: there is none.
    """
    if not present.get("id"):
        raise Failure(f"nothing to {verb}: Canary {name} has no rollout (phase {phase})")
    if attempt and attempt != present["id"]:
        raise Failure(f"attempt {attempt} has passed: the present one is {present['id']}")
    if verb == "retry" and phase == "Idle" and present.get("templateHash") == rejected:
        raise Failure(
            f"too early to retry attempt {present['id']}: the workload has stable's template now. Apply the rejected "
            "revision first, and retry while it is held"
        )
    if verb == "retry" and phase != "RolledBack":
        raise Failure(f"nothing to retry: attempt {present['id']} was not rolled back (phase {phase})")
    # A phase that only a newer Serin knows is no rest: users may be on the canary.
    if verb != "retry" and phase in AT_REST:
        how = f", outcome {present['outcome']}" if present.get("outcome") else ""
        hint = "; `kubectl canary retry` tries the revision again" if phase == "RolledBack" else ""
        raise Failure(f"nothing to {verb}: attempt {present['id']} has ended (phase {phase}{how}){hint}")


def gate_of(attempt: Object, step: int | None) -> int:
    """The step, counted from 1, whose way out an approval opens (0: before the first request): the one asked for,
    else the next gate.

    Raises: Failure: no such gate is left.
    """
    begun = bool(attempt.get("stepsSeen") or attempt.get("bakingSince"))
    first = int(attempt.get("step") or 0) + 1 if begun else 0
    gates = sorted({int(gate["step"]) for gate in attempt.get("gates") or [] if int(gate["step"]) >= first})
    if step is not None and step not in gates:
        left = ", ".join(map(str, gates)) or "none"
        raise Failure(f"--step {step}: no gate is left there; the rollout is on step {first}, gates left: {left}")
    if not gates:
        plan = attempt.get("plan") or []
        raise Failure(f"nothing to approve: no step from {max(first, 1)} to {len(plan)} asks for an approval")
    return step if step is not None else gates[0]


def digest_of(attempt: Object) -> str:
    """What the decision is about: the images, by digest where the controller has resolved them."""
    images = (attempt.get("evidence") or {}).get("images") or []
    resolved = {str(one.get("image", "")): str(one.get("digest") or "") for one in images}
    return bound_digest(map(str, attempt.get("images") or ()), resolved)


def sentence(decision: Object) -> str:
    """What the person is about to say."""
    spec = decision["spec"]
    if "permits" in spec:
        return f"{spec['decision']} {plain(spec['permits'])} of {plain(spec['canary'])} until {spec['expiresAt']}"
    step = f", step {spec['step']}" if "step" in spec else ""
    past = f" past Freeze {plain(spec['freeze']['name'])}" if "freeze" in spec else ""
    what = f" ({plain(spec['digest'], 120)})" if spec["digest"] else ""
    return f"{spec['decision']} attempt {plain(spec['attempt'])}{step} of {plain(spec['canary'])}{past}{what}"


def confirm(question: str) -> bool:
    """Ask on a terminal; without one there is nobody to ask, and `--yes` is how a script says it means it."""
    if not sys.stdin.isatty():
        raise Failure(f"{question}: add --yes to do this without a terminal")
    try:
        return input(f"{question}? [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        return False


def await_answer(cluster: Cluster, path: str, uid: str, patience: float = PATIENCE) -> Object:
    """The controller's answer to the Decision with this uid; empty when none came in time."""
    deadline = time.monotonic() + patience
    while True:
        said = (cluster.read(path).get("status") or {}).get("decisions") or []
        answer = next((one for one in said if one.get("uid") == uid), None)
        if answer is not None or time.monotonic() >= deadline:
            return answer or {}
        time.sleep(0.25)
