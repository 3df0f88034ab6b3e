"""The command line: every command with its help, which is also its documentation."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NoReturn, Protocol

from controller.cli.jsonpath import parse_template
from controller.cli.kubectl import Cluster, Failure, from_environment
from controller.cli.screen import Screen
from controller.cli.text import JSONPATH

PERMITTED = ("Deployment", "Service", "PersistentVolumeClaim", "ConfigMap", "Secret")
"""kinds of which a Permit names one object"""
ABOUT = """\
Look at canary rollouts and steer them. Every command that changes a rollout writes a Decision with your name and
your reason; the controller answers it in the Canary's status, and the record of the release keeps it.
"""
AFTER = """\
examples:
  kubectl canary status checkout -n shop -w          follow a rollout until it has ended
  kubectl canary approve checkout --reason "looks right in the dashboards"
  kubectl canary abort checkout --reason "orders missing"    all traffic back to stable, at any time
  kubectl canary records checkout                    what was released, by whom, and how it ended

kubectl itself is the transport: its contexts, logins and proxies apply. KUBECTL names another binary.
"""
STATUS_AFTER = """\
exit codes:
  0  promoted or healthy at this generation; without -w also while a rollout is under way
  1  usage, API or not-found error, or the Canary was not accepted
  2  rolled back or aborted
  3  --timeout was reached while the rollout was under way
  4  waiting for a person, a freeze or the kill switch (with --fail-on-wait)
  5  superseded: the attempt that --attempt names is not the present one
  6  the controller was not seen for more than 60 seconds

examples:
  kubectl canary status checkout -w --timeout 30m      follow it, and give up after half an hour
  kubectl canary status checkout -o jsonpath='{.phase} {.attempt.id}'     for scripts; the names of -o json

Only `get` rights are needed; what may not be read is left out.
"""
ORIGIN_AFTER = """\
origins, the worst of all commits counts: human < automation < mixed < unknown < ai
degrees: assisted (a person at each edit), generated (a person committed it), autonomous (an agent did)

Notes under refs/notes/ai are not fetched by a plain clone: git fetch origin 'refs/notes/ai:refs/notes/ai'
"""
ATTEST_AFTER = """\
examples:
  openssl genpkey -algorithm ed25519 -out key.pem && openssl pkey -in key.pem -pubout -out key.pub
  kubectl canary attest registry/shop@sha256:... --key key.pem --range v1.7..HEAD --accountable mailto:owner@example.com

--origin says whose work it is where the commits do not; it cannot take a mark back. SERIN_KEY_PASSWORD opens an
encrypted key. Logins of `docker login` are used. The prompt itself is never sent anywhere.
"""
RECORDS_AFTER = """\
examples:
  kubectl canary records checkout                    one line a rollout
  kubectl canary records verify                      every record is as it was sealed, and none is missing (else exit 1)
  kubectl canary records verify checkout --head sha256:...   up to the hash that the log or serin_record_head told
  kubectl canary records export > records.jsonl      JSON lines, for keeping
  kubectl canary records verify --file records.jsonl   with those that were exported and deleted since
"""
PLAN_AFTER = """\
exit codes:
  0  it would go out by this plan
  1  it would be refused, or the plan could not be made
