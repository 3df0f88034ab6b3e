"""What a line, an address or a name says about who wrote a commit. The table is `marks.toml`, beside this file.

`marks_of(field, text)` is the whole of it: one value of one field in, the marks it carries out. A mark names its
pattern, so that anybody can look up why a commit was called what it was called.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from controller.model.origin import Degree
from controller.plain import alike

LONGEST_LINE = 1000
"""characters of a line that are looked at; a mark is far shorter"""
LONGEST_NAME = 300
"""characters of a name with its address"""

_ADDRESS = re.compile(r"(?<![^\s<>()\[\],;:\"'])[^\s<>()\[\],;:\"']{1,254}(?:\[bot\])?@[^\s<>()\[\],;:\"']{1,254}")
_FORGE = re.compile(r"(?:(\d+)\+)?([^@+]+)@users\.noreply\.github\.com")
_DASHES = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"))
_KEY = re.compile(r"([A-Za-z][A-Za-z0-9-]{1,40})[ \t]*:[ \t]*(.*)", re.DOTALL)
_MODEL = re.compile(
    r"\d|\b(?:opus|sonnet|haiku|flash|pro|turbo|mini|composer|gpt|qwen|llama|deepseek)\b", re.IGNORECASE
)
_KERNEL = re.compile(r"([A-Za-z][\w .+-]{0,60}?)\s*:\s*((?!//)[\w./@+-]+)((?:\s+[\w.+-]+)*)")
_SPOKEN = re.compile(
    r"^(?P<tool>[^(]+?)\s*\((?:via\s+(?P<via>[^()]+)|model:?\s*(?P<model>[^(),]+))?(?P<rest>[^()]*)\)$"
)
_HINTS = (
    "generated", "created", "authored", "written", "made", "built", "implemented", "produced", "ultraworked", "via [",
    "developed", "coded", "programmed", "assisted", "drafted", "crafted", "composed", "prepared", "fixed", "refactored",
    "opened", "submitted", "prompted", "engineered", "https://",
)  # fmt: skip
_TOOL_KEYS = (
    "agent-", "agentic-", "ai-", "aider-", "amp-", "anthropic-", "antigravity-", "augment-", "cascade-", "chatgpt-",
    "claude-", "cline-", "codebuff-", "codex-", "cody-", "conductor-", "copilot-", "crush-", "cursor-", "devin-",
    "droid-", "entire-", "factory-", "gemini-", "genai-", "goose-", "grok-", "happy-", "hermes-", "jules-", "junie-",
    "kilo-", "kiro-", "letta-", "llm-", "lovable-", "manus-", "ona-", "openai-", "openclaw-", "opencode-", "openhands-",
    "oz-", "pi-agent-", "qoder-", "qwen-", "replit-", "roo-", "sketch-", "superset-", "tabnine-", "terragon-", "trae-",
    "warp-", "windsurf-", "x-",
)  # fmt: skip


class Kind(StrEnum):
    """What a mark says."""

    AI = "ai"
    AUTOMATION = "automation"
    NOISE = "noise"
    """looks like a mark and says nothing"""
    DENIED = "denied"
    """somebody declares that no AI took part; no proof of it"""


@dataclass(frozen=True)
class Mark:
    """One pattern found in one value."""

    pattern: str
    field: str
    text: str
    kind: Kind = Kind.AI
    tool: str = ""
    model: str = ""
    degree: Degree = Degree.UNSAID
    confidence: str = "medium"


@lru_cache(maxsize=8192)
def marks_of(field: str, text: str) -> tuple[Mark, ...]:
    """The marks in one value of one field, the strongest first.

    Fields: `trailer`, `message_line`, `subject` (lines of the message), `author` (`NAME <ADDRESS>`), `author_email`,
    `committer_email`, `author_name`, `note_first_json`, `path`, and of a pull request `pr_login`, `pr_label`,
    `pr_body_line`, `branch`.

    >>> [mark.pattern for mark in marks_of("trailer", "Co-authored-by: Claude Opus 4.6 <noreply@anthropic.com>")]
    ['claude-trailer']
    >>> marks_of("trailer", "Co-authored-by: Claude Martin <claude.martin@example.com>")
    ()
    """
    value = _even(text)
    if field in {"author_email", "committer_email"}:
        return _account_marks(field, value)
    found = [mark for line in _table().lines.get(field, ()) if (mark := line.find(field, value))]
    if field == "author":
        return _author_marks(value)
    if field == "trailer" and (parted := _KEY.fullmatch(value)):
        found += _person_marks(parted[1].lower(), parted[2], value)
    return tuple(_one_each(found))


def may_be_footer(text: str) -> bool:
    """Whether a line, or any line of a message, may be one of the footers that tools append; cheap."""
    low = text.lower()
    return any(word in low for word in _HINTS)


def is_trailer(line: str) -> bool:
    """Whether a line of a message begins with a key that may carry a mark; cheap, and asked for every line."""
    key = line.partition(":")[0].rstrip().lower()
    return key in _table().keys or key.startswith(_TOOL_KEYS)


def is_person(address: str) -> bool:
    """An address that is neither a tool's nor a bot's, as far as the table knows.

    >>> is_person("ann@example.com"), is_person("49699333+dependabot[bot]@users.noreply.github.com")
    (True, False)
    """
    return not _account_marks("author_email", _even(address)) and "[bot]@" not in address.lower()


def addresses_in(text: str) -> list[str]:
    """Mail addresses of one line, in lower case."""
    return [found.lower().rstrip(".") for found in _ADDRESS.findall(text)]


@dataclass(frozen=True)
class _Line:
    """A whole line that is a mark."""

    mark: str
    tool: str
    degree: Degree
    confidence: str
    regex: re.Pattern[str]

    def find(self, field: str, value: str) -> Mark | None:
        found = self.regex.fullmatch(value)
        if found is None:
            return None
        groups = found.groupdict()
        tool = _slug(groups["name"]) if self.tool == "{name}" else self.tool
        kind = Kind.DENIED if groups.get("denied") else Kind.AI
        return Mark(self.mark, field, value, kind, tool, "", self.degree, self.confidence)


@dataclass(frozen=True)
class _Account:
    """A tool behind an address."""

    tool: str
    author: tuple[str, Degree]
    trailer: tuple[str, Degree]
    confidence: str


@dataclass(frozen=True)
class _Table:
    """`marks.toml`, ready to be asked."""

    lines: dict[str, tuple[_Line, ...]]
    addresses: dict[str, _Account]
    bots: dict[str, _Account]
    users: dict[str, _Account]
    automation_bots: frozenset[str]
    automation_addresses: frozenset[str]
    services: frozenset[str]
    noise: frozenset[str]
    written: frozenset[str]
    assisted: frozenset[str]
    generated: frozenset[str]
    neutral: frozenset[str]
    keys: frozenset[str]
    """of all four"""
    own: frozenset[str]
    exact: frozenset[str]
    shared: frozenset[str]
    machines: re.Pattern[str]
    apps: re.Pattern[str]
    products: re.Pattern[str]
    called: re.Pattern[str]
    given: re.Pattern[str]
    nobody: re.Pattern[str]
    no_answer: re.Pattern[str]
    agents: re.Pattern[str]
    companies: re.Pattern[str]
    says_model: re.Pattern[str]
    only: re.Pattern[str]
    says_so: re.Pattern[str]
    private: re.Pattern[str]
    named_so: re.Pattern[str]
    together: re.Pattern[str]
    through: re.Pattern[str]
    handles: re.Pattern[str]
    words: re.Pattern[str]

    def account(self, address: str) -> _Account | None:
        if known := self.addresses.get(address):
            return known
        if address in self.noise:
            return None
        forge = _FORGE.fullmatch(address)
        if forge is None:
            local, _, domain = address.partition("@")
            machine = domain in self.own and self.machines.fullmatch(local)
            return _UNLISTED if machine or self.says_model.fullmatch(address) else None
        number, login = forge[1] or "", forge[2]
        if login.endswith("[bot]"):
            app = login.removesuffix("[bot]")
            return self.bots.get(app) or (_UNLISTED if self._is_app(app) else None)
        return self.users.get(f"{number}+{login}") or self.users.get(login)

    def _is_app(self, login: str) -> bool:
        return login not in self.automation_bots and self.apps.fullmatch(login) is not None

    def is_automation(self, address: str) -> bool:
        if address in self.automation_addresses:
            return True
        forge = _FORGE.fullmatch(address)
        return (
            forge is not None and forge[2].endswith("[bot]") and forge[2].removesuffix("[bot]") in self.automation_bots
        )


_UNLISTED = _Account(
    "other-agent", ("other-bots", Degree.AUTONOMOUS), ("bot-trailer-generic", Degree.GENERATED), "medium"
)
"""behind an address that says by itself that it is a machine's"""


