"""What is known about who or what wrote a change, and how well it is proven.

Plain values: `attestations` makes them of what it verified, `guardrails` combines and judges them, the status and the
record keep them. The one thing to know: an empty `Evidence` is the strictest there is, so losing some never loosens.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from controller.model.origin import Degree as Degree
from controller.model.origin import Origin as Origin
from controller.model.origin import Trust as Trust
from controller.model.value import Value

Name = Annotated[str, Meta(max_length=256)]
Link = Annotated[str, Meta(max_length=1024)]
PROBLEMS = 20
"""lines that are kept about what is not believed"""


class Author(Value, frozen=True):
    """A person who had a part in the change, the prompter of an AI too. Tools and bots are no authors."""

    id: Name
    """mailto:, a login, or a name as the identity provider knows it"""
    role: Annotated[str, Meta(max_length=20)] = "author"
    """author, coAuthor, prompter or opener"""


class Tool(Value, frozen=True):
    """A tool that wrote some of it."""

    name: Name
    version: Name = ""
    model: Name = ""
    session: Link = ""
    prompt_uri: Link = ""
    prompt_digest: Annotated[str, Meta(max_length=128)] = ""
    """never the prompt's text"""


class Predicate(Value, frozen=True):
    """A verified statement about one of the images."""

    type: Link
    """its predicateType"""
    result: Annotated[str, Meta(max_length=20)] = "passed"
    """passed or failed, as far as the type has a result"""
    signer: Name = ""
    """name of the policy's signer that vouches for it"""
    digest: Annotated[str, Meta(max_length=128)] = ""
    """of the statement itself"""


class ImageSeen(Value, frozen=True):
    """An image of the candidate, and what it stood for when it was looked up."""

    image: Annotated[str, Meta(max_length=512)]
    """as the pod template names it"""
    digest: Annotated[str, Meta(max_length=128)] = ""
    """sha256:...; empty where it could not be resolved"""
    platforms: Annotated[tuple[Annotated[str, Meta(max_length=128)], ...], Meta(max_length=40)] = ()
    """what it stands for on each platform: nodes report the one or the other"""


class Evidence(Value, frozen=True):
    """All that is known of one candidate's images together: the worst of each."""

    origin: Origin = Origin.UNKNOWN
    degree: Degree = Degree.UNSAID
    trust: Trust = Trust.T0
    tools: Annotated[tuple[Tool, ...], Meta(max_length=20)] = ()
    authors: Annotated[tuple[Author, ...], Meta(max_length=40)] = ()
    accountable: Name = ""
    """who answers for it"""
    reversible: bool | None = None
    """None: nobody said, which counts as no"""
    human_modifications: Link = ""
    repository: Link = ""
    revision: Annotated[str, Meta(max_length=64)] = ""
    base_revision: Annotated[str, Meta(max_length=64)] = ""
    change: Link = ""
    """the pull request"""
    classes: Annotated[tuple[Annotated[str, Meta(max_length=40)], ...], Meta(max_length=20)] = ()
    """of the change, as the statements of every image name them: what they vouch for beside the image"""
    images: Annotated[tuple[ImageSeen, ...], Meta(max_length=40)] = ()
    predicates: Annotated[tuple[Predicate, ...], Meta(max_length=40)] = ()
    """every verified statement, the change-origin one among them"""
    problems: Annotated[tuple[Link, ...], Meta(max_length=PROBLEMS)] = ()
    """what was found and not believed, a line each: finding, and what to do"""
    unavailable: Link = ""
    """why it could not be looked up now: the candidate is held until it can be, nothing is decided on less"""
    seen_at: datetime | None = None


NO_EVIDENCE = Evidence()
