"""What the Hub is asked before anything long, against tests.hub_server."""

from __future__ import annotations

import socket

import pytest

from adreg.errors import AdregError, ConflictError, ExternalError
from adreg.publish.preflight import ON_THE_HUB, Finding, Wish, admitted, look_ahead
from tests.hub_server import HubServer

REPO = "me/trio"


def wish(private: bool = True, *, replace: bool = False) -> Wish:
    return Wish("lora", private, ("README.md", "images/0.png"), replace)


def refused(hub: HubServer, repo: str = REPO, *, private: bool = True) -> AdregError:
    """The refusal, which names repository and endpoint and has a remedy; nothing was changed."""
    before = {name: len(there.commits) for name, there in hub.repos.items()}
    with pytest.raises(AdregError) as caught:
        admitted(repo, hub.url, wish(private))
    error = caught.value
    assert repo in error.message
    assert hub.url in error.message
    assert error.remedy
    assert {name: len(there.commits) for name, there in hub.repos.items()} == before
    # A dry run tells the very same, and does not fail.
    told = next(f for f in look_ahead(repo, hub.url, wish(private)) if f.state == "failed")
    assert (told.says, told.remedy) == (error.message, error.remedy)
    return error


def told(hub: HubServer, repo: str = REPO, *, private: bool = True) -> dict[str, Finding]:
    found = look_ahead(repo, hub.url, wish(private))
    assert tuple(finding.check for finding in found) == ON_THE_HUB
    return {finding.check: finding for finding in found}


def grant(kind: str, name: str, *permissions: str) -> dict[str, object]:
    return {"entity": {"_id": "0", "type": kind, "name": name}, "permissions": list(permissions)}


def test_all_is_well_and_nothing_is_made(hub: HubServer) -> None:
    assert admitted(REPO, hub.url, wish()).repo == REPO
    found = told(hub)
    assert {finding.state for finding in found.values()} == {"ok"}
    assert found["login"].says.endswith("as me")
    assert "not there yet: made, private" in found["repository"].says
    hub.host(REPO, {"LICENSE": b"mine"}, private=True)
    assert "is there, private, 1 files" in told(hub)["repository"].says
    assert {route for route, _ in hub.requests} == {"whoami", "info"}


@pytest.mark.parametrize(
    ("scopes", "enough"),
    [
        ([], False),
        ([grant("user", "me", "repo.content.read")], False),
        ([grant("user", "me", "repo.content.read", "repo.write")], True),
        ([grant("user", "Me", "repo.write")], True),
        ([grant("org", "studio", "repo.write")], False),
        ([grant("model", "me/other", "repo.write")], False),
        ([grant("org", "studio"), grant("model", "me/trio", "repo.write")], True),
    ],
)
def test_a_fine_grained_token(
    hub: HubServer, scopes: list[dict[str, object]], enough: bool
) -> None:
    hub.role, hub.scopes = "fineGrained", scopes
    if enough:
        assert told(hub)["scope"].state == "ok"
        return
    error = refused(hub)
    assert "fine-grained" in error.message
    assert "repositories of me" in (error.remedy or "")


def test_a_token_that_only_reads_and_one_of_a_kind_unknown(hub: HubServer) -> None:
    hub.role = "read"
    assert "may only read" in refused(hub).message
    hub.role = "oauth"
    assert told(hub)["scope"].state == "unknown"
    assert told(hub)["repository"].state == "ok"


def test_whose_repository_it_is(hub: HubServer) -> None:
    hub.host("them/trio", {"README.md": b"theirs"})
    for repo in ("them/trio", "them/new"):
        error = refused(hub, repo)
        assert isinstance(error, ExternalError)
        assert "--repo me/" in (error.remedy or "")
    hub.orgs = {"Studio": "write", "readers": "read"}
    assert told(hub, "studio/new")["repository"].state == "ok"
    assert "may only read in the organisation readers" in refused(hub, "readers/new").message


def test_nothing_private_goes_where_everybody_reads(hub: HubServer) -> None:
    hub.host(REPO, {"LICENSE": b"mine"})
    assert isinstance(refused(hub), ConflictError)
    assert told(hub, private=False)["repository"].state == "ok"


def test_what_is_not_adregs_and_would_be_lost_is_named(hub: HubServer) -> None:
    mine = {"README.md": b"mine", "images/9.png": b"mine", "LICENSE": b"mine"}
    hub.host(REPO, mine, private=True)
    error = refused(hub)
    assert isinstance(error, ConflictError)
    assert "README.md, images/9.png" in error.message
    assert "LICENSE" not in error.message
    found = look_ahead(REPO, hub.url, wish(replace=True))[-1]
    assert found.state == "warning"
    assert "README.md, images/9.png" in found.says


def test_a_repository_that_was_renamed_is_named(hub: HubServer) -> None:
    hub.host("me/quartet", {"README.md": b"mine"}, private=True)
    hub.renames[REPO] = "me/quartet"
    error = refused(hub)
    assert isinstance(error, ConflictError)
    assert "--repo me/quartet" in (error.remedy or "")


def test_without_a_token_nobody_is_asked(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    error = refused(hub)
    assert "hf auth login" in (error.remedy or "")
    assert [f.state for f in told(hub).values()] == ["failed", "unknown", "unknown"]
    assert hub.requests == []


def test_without_a_network_a_dry_run_says_so_and_asks_once(hub: HubServer) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        found = look_ahead(REPO, url, wish())
    assert [finding.state for finding in found] == ["failed", "unknown", "unknown"]
    assert f"cannot reach {REPO} at {url}" in found[0].says
    hub.fail("whoami", 503)
    assert "failed on" in told(hub)["login"].says
    assert hub.count("whoami") == 1