@cache
def _table() -> _Table:
    raw = tomllib.loads(files("controller.authorship").joinpath("marks.toml").read_text(encoding="utf-8"))
    lines: dict[str, list[_Line]] = {}
    parts = {f"<{part.upper()}>": raw["names"][part].replace("\n", "") for part in ("tools", "tail")}
    for one in raw["line"]:
        pattern = one["regex"]
        for part, said in parts.items():
            pattern = pattern.replace(part, said)
        regex = re.compile(pattern, re.IGNORECASE)
        line = _Line(one["mark"], one["tool"], Degree(one["degree"]), one["confidence"], regex)
        lines.setdefault(one["field"], []).append(line)
    accounts = [(one, _read_account(one)) for one in raw["account"]]

    def by(what: str) -> dict[str, _Account]:
        return {name: account for one, account in accounts for name in one.get(what, ())}

    names, keys, vendors, verbose = raw["names"], raw["keys"], raw["vendors"], re.IGNORECASE | re.VERBOSE
    return _Table(
        lines={field: tuple(found) for field, found in lines.items()},
        addresses=by("addresses"),
        bots=by("bots"),
        users=by("users"),
        automation_bots=frozenset(raw["automation"]["bots"]),
        automation_addresses=frozenset(raw["automation"]["addresses"]),
        services=frozenset(raw["automation"]["services"]),
        noise=frozenset(raw["noise"]["addresses"]),
        written=frozenset(keys["written"]),
        assisted=frozenset(keys["assisted"]),
        generated=frozenset(keys["generated"]),
        neutral=frozenset(keys["neutral"]),
        keys=frozenset(key for group in keys.values() for key in group),
        own=frozenset(vendors["own"]),
        exact=frozenset(vendors["exact"]),
        shared=frozenset(vendors["shared"]),
        machines=re.compile(vendors["machines"], verbose),
        apps=re.compile(names["apps"], verbose),
        products=re.compile(names["products"], verbose),
        called=re.compile(names["called"], verbose),
        given=re.compile(names["given"], verbose),
        says_model=re.compile(names["says_model"], verbose),
        only=re.compile(names["only"], verbose),
        nobody=re.compile(names["nobody"], re.IGNORECASE),
        no_answer=re.compile(names["no_answer"], verbose),
        agents=re.compile(names["agents"], re.IGNORECASE),
        companies=re.compile(names["companies"], verbose),
        says_so=re.compile(names["says_so"], verbose),
        private=re.compile(names["private"], re.IGNORECASE),
        named_so=re.compile(names["named_so"], verbose),
        together=re.compile(names["together"], verbose),
        through=re.compile(names["through"], verbose),
        handles=re.compile(names["handles"], verbose),
        words=re.compile(names["words"], verbose),
    )


