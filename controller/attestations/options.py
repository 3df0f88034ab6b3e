"""What an administrator says about registries, as options of the controller."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import datetime

from controller.attestations.bundles import bundle_opener
from controller.attestations.provenance import ImageEvidence
from controller.attestations.registry import Allowed, Registry
from controller.attestations.stored import Stored
from controller.kube.transport import Api


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which registries are asked for attestations, and how."""
    group = parser.add_argument_group("registries, asked only where a ReleasePolicy names signers")
    group.add_argument("--registry", action="append", default=[], metavar="HOST", help="ask these only; repeatable")
    group.add_argument(
        "--insecure-registry", action="append", default=[], metavar="HOST", help="asked by plain HTTP, at any address"
    )
    group.add_argument(
        "--unasked-registry",
        action="append",
        default=[],
        metavar="HOST",
        help="its images have their statements in ConfigMaps only",
    )
    group.add_argument("--registry-ca", default="", metavar="FILE", help="certificates of private registries")
    group.add_argument("--registry-login", default="", metavar="SECRET", help="kubernetes.io/dockerconfigjson, ours")


def image_evidence(api: Api, own: str, options: argparse.Namespace, now: Callable[[], datetime]) -> ImageEvidence:
    """The port `Provenance` as the options say; `own` is Serin's namespace."""
    stored = Stored(api, own, options.registry_login)
    allowed = Allowed(frozenset(options.registry), frozenset(options.insecure_registry))
    registry = Registry(allowed, stored.login, options.registry_ca)
    return ImageEvidence(
        registry, stored.statements, now, unasked=frozenset(options.unasked_registry), open_bundle=bundle_opener()
    )
