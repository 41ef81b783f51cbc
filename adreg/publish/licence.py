"""The licence of a base, from where it tells it: its card, or a single file's header."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from huggingface_hub import HfApi, metadata_load

from adreg.errors import AdregError
from adreg.formats.header import read_header
from adreg.publish.markdown import one_line

POCKET_LICENSE = "apache-2.0"
_KNOWN = re.compile(r"[a-z0-9][a-z0-9.+-]{1,40}")
_LONGEST = 100


class License(TypedDict, total=False):
    """A licence as cards write it: an identifier, or "other" with a name and a link."""

    license: str
    license_name: str
    license_link: str


def license_of_folder(folder: Path) -> License:
    """What the README.md of a model's folder says."""
    try:
        return _license(metadata_load(folder / "README.md") or {})
    except Exception:  # YAML of a stranger raises what it likes; then it says nothing
        return {}


def license_of_file(file: Path) -> License:
    """What the header of a single-file checkpoint says (modelspec.license)."""
    try:
        return _license({"license": read_header(file).metadata.get("modelspec.license")})
    except AdregError:
        return {}


def license_on_hub(api: HfApi, repo: str, revision: str | None) -> License:
    """What the card of a model on the Hub says; nothing where the Hub does not tell it."""
    try:
        card = api.model_info(repo, revision=revision).card_data
    except Exception:  # a refusal, no network, no Hub: the licence is then not known
        return {}
    return _license(vars(card) if card else {}, f"{api.endpoint}/{repo}/blob/{revision or 'main'}")


def _license(facts: Mapping[str, Any], files: str | None = None) -> License:
    """`files` is where the base's own are seen: a card of another repository links to it there, and
    not at all where that is not known."""
    told = facts.get("license")
    if not isinstance(told, str) or not one_line(told):
        return {}
    if not _KNOWN.fullmatch(told):  # words of its own, which the Hub would refuse as an identifier
        return {"license": "other", "license_name": one_line(told)[:_LONGEST]}
    found = License(license=told)
    if isinstance(facts.get("license_name"), str):
        found["license_name"] = one_line(facts["license_name"])[:_LONGEST]
    link = facts.get("license_link")
    if isinstance(link, str) and link.startswith(("https://", "http://")):
        found["license_link"] = one_line(link)
    elif isinstance(link, str) and files:
        found["license_link"] = f"{files}/{one_line(link)}"
    return found