def _read_account(one: dict[str, Any]) -> _Account:
    author, trailer = one["author"], one["trailer"]
    return _Account(
        tool=one["tool"],
        author=(author["mark"], Degree(author["degree"])),
        trailer=(trailer["mark"], Degree(trailer["degree"])),
        confidence=one["confidence"],
    )


def _even(text: str) -> str:
    """The text as a reader sees it: characters of no width gone, look-alike forms, dashes and blanks made plain."""
    value = " ".join(text[:LONGEST_LINE].split())
    if not value.isascii():
        value = unicodedata.normalize("NFKC", value).translate(_DASHES)
        value = "".join(char for char in value if unicodedata.category(char) not in {"Cf", "Cc"}).strip()
    return value


def _name_in(said: str) -> str:
    """What stands before the address, without emphasis and quotes."""
    return said.partition("<")[0].strip().strip("*_`\"'")[:LONGEST_NAME]


def _account_marks(field: str, value: str) -> tuple[Mark, ...]:
    table, address = _table(), value.strip("<> ").lower()
    if account := table.account(address):
        pattern, degree = account.author
        return (Mark(pattern, field, value, Kind.AI, account.tool, "", degree, account.confidence),)
    if address in table.noise:
        return (Mark("gemini-cli-shadow", field, value, Kind.NOISE),)
    if table.is_automation(address):
        return (Mark("plain-bots", field, value, Kind.AUTOMATION, confidence="high"),)
    return ()