"""
DECISIONS = {
    "approve": (
        "open the gate out of one step",
        "Opens the way out of one step of the present attempt, and of no other step or attempt. "
        "You must not be the author of the change.",
    ),
    "reject": (
        "say no at a gate: the attempt ends",
        "An approver's no: the attempt ends, all traffic goes to stable, and the revision is not tried again "
        "without a retry.",
    ),
    "abort": (
        "all traffic to stable, now",
        "Takes all traffic back to the stable revision and ends the attempt. Works until the rollout has ended, wins "
        "over every other decision and is never asked about twice.",
    ),
    "promote": (
        "skip the bakes and steps that are left",
        "Skips bakes and steps that are left. Approvals, freezes, policy and a failing verdict are not skipped.",
    ),
    "retry": (
        "try a rolled back revision again",
        "Gives the revision that was rolled back a new attempt, from the first step on. Without it, a rejected "
        "revision is never tried again, whoever applies it.",
    ),
    "pause": (
        "no raise until a resume",
        "Holds the weight where it is until a resume. Analysis and rollback go on.",
    ),
    "resume": (
        "go on after a pause or a hold",
        "Ends a pause, and answers a hold that only a person ends, such as traffic that somebody lowered by hand.",
    ),
    "break-glass": (
        "pass over approvals and freezes, for a while and on the record",
        "For the emergency in which this very release is the cure: until it expires, no approval and no freeze stands "
        "before the present attempt. A failing verdict still rolls back. Needs the verb breakglass, which no role has "
        "by default but canary-breakglass; the release record keeps that the glass was broken, by whom and why.",
    ),
    "override": (
        "let this attempt pass one freeze, for a while and on the record",
        "For the one release that must go out during a freeze: until it expires, the Freeze that --freeze names does "
        "not hold\nthe present attempt. Approvals, policies and every other Freeze do, and what the Freeze takes back "
        "stays taken back.\nYou must not be the author of the change. Needs the verb override, which no role has by "
        "default but canary-breakglass.",
    ),
}

FOR_GOOD = frozenset({"abort", "reject", "pause"})
"""what keeps users off a revision does not expire; `resume` ends a pause"""
LASTING = {
    "approve": "how long it stands (default: as long as the attempt)",
    "break-glass": "how long it stands: 4h at most, 1h by default",
    "override": "how long it stands: 4h at most, 1h by default",
}


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is the answer a script needs."""
    options = build_parser().parse_args(words)
    screen = Screen(colour=not options.no_color)
    try:
        return int(options.run(options, from_environment(_flags(options)), screen))
    except Failure as failure:
        screen.close()
        print(f"error: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    finally:
        screen.close()


class Add(Protocol):
    """Adds a command: its name, what it does in a line and at length, and where it is, as `module:function`."""

    def __call__(self, name: str, short: str, text: str, run: str, after: str = "") -> argparse.ArgumentParser: ...


class _Parser(argparse.ArgumentParser):
    """Ends with 1 where a command was typed wrong, as kubectl does: `status` says with 2 that a rollout went back."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(1, f"{self.prog}: error: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    """Every command and every option."""
    shared = _shared_options()
    parser = _Parser(
        prog="kubectl canary", description=ABOUT, epilog=AFTER, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, short: str, text: str, run: str, after: str = "") -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=short,
            description=text,
            epilog=after,
            parents=[shared],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=_lazily(run))
        return command

    _add_looking(add)
    _add_deciding(add)
    _add_guarding(add)
    _add_apart(add)
    _add_authorship(add)
    add("version", "version of this plugin and of the controller", "", "version:run")
    return parser


def _add_looking(add: Add) -> None:
    """What a rollout does, and what became of others."""
    status = add(
        "status",
        "what one rollout does, why, and what comes next",
        "The first line says verdict, exposure, evidence, what comes next and who is asked; then one command to type, "
        "if\nthere is one, and what is there below the Canary.",
        "status:run",
        STATUS_AFTER,
    )
    status.add_argument("name", type=_name, help="name of the Canary")
    status.add_argument("-w", "--watch", action="store_true", help="follow it until it has ended")
    status.add_argument(
        "-o", "--output", type=_form, choices=FORMS, default="", help="for programs; names are stable", metavar=FORM
    )
    status.add_argument("--timeout", type=_seconds, metavar="10m", help="with -w: give up after this long (exit 3)")
    status.add_argument("--fail-on-wait", action="store_true", help="exit 4 when somebody has to act")
    status.add_argument(
        "--attempt", default="", metavar="ID", help="speak of this attempt only (exit 5 when it passed)"
    )

    explain = add(
        "explain",
        "why it was decided so: the comparison in sentences and as a drawing",
        "Tells what was compared, how sure that is, what was decided on it, and what would change it; then draws how "
        "the\ndifference went. Speaks of the present attempt, or of one that has passed: see `records`.",
        "explain:run",
    )
    explain.add_argument("name", type=_name, help="name of the Canary")
    explain.add_argument("--attempt", default="", metavar="ID", help="an attempt that has passed")
    explain.add_argument("-o", "--output", choices=["json", "svg"], default="", help="json for programs, svg for pages")

    listing = add("list", "every Canary and where it is", "Rollouts under way come first.", "listing:run_list")
    listing.add_argument("-A", "--all-namespaces", action="store_true", help="of all namespaces")
    listing.add_argument(
        "-o", "--output", type=_form, choices=FORMS, default="", help="for programs; names are stable", metavar=FORM
    )

    records = add(
        "records",
        "what was released, by whom, and how it ended",
        "One line a rollout, oldest first: SECONDS from its begin to its end, RELIEF from the first bad sample to "
        "weight 0.",
        "records:run",
        RECORDS_AFTER,
    )
    records.add_argument(
        "words",
        nargs="*",
        metavar="[verify|export] NAME",
        help="name of the Canary, which may be gone; without it, verify and export take every Canary",
    )
    records.add_argument("-A", "--all-namespaces", action="store_true", help="of all namespaces")
    records.add_argument("-o", "--output", choices=["json", "yaml"], default="", help="the whole records")
    records.add_argument(
        "--file", action="append", default=[], metavar="EXPORT", help="verify: records that were exported before"
    )
    records.add_argument("--head", default="", metavar="HASH", help="verify: a hash that was kept elsewhere")


def _add_deciding(add: Add) -> None:
    """How people steer a rollout: each command writes a Decision."""
    for verb, (short, text) in DECISIONS.items():
        decision = add(verb, short, text, "decisions:run")
        decision.add_argument("name", type=_name, help="name of the Canary")
        decision.add_argument("--reason", required=True, metavar="TEXT", help="why; the record keeps it")
        decision.add_argument("--attempt", default="", metavar="ID", help="refuse unless this is the present attempt")
        decision.add_argument("--yes", "-y", action="store_true", help="do not ask")
        if verb in FOR_GOOD:
            decision.set_defaults(lasting=0.0)
        else:
            decision.add_argument(
                "--for",
                dest="lasting",
                type=_seconds,
                default=3600.0 if verb in {"break-glass", "override"} else 0.0,
                metavar="1h",
                help=LASTING.get(verb, "it is not taken any more after this long"),
            )
        if verb == "approve":
            decision.add_argument(
                "--step", type=int, metavar="N", help="the gate, counted from 1 (default: the next one)"
            )
        else:
            decision.set_defaults(step=None)
        if verb == "override":
            decision.add_argument("--freeze", type=_name, required=True, metavar="NAME", help="which one it may pass")
        else:
            decision.set_defaults(freeze="")
        decision.set_defaults(permits="")

    permit = add(
        "permit",
        "do one destructive act on what carries users",
        "In namespaces with the label serin.dev/protected=true, what a Canary's users stand on is not deleted, and\n"
        "configuration that its pods read is not edited in place, without this. It is for you alone, and for an hour\n"
        "at most.",
        "decisions:run",
    )
    permit.add_argument("name", type=_name, help="name of the Canary")
    permit.add_argument(
        "permits", type=_act, metavar="KIND/NAME", help="such as Deployment/checkout or ConfigMap/settings"
    )
    permit.add_argument("--reason", required=True, metavar="TEXT", help="why; the Canary keeps it")
    permit.add_argument("--for", dest="lasting", type=_seconds, default=900.0, metavar="15m", help="how long it stands")
    permit.set_defaults(step=None, attempt="", yes=True, freeze="")


def _add_guarding(add: Add) -> None:
    """What a change has to meet, and when nothing is released."""
    plan = add(
        "plan",
        "what would come of a change, before it is applied",
        "What the change touches, by which steps and rules it would go out, who has to agree first, which freezes\n"
        "stand in its way. Without -f: of what is held or under way now. Nothing is changed: the API server is asked\n"
        "with a dry run what it would store.",
        "plan:run",
        PLAN_AFTER,
    )
    plan.add_argument("name", nargs="?", type=_name, help="name of the Canary (default: the one the file is about)")
    plan.add_argument(
        "-f", "--file", default="", help="a file with the Deployment as it would be; - for standard input"
    )
    plan.add_argument(
        "--suppose",
        choices=["human", "automation", "mixed", "ai"],
        default="",
        help="the plan as if a signed statement named this origin",
    )
    plan.add_argument(
        "--rate", type=_rate, default=0.0, metavar="N", help="requests a second: what could the judge see?"
    )
    plan.add_argument("-o", "--output", choices=["json", "yaml"], default="", help="for programs; names are stable")

    freeze = add(
        "freeze",
        "the kill switch: stop releases now",
        "Engages a Freeze without an end, for the whole cluster or with -n for one namespace. It holds or rolls back\n"
        "every rollout it selects within seconds, and stays until two owners thaw it.",
        "freeze:run_freeze",
    )
    freeze.add_argument("name", nargs="?", type=_name, help="name of the Freeze (default: stop-...)")
    freeze.add_argument("--reason", required=True, metavar="TEXT", help="why; every rollout it stops says so")
    freeze.add_argument(
        "--on-start",
        choices=["Hold", "RollBack", "Finish"],
        default="Hold",
        help="what becomes of rollouts under way (default: Hold)",
    )
    freeze.add_argument(
        "--origin", choices=["automation", "mixed", "ai"], default="", help="only changes of this origin or a worse one"
    )
    freeze.add_argument("--tool", action="append", default=[], metavar="NAME", help="only changes by this tool; repeat")

    thaw = add(
        "thaw",
        "say that a Freeze may go; it takes two owners",
        "Writes your word, a Decision, about one Freeze. The controller takes it off once two owners have said so.",
        "freeze:run_thaw",
    )
    thaw.add_argument("name", type=_name, help="name of the Freeze")
    thaw.add_argument("--reason", required=True, metavar="TEXT", help="why it may go")

    audit = add(
        "audit",
        "who may let a revision through, and who could get around what asks for people",
        "Reads roles and bindings: who may approve, break the glass, thaw, write policies, act as somebody else or\n"
        "take admission policies away; and policies and freezes that select nothing or can never be met. Ends with 1\n"
        "where a machine or everybody holds some of it, or a rule comes to nothing.",
        "audit:run",
    )
    audit.add_argument("-o", "--output", choices=["json", "yaml"], default="", help="for programs; names are stable")


def _add_apart(add: Add) -> None:
    """What works without a controller: the way out, the judge on the past, a file."""
    detach = add(
        "detach",
        "take Serin off a workload, without a controller",
        "For the day when no controller is there: as you, with your rights, all traffic goes to stable and is\n"
        "verified, a held edit is set back, pins and canary objects are removed, and the Canary is deleted. Shows its\n"
        "plan first; running it again goes on where it was.",
        "detach:run",
    )
    detach.add_argument("name", type=_name, help="name of the Canary")
    detach.add_argument("--yes", "-y", action="store_true", help="do not ask")

    replay = add(
        "replay",
        "what the judge would have done on this service's own past",
        "Plays the judge over the history of the stable pods, each in turn as if it were the canary. Nothing was\n"
        "wrong, so every retreat and rollback is a false one; proposes the settings that would have had none.\n"
        "Reads the Prometheus of the Canary's MetricsSource, from where you are.",
        "replay:run",
    )
    replay.add_argument("name", type=_name, help="name of the Canary")
    replay.add_argument("--since", type=_seconds, default=86400.0, metavar="24h", help="how far back (default 24h)")
    replay.add_argument("--prometheus", default="", metavar="URL", help="another address of it, such as a port-forward")
    replay.add_argument("-o", "--output", choices=["json", "yaml"], default="", help="for programs")

    check = add("check", "validate a Canary file offline and print its plan", "No cluster is asked.", "check:run")
    check.add_argument("-f", action="store_true", help="as of kubectl apply; may be left out")
    check.add_argument("file", help="a YAML or JSON file with one or more objects; - for standard input")


def _add_authorship(add: Add) -> None:
    """Who or what wrote a change."""
    origin = add(
        "origin",
        "who or what wrote the commits of a range",
        "Reads trailers, authors, footers and notes of the commits and names each line that says something. A mark of "
        "an AI is\nbelieved; the lack of one proves nothing: such a commit is of unknown origin. No cluster is asked.",
        "origin:run",
        ORIGIN_AFTER,
    )
    _add_range(origin)
    origin.add_argument("-o", "--output", choices=["json"], default="", help="for programs; names are stable")

    attest = add(
        "attest",
        "sign who wrote what is in an image, and attach it to the image",
        "Reads the commits as `origin` does, signs a change-origin statement for the image's digest (DSSE, ECDSA "
        "P-256 or\nEd25519) and pushes it to the registry, where the controller finds it. For the build, which holds "
        "the key.",
        "attest:run",
        ATTEST_AFTER,
    )
    attest.add_argument("image", metavar="IMAGE@DIGEST", help="the image by its digest: a tag can be moved")
    attest.add_argument("--key", required=True, metavar="FILE", help="private key in PEM, - for standard input")
    _add_range(attest, flag=True)
    attest.add_argument("--origin", choices=["human", "automation", "mixed", "unknown", "ai"], default="")
    attest.add_argument("--degree", choices=["assisted", "generated", "autonomous"], default="")
    attest.add_argument("--tool", action="append", default=[], metavar="NAME[=MODEL]", help="a tool used; repeatable")
    attest.add_argument("--prompter", action="append", default=[], metavar="ID", help="who prompted it; repeatable")
    attest.add_argument("--accountable", metavar="ID", help="who answers for the change")
    attest.add_argument("--reversible", choices=["yes", "no"], help="whether it can be taken back by rolling back")
    attest.add_argument(
        "--class",
        dest="classes",
        action="append",
        default=[],
        choices=["config", "resources", "auth", "schema", "infra", "destructive"],
        help="what is released with the image and was written by the same, such as its settings; repeatable",
    )
    attest.add_argument("--human-modifications", default="", metavar="TEXT", help="what people changed of an AI's work")
    attest.add_argument(
        "--prompt-file", default="", metavar="FILE", help="its digest goes into the statement, not its text"
    )
    attest.add_argument("--prompt-uri", default="", metavar="URI", help="where the prompt is kept")
    attest.add_argument("--source", default="", metavar="URI", help="the repository (default: the clone's origin)")
    attest.add_argument("--change", default="", metavar="URL", help="the pull request")
    attest.add_argument("-o", "--output", default="", metavar="FILE", help="write the envelope to this file as well")
    attest.add_argument("--no-push", action="store_true", help="do not ask the registry")
    attest.add_argument("--plain-http", action="store_true", help="the registry has no TLS")


def _add_range(command: argparse.ArgumentParser, *, flag: bool = False) -> None:
    """Which commits, and what stands beside them."""
    help_text = "as of git log: A..B (default HEAD, the whole history)"
    if flag:
        command.add_argument("--range", default="HEAD", metavar="RANGE", help=help_text)
    else:
        command.add_argument("range", nargs="?", default="HEAD", metavar="RANGE", help=help_text)
    command.add_argument("--repo", default=".", metavar="DIR", help="the clone (default: this directory)")
    command.add_argument(
        "--unmarked",
        choices=["unknown", "human"],
        default="unknown",
        help="what a commit without any mark counts as; human where the use of AI must be declared",
    )
    command.add_argument("--pr-login", default="", metavar="LOGIN", help="who opened the pull request")
    command.add_argument("--pr-label", action="append", default=[], metavar="LABEL", help="a label of it; repeatable")
    command.add_argument("--pr-body", default="", metavar="FILE", help="its description")
    command.add_argument("--branch", default="", metavar="NAME", help="its branch")


def _shared_options() -> _Parser:
    shared = _Parser(add_help=False)
    shared.add_argument("-n", "--namespace", default="", help="default: the namespace of the context")
    shared.add_argument("--context", default="", help="kubectl's context")
    shared.add_argument("--kubeconfig", default="", metavar="FILE", help="kubectl's configuration file")
    shared.add_argument("--as", dest="as_user", default="", metavar="USER", help="act as this user")
    shared.add_argument("--no-color", action="store_true", help="no colour; NO_COLOR does the same")
    shared.add_argument(
        "--serin-namespace",
        default=os.environ.get("SERIN_NAMESPACE", "serin-system"),
        metavar="NS",
        help="where the controller runs (default serin-system, or SERIN_NAMESPACE)",
    )
    return shared


def _lazily(where: str) -> Callable[[argparse.Namespace, Cluster, Screen], int]:
    """Import a command's module only when it runs: one file of pure Python (krew) has not what each needs."""
    module, _, function = where.partition(":")

    def run(options: argparse.Namespace, cluster: Cluster, screen: Screen) -> int:
        try:
            command = getattr(import_module(f"controller.cli.{module}"), function)
        except ModuleNotFoundError as missing:
            words = (
                f"kubectl canary {options.command} needs the Python package {missing.name}, which is not in this file: "
                "pipx install . in a checkout of Serin, or pipx install serin-VERSION-py3-none-any.whl"
            )
            raise Failure(words) from missing
        return int(command(options, cluster, screen))

    return run


class _Forms(tuple[str, ...]):
    """Choices of which one goes on with a template."""

    def __contains__(self, form: object) -> bool:
        return isinstance(form, str) and (form.startswith(JSONPATH) or form in iter(self))


FORMS = _Forms(("json", "yaml", JSONPATH))
FORM = "json|yaml|jsonpath='{.phase}'"
LONGEST = 366 * 86400
"""seconds"""


def _form(text: str) -> str:
    if text.startswith(JSONPATH):
        try:
            parse_template(text.removeprefix(JSONPATH))
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _flags(options: argparse.Namespace) -> tuple[str, ...]:
    """kubectl's own options, handed through."""
    chosen = (("--context", options.context), ("--kubeconfig", options.kubeconfig), ("--as", options.as_user))
    return tuple(f"{flag}={value}" for flag, value in chosen if value)


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    if not text or not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration: write for example 90s, 10m or 1h")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    if (whole := 3600 * hours + 60 * minutes + seconds) > LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is longer than a year")
    return float(whole)


def _name(text: str) -> str:
    """An empty one, as of a variable that is not set, or a path would be the address of something else."""
    if len(text) > 253 or not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name: write one as `kubectl canary list` shows it")
    return text


def _act(text: str) -> str:
    """The API server answers another one with a pattern."""
    kind, slash, name = text.partition("/")
    if not slash or kind not in PERMITTED:
        raise argparse.ArgumentTypeError(f"{text!r}: write KIND/NAME, KIND one of {', '.join(PERMITTED)}")
    return f"{kind}/{_name(name)}"


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 <= rate < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of requests a second: write for example 200")
    return rate


if __name__ == "__main__":
    sys.exit(main())