def _person_marks(key: str, said: str, line: str) -> list[Mark]:
    """Marks of `Co-authored-by: NAME <ADDRESS>` and its kin, some of which name tools by convention."""
    table = _table()
    if key not in table.keys:
        return []
    name, said = _name_in(said), said[:LONGEST_NAME]
    addresses = addresses_in(said)
    known = [account for address in addresses if (account := table.account(address))]
    if not addresses and name.endswith("[bot]") and (app := table.bots.get(name.removesuffix("[bot]").lower())):
        known = [app]
    if known:
        return [
            Mark(
                account.trailer[0],
                "trailer",
                line,
                tool=account.tool,
                model=_model_in(name),
                degree=Degree.ASSISTED if key in table.assisted else account.trailer[1],
                confidence=account.confidence,
            )
            for account in known
        ]
    if any(table.is_automation(address) for address in addresses):
        return []
    if not addresses and key not in table.written:
        return _tool_marks(key, said.strip(), line)
    degree = Degree.ASSISTED if key in table.assisted else Degree.GENERATED
    alone = not addresses and table.only.fullmatch(name) and not table.given.fullmatch(name)
    if tool := _tool_behind(name, addresses) or (name if alone else ""):
        return [_tool_named("ai-name", line, name, tool, degree)]
    return []


def _author_marks(value: str) -> tuple[Mark, ...]:
    """Marks of `NAME <ADDRESS>` as author, where the address alone says nothing."""
    table, name = _table(), _name_in(value)
    addresses = addresses_in(value)
    if any(table.account(one) or one in table.noise or table.is_automation(one) for one in addresses):
        return ()
    # Companies and their teams publish under their own name.
    if not name or table.companies.fullmatch(name):
        return ()
    if tool := _tool_behind(name, addresses):
        return (_tool_named("ai-author", value, name, tool, Degree.AUTONOMOUS),)
    return ()


def _tool_behind(name: str, addresses: list[str]) -> str:
    """The tool that a name and its address stand for, or nothing: a person."""
    table = _table()
    if (product := table.products.search(name)) and not _is_code(addresses):
        return product[0]
    nobody = all(table.nobody.fullmatch(one) for one in addresses)
    if addresses and (called := table.called.fullmatch(name)) and (nobody or _is_vendor(name, addresses)):
        return called[0].partition("(")[0]
    # In brackets stands an employer or a part, such as Jane (Example AI).
    plainly = re.sub(r"\([^()]*\)", "", name).strip()
    machine = bool(table.says_so.search(plainly) or (nobody and table.named_so.fullmatch(plainly)))
    machine = machine or (nobody and bool(table.through.fullmatch(name)))
    machine = machine or any(table.agents.fullmatch(one) for one in addresses)
    if any(table.private.fullmatch(address) for address in addresses):
        machine = False
    if (
        machine
        or table.together.fullmatch(plainly)
        or _is_handle(plainly, addresses)
        or _is_program(plainly, addresses)
    ):
        return plainly
    return ""


def _is_program(name: str, addresses: list[str]) -> bool:
    """What is called like the domain it answers to nobody from."""
    word = re.sub(r"\W|_", "", name).lower()
    labels = [
        domain.split(".")[-2:][0].replace("-", "")
        for local, _, domain in (one.partition("@") for one in addresses)
        if _table().no_answer.fullmatch(local) and domain not in _table().services
    ]
    return len(word) > 2 and word in labels


def _is_vendor(name: str, addresses: list[str]) -> bool:
    """Whether a tool's name stands beside an address of who makes such tools; people are called Jules as well."""
    table, domains = _table(), {one.partition("@")[2] for one in addresses}
    if domains & table.own or f"{name.lower()} <{addresses[0]}>" in table.exact:
        return True
    return bool(domains & table.shared) and table.given.fullmatch(name.partition("(")[0].strip()) is None


def _is_handle(name: str, addresses: list[str]) -> bool:
    """A tool's name with an address that repeats it: `Grok <grok@example.dev>`. A login of a forge is a person's."""
    word = name.lower()
    if not _table().handles.fullmatch(word):
        return False
    return any(one.startswith(f"{word}@") and not one.endswith("@users.noreply.github.com") for one in addresses)


def _tool_marks(key: str, said: str, line: str) -> list[Mark]:
    """Conventions that name a tool and no address: `Assisted-by: AGENT:MODEL [TOOLS]`, or free text."""
    table = _table()
    if key in table.assisted:
        if kernel := _KERNEL.fullmatch(said):
            mark = Mark("assisted-by-kernel", "trailer", line, tool=_slug(kernel[1]), model=kernel[2])
            return [_of(mark, Degree.ASSISTED, "high")]
        if word := table.words.search(said):
            return [_tool_named("assisted-by-free", line, said, word[0], Degree.ASSISTED)]
    elif key in table.neutral:
        if table.only.fullmatch(said):
            return [_tool_named("generated-by", line, said, said, Degree.GENERATED)]
    elif key in table.generated and (
        word := table.words.search(said) or (re.match("", said) if key[:3] == "ai-" else None)
    ):
        return [_tool_named("generated-by", line, said, word[0], Degree.GENERATED)]
    return []


def _tool_named(pattern: str, line: str, said: str, word: str, degree: Degree) -> Mark:
    """A tool in free text: what stands before the brackets, and the model and degree that stand in them."""
    tool, model = word, _model_in(said)
    if spoken := _SPOKEN.match(said):
        tool = spoken["via"] or spoken["tool"]
        model = spoken["model"] or (spoken["tool"] if spoken["via"] else model)
        if re.search(r"\bautonomous", said, re.IGNORECASE):
            degree = Degree.AUTONOMOUS
    return _of(Mark(pattern, "trailer", line, tool=_slug(tool), model=model.strip()), degree, "medium")


def _of(mark: Mark, degree: Degree, confidence: str) -> Mark:
    return Mark(mark.pattern, mark.field, mark.text, mark.kind, mark.tool, mark.model, degree, confidence)


def _is_code(addresses: list[str]) -> bool:
    """A bot that posts scan results under a product's name has not written the change."""
    return any(address.endswith("github-advanced-security[bot]@users.noreply.github.com") for address in addresses)


def _model_in(name: str) -> str:
    """The model, where a name says more than the tool's."""
    inside = re.search(r"\(([^()]*[\w.-]+/[\w.-]+[^()]*|[^()]*\d[\w.-]*)\)", name)
    if inside and re.match(r"aider\b", name, re.IGNORECASE):
        return inside[1]
    return name if _MODEL.search(name) else ""


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", alike(name)).strip("-.")[:60] or "unknown-ai"


def _one_each(found: list[Mark]) -> list[Mark]:
    """One mark a pattern; a line of the table before what its address says alone."""
    seen: dict[str, Mark] = {}
    for mark in found:
        seen.setdefault(mark.pattern, mark)
    return list(seen.values())
