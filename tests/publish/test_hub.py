"""Publishing with the real client, over HTTP, against tests.hub_server."""

from __future__ import annotations

import hashlib
import logging
import random
import socket
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants, snapshot_download
from huggingface_hub.utils._xet import abort_xet_session

from adreg.domain import Json, silent
from adreg.errors import AdregError, ConflictError, ExternalError, UsageError
from adreg.publish import client
from adreg.publish.client import check_endpoint, check_repo
from adreg.publish.files import Upload
from adreg.publish.format import Format
from adreg.publish.hub import publish
from adreg.publish.preflight import Wish, admitted
from tests.hub_server import DROP, Blob, HubServer

REPO = "me/trio"
TITLE = "trio: published with adreg"
README = b"---\nlicense: apache-2.0\n---\n\n# trio\n"
WEIGHTS = bytes(range(256)) * 8


def files(weights: bytes = WEIGHTS) -> list[Upload]:
    return [
        Upload("README.md", README),
        Upload("images/0.png", b"\x89PNG pixels"),
        Upload("unet/diffusion_pytorch_model.safetensors", weights),
    ]


def put(
    hub: HubServer,
    uploads: list[Upload] | None = None,
    *,
    repo: str = REPO,
    private: bool = True,
    endpoint: str | None = None,
    form: Format = "diffusers",
    replace: bool = False,
) -> Json:
    """Ask whether it may be, then publish: what the job does."""
    uploads = uploads or files()
    wish = Wish(form, private, tuple(upload.path for upload in uploads), replace)
    target = admitted(repo, endpoint or hub.url, wish)
    return publish(target, wish, uploads, message=TITLE, progress=silent)


def refused(hub: HubServer, **changes: Any) -> AdregError:
    """The error of a publication that fails; it names repository and endpoint, and no token."""
    with pytest.raises(AdregError) as caught:
        put(hub, **changes)
    error = caught.value
    assert REPO in error.message
    assert hub.url in error.message
    assert error.remedy
    return error


def everything(error: BaseException) -> str:
    """All that a traceback, a log or a careless print could show of an error."""
    return f"{''.join(traceback.format_exception(error))}{vars(error)!r}{error!r}" + "".join(
        everything(other) for other in (error.__cause__, error.__context__) if other
    )


def test_one_commit_with_all_files_private_by_default(hub: HubServer, tmp_path: Path) -> None:
    done = put(hub)
    repo = hub.repos[REPO]
    assert repo.private
    assert [commit.summary for commit in repo.commits] == ["initial commit", TITLE]
    assert done == {
        "repo": REPO,
        "url": f"{hub.url}/{REPO}",
        "commit": repo.head.oid,
        "version": "v1",
        "changed": True,
        "visibility": "private",
        "files": [upload.path for upload in files()],
        "removed": [],
        "notices": [],
    }
    # Large files go up side by side, in whatever order.
    assert set(hub.objects) == {blob.sha256 for blob in repo.head.files.values() if blob.lfs}
    folder = snapshot_download(
        REPO, endpoint=hub.url, token=hub.token, cache_dir=tmp_path / "cache"
    )
    for upload in files():
        assert (Path(folder) / upload.path).read_bytes() == upload.content


def test_a_second_run_makes_no_commit(hub: HubServer) -> None:
    first, second = put(hub), put(hub)
    assert second == first | {"changed": False}
    assert len(hub.repos[REPO].commits) == 2
    assert hub.count("commit") == 1


def test_a_change_is_one_more_commit_that_uploads_only_what_changed(hub: HubServer) -> None:
    put(hub)
    uploaded = hub.count("lfs_put")
    done = put(hub, files(WEIGHTS[::-1]))
    assert done["changed"]
    assert hub.count("lfs_put") == uploaded + 1
    assert len(hub.repos[REPO].commits) == 3


def test_large_files_go_up_in_parts(hub: HubServer) -> None:
    hub.chunk_size = 1_000_000
    large = random.Random(0).randbytes(11_500_000)
    put(hub, files(large))
    assert (hub.count("lfs_part"), hub.count("lfs_complete")) == (12, 1)
    assert hub.count("lfs_put") == 1  # the picture, which is no larger than a part
    assert hub.objects[hashlib.sha256(large).hexdigest()] == large


@pytest.mark.parametrize("route", ["lfs_part", "lfs_complete"])
@pytest.mark.parametrize("status", [500, DROP])
def test_a_part_that_fails_goes_up_again(
    hub: HubServer, waits: list[float], route: str, status: int
) -> None:
    hub.chunk_size = 1000
    hub.fail(route, status, times=1)
    assert put(hub)["version"] == "v1"
    assert hub.objects[hashlib.sha256(WEIGHTS).hexdigest()] == WEIGHTS


def test_a_part_that_arrives_damaged_is_never_committed(hub: HubServer) -> None:
    hub.chunk_size = 1000
    hub.damage("lfs_part")
    assert "sha256" in refused(hub).message
    assert len(hub.repos[REPO].commits) == 1
    assert put(hub)["changed"]


def test_public_only_when_asked(hub: HubServer) -> None:
    assert put(hub, private=False)["visibility"] == "public"
    assert not hub.repos[REPO].private


def test_a_private_repository_stays_private_and_that_is_said(hub: HubServer) -> None:
    put(hub, private=True)
    done = put(hub, private=False)
    assert hub.repos[REPO].private
    assert done["visibility"] == "private"
    (notice,) = done["notices"]
    assert REPO in notice


def test_nothing_private_goes_into_a_public_repository(hub: HubServer) -> None:
    put(hub, private=False)
    commits = len(hub.repos[REPO].commits)
    with pytest.raises(ConflictError, match="is public") as caught:
        put(hub, private=True)
    assert "--public" in str(caught.value.remedy)
    assert len(hub.repos[REPO].commits) == commits


def test_files_of_an_earlier_publication_go_and_the_users_stay(hub: HubServer) -> None:
    put(hub, [*files(), Upload("unet/old.safetensors", b"old")])
    repo = hub.repos[REPO]
    repo.add("by hand", repo.head.files | {"LICENSE": Blob(b"mine", False)})
    done = put(hub)
    assert done["removed"] == ["unet/old.safetensors"]
    assert done["changed"]
    assert done["notices"] == []
    assert set(repo.head.files) == {u.path for u in files()} | {"LICENSE", ".gitattributes"}


MINE = {"README.md": b"my words", "images/0.png": b"my photo", "images/7.png": b"my photo"}


def test_files_that_somebody_else_wrote_are_not_lost_unasked(hub: HubServer) -> None:
    hub.host(REPO, {**MINE, "notes.txt": b"kept"}, private=True)
    error = refused(hub)
    assert isinstance(error, ConflictError)
    assert "--replace" in str(error.remedy)
    assert all(path in error.message for path in MINE)
    assert "notes.txt" not in error.message
    repo = hub.repos[REPO]
    assert len(repo.commits) == 1
    by_hand = repo.head.oid
    done = put(hub, replace=True)
    assert (done["removed"], done["version"]) == (["images/7.png"], "v1")
    (notice,) = done["notices"]
    assert by_hand in notice
    assert all(path in notice for path in MINE)
    assert set(repo.head.files) == {"notes.txt", *(upload.path for upload in files())}
    assert put(hub, files(WEIGHTS[::-1]))["notices"] == []


def test_a_card_that_was_edited_on_the_hub_is_not_lost_unasked(hub: HubServer) -> None:
    put(hub)
    repo = hub.repos[REPO]
    edited = repo.head.files | {"README.md": Blob(b"edited", False)}
    repo.add("Update README.md", edited)
    error = refused(hub, uploads=files(WEIGHTS[::-1]))
    assert isinstance(error, ConflictError)
    assert "README.md" in error.message
    assert "unet" not in error.message
    assert repo.head.files == edited
    assert put(hub, replace=True)["version"] == "v2"


def test_a_file_that_comes_while_it_is_published_is_not_lost_unasked(hub: HubServer) -> None:
    """It was not there when the Hub was asked beforehand."""
    hub.meanwhile("preupload", lambda: hub.host(REPO, MINE))
    assert isinstance(refused(hub), ConflictError)
    assert hub.repos[REPO].head.files["README.md"].content == b"my words"
    assert isinstance(refused(hub), ConflictError)
    assert hub.count("commit") == 1


def test_what_a_gitignore_keeps_out_is_not_called_published(hub: HubServer) -> None:
    hub.host(REPO, {".gitignore": b"*.safetensors\n"}, private=True)
    error = refused(hub)
    assert "unet/diffusion_pytorch_model.safetensors" in error.message
    assert ".gitignore" in str(error.remedy)
    repo = hub.repos[REPO]
    assert repo.tags == {}
    assert isinstance(refused(hub), ExternalError)
    kept = {path: blob for path, blob in repo.head.files.items() if path != ".gitignore"}
    repo.add("by hand", kept)
    assert put(hub)["version"] == "v1"
    assert set(repo.head.files) == {upload.path for upload in files()}


@pytest.mark.parametrize(
    ("route", "status", "remedy"),
    [
        ("whoami", 401, "hf auth login"),
        ("create", 401, "hf auth login"),
        ("create", 403, "write access"),
        ("info", 404, "--repo"),
        ("preupload", 403, "write access"),
        ("lfs_batch", 403, "write access"),
        ("lfs_put", 403, "write access"),
        ("lfs_verify", 404, "--repo"),
        ("commit", 401, "hf auth login"),
        ("commit", 403, "write access"),
        ("commit", 404, "--repo"),
        ("commit", 400, "what it says"),
        ("validate", 400, "what it says"),
    ],
)
def test_a_refusal_is_said_at_once(hub: HubServer, route: str, status: int, remedy: str) -> None:
    hub.fail(route, status)
    error = refused(hub)
    assert isinstance(error, ExternalError)
    assert not error.retryable
    assert str(status) in error.message
    assert remedy in (error.remedy or "")
    assert hub.count(route) <= 2  # one of each of two large files; a refusal is never retried
    assert REPO not in hub.repos or len(hub.repos[REPO].commits) == 1


@pytest.mark.parametrize("route", ["create", "commit"])
@pytest.mark.parametrize("status", [429, 500, 503, DROP])
def test_what_may_pass_is_tried_again(hub: HubServer, route: str, status: int) -> None:
    hub.fail(route, status, times=1)
    assert put(hub)["changed"]
    assert hub.count(route) == 2


@pytest.mark.parametrize("route", ["create", "commit"])
@pytest.mark.parametrize("status", [500, DROP])
def test_what_does_not_pass_ends_after_three_tries(hub: HubServer, route: str, status: int) -> None:
    hub.fail(route, status)
    error = refused(hub)
    assert isinstance(error, ExternalError)
    assert error.retryable
    assert hub.count(route) == 3


@pytest.mark.parametrize("route", ["preupload", "lfs_batch", "lfs_put"])
@pytest.mark.parametrize("status", [500, DROP])
def test_what_the_client_tries_again_itself_is_left_to_it(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, route: str, status: int
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # its waits add up to 23 s
    hub.fail(route, status)
    uploads = [files()[0], files()[2]]  # one large file, so one upload
    error = refused(hub, uploads=uploads)
    assert error.retryable
    assert hub.count(route) == 6


def test_a_commit_whose_answer_was_lost_is_not_made_twice(hub: HubServer) -> None:
    hub.lose_answer("commit")
    done = put(hub)
    assert done["changed"]
    assert len(hub.repos[REPO].commits) == 2
    assert done["commit"] == hub.repos[REPO].head.oid


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were slept, which take no time."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


@pytest.mark.parametrize("route", ["whoami", "info", "create", "commit", "refs", "tag"])
def test_the_hub_is_left_alone_for_as_long_as_it_asks(
    hub: HubServer, waits: list[float], route: str
) -> None:
    hub.fail(route, 429, times=1, retry_after="7")
    assert put(hub)["version"] == "v1"
    assert waits == [7.0]


def test_a_date_to_come_back_at(hub: HubServer, waits: list[float]) -> None:
    at = datetime.now(UTC) + timedelta(seconds=100)
    hub.fail("create", 503, times=1, retry_after=format_datetime(at, usegmt=True))
    put(hub)
    assert 0 < waits[0] <= 100
    hub.fail("commit", 503, times=1, retry_after="soon")
    put(hub, files(WEIGHTS[::-1]))
    assert waits[1:] == [0.5]


def test_a_hub_that_asks_for_an_hour_is_not_waited_for(hub: HubServer, waits: list[float]) -> None:
    hub.fail("create", 429, retry_after="3600")
    error = refused(hub)
    assert not error.retryable
    assert "in 60 min" in (error.remedy or "")
    assert (waits, hub.count("create")) == ([], 1)


def test_every_commit_gets_a_tag_and_nothing_new_gets_none(hub: HubServer) -> None:
    first, again, second = put(hub), put(hub), put(hub, files(WEIGHTS[::-1]))
    assert [done["version"] for done in (first, again, second)] == ["v1", "v1", "v2"]
    assert hub.repos[REPO].tags == {"v1": first["commit"], "v2": second["commit"]}
    assert hub.count("tag") == 2


def test_tags_of_the_users_own_are_not_versions(hub: HubServer) -> None:
    first = put(hub)["commit"]
    hub.repos[REPO].tags |= {"v9": first, "v10-draft": first, "final": first, "v0": first}
    assert put(hub, files(WEIGHTS[::-1]))["version"] == "v10"


def test_a_head_that_is_not_ours_is_no_version(hub: HubServer) -> None:
    put(hub)
    repo = hub.repos[REPO]
    repo.add("by hand", {**repo.head.files, "LICENSE": Blob(b"mine", False)})
    done = put(hub)
    assert (done["changed"], done["version"]) == (False, None)
    assert list(repo.tags) == ["v1"]


@pytest.mark.parametrize("status", [403, 409, 500, DROP])
def test_who_was_stopped_between_commit_and_tag_gets_the_tag_the_next_time(
    hub: HubServer, waits: list[float], status: int
) -> None:
    hub.fail("tag", status)
    refused(hub)
    assert len(hub.repos[REPO].commits) == 2
    hub.fail("tag", status, times=0)
    done = put(hub)
    assert (done["changed"], done["version"]) == (False, "v1")
    assert hub.repos[REPO].tags == {"v1": hub.repos[REPO].head.oid}


def test_a_tag_whose_answer_was_lost_is_not_made_twice(hub: HubServer, waits: list[float]) -> None:
    hub.lose_answer("tag")
    assert put(hub)["version"] == "v1"
    assert list(hub.repos[REPO].tags) == ["v1"]


def test_a_file_that_arrives_damaged_is_refused_and_nothing_is_committed(hub: HubServer) -> None:
    hub.damage("lfs_put", times=None)
    assert "sha256" in refused(hub).message
    assert len(hub.repos[REPO].commits) == 1
    hub.damage("lfs_put", times=0)
    assert put(hub)["changed"]


def test_an_upload_that_was_cut_off_is_not_sent_twice(hub: HubServer, waits: list[float]) -> None:
    """What had arrived is there when it is published again."""
    hub.fail("commit", DROP)
    refused(hub)
    sent = hub.count("lfs_put")
    hub.fail("commit", DROP, times=0)
    assert put(hub)["changed"]
    assert hub.count("lfs_put") == sent


def test_a_hub_that_never_answers_is_asked_again(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "TIMEOUT", 2.0)
    hub.delay("create", 600)
    assert put(hub)["changed"]
    assert hub.count("commit") == 1


def test_another_format_takes_the_place_of_what_adreg_published(
    hub: HubServer, tmp_path: Path
) -> None:
    ours = b"---\ntags:\n- adreg\n---\n"
    mine = Upload("pytorch_lora_weights.safetensors", b"lora")
    put(hub, [Upload("README.md", ours), *files()[1:], Upload("model_index.json", b"{}")])
    done = put(hub, [Upload("README.md", ours), mine], form="lora")
    gone = ["images/0.png", "model_index.json", "unet/diffusion_pytorch_model.safetensors"]
    assert done["removed"] == gone
    assert put(hub, [Upload("README.md", ours), *files()[1:]])["removed"] == [mine.path]
    settings = {"endpoint": hub.url, "token": hub.token, "cache_dir": tmp_path}
    first = snapshot_download(REPO, revision="v1", **settings)
    assert (Path(first) / gone[-1]).read_bytes() == WEIGHTS


@pytest.mark.parametrize("status", [409, 412])
def test_a_repository_that_moved_is_a_conflict(hub: HubServer, status: int) -> None:
    hub.fail("commit", status)
    assert isinstance(refused(hub), ConflictError)


def test_a_commit_somebody_made_meanwhile_is_not_overwritten(hub: HubServer) -> None:
    put(hub)
    repo = hub.repos[REPO]
    theirs = repo.head.files | {"README.md": Blob(b"theirs", False)}
    hub.meanwhile("commit", lambda: repo.add("theirs", theirs))
    assert isinstance(refused(hub, uploads=files(WEIGHTS[::-1])), ConflictError)
    assert repo.head.files["README.md"].content == b"theirs"


def test_no_token(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    error = refused(hub)
    assert isinstance(error, ExternalError)
    assert "hf auth login" in (error.remedy or "")
    assert hub.requests == []


def test_a_trusted_publisher_that_gets_no_token(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_OIDC_RESOURCE", "me/trio")
    assert isinstance(refused(hub), ExternalError)
    assert hub.requests == []


def test_a_token_of_nobody_and_a_read_only_one(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.role = "read"
    assert "may only read" in refused(hub).message
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "401" in refused(hub).message
    assert [route for route, _ in hub.requests] == ["whoami", "whoami"]


def test_a_hub_that_is_not_there(hub: HubServer) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ExternalError, match=f"cannot reach {REPO} at {url}") as caught:
            put(hub, endpoint=url)
    assert caught.value.retryable


def test_a_server_that_is_no_hub(hub: HubServer) -> None:
    """It answers everything, in words of its own."""
    hub.fail("whoami", 200)
    hub.fail("create", 200)
    error = refused(hub)
    assert isinstance(error, ExternalError)
    assert not error.retryable
    assert "HF_ENDPOINT" in (error.remedy or "")
    assert hub.count("create") == 0


def test_an_answer_the_client_does_not_understand(hub: HubServer) -> None:
    hub.fail("create", 200)
    error = refused(hub)
    assert isinstance(error, ExternalError)
    assert "HF_ENDPOINT" in (error.remedy or "")


def test_offline_mode(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    error = refused(hub)
    assert "HF_HUB_OFFLINE" in (error.remedy or "")
    assert hub.requests == []


@pytest.mark.parametrize("repo", ["trio", "a/b/c", "me/tri o", "me/--", "", "me/x.git", "../x"])
def test_ids_the_hub_would_not_take(repo: str) -> None:
    with pytest.raises(UsageError, match="repositor"):
        check_repo(repo)


@pytest.mark.parametrize("endpoint", ["hub", "ftp://hub", "http://", "http://a b", "http://x?y"])
def test_endpoints_that_are_none(endpoint: str) -> None:
    with pytest.raises(UsageError, match="endpoint"):
        check_endpoint(endpoint)


def test_an_endpoint_with_credentials_is_not_even_quoted() -> None:
    with pytest.raises(UsageError) as caught:
        check_endpoint("http://alice:secret@hub")
    assert "secret" not in repr(vars(caught.value))


@pytest.fixture
def all_logs(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Every record of every logger, also of those that do not propagate."""
    names = ["huggingface_hub", "httpx2", "httpcore2", "adreg"]
    loggers = [logging.getLogger(name) for name in names]
    for logger in loggers:
        logger.addHandler(caplog.handler)
        logger.setLevel(logging.DEBUG)
    yield caplog
    for logger in loggers:
        logger.removeHandler(caplog.handler)
        logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize("token", ["hf_plantedPlanted", "planted.Token", "hf_planted\x01planted"])
@pytest.mark.parametrize("route", ["whoami", "create", "preupload", "lfs_put", "commit"])
def test_the_token_shows_nowhere(
    hub: HubServer,
    all_logs: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    token: str,
    route: str,
) -> None:
    """Not even where the server quotes it back."""
    hub.token = token
    monkeypatch.setenv("HF_TOKEN", token)
    hub.fail(route, 403, message=f"bad token {token} (Bearer {token})")
    error = refused(hub)
    out, err = capfd.readouterr()
    seen = f"{everything(error)}{out}{err}{all_logs.text}"
    assert "lanted" not in seen


def test_a_result_and_its_logs_hold_no_token(
    hub: HubServer, all_logs: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    done = put(hub)
    out, err = capfd.readouterr()
    assert hub.token not in f"{done}{out}{err}{all_logs.text}"
    assert all_logs.text  # the client did log, so there was something to find


@pytest.mark.parametrize("off", [False, True])
@pytest.mark.parametrize("offered", [False, True])
def test_xet_is_used_where_the_server_has_it_and_nobody_has_turned_it_off(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, offered: bool, off: bool
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", off)
    hub.xet, used = offered, list[bool]()
    hub.meanwhile("preupload", lambda: used.append(not constants.HF_HUB_DISABLE_XET))
    put(hub, files()[:1])  # no large file, so nothing that would go there
    assert used == [offered and not off]
    assert constants.HF_HUB_DISABLE_XET is off


@pytest.fixture
def impatient_xet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A session of the client of Xet that tries again once, and soon."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_BASE_DELAY", "10ms")
    abort_xet_session()
    yield
    abort_xet_session()


def large_files() -> list[Upload]:
    raw = random.Random(0).randbytes(300_000)
    return [
        Upload("README.md", README),
        Upload("unet/diffusion_pytorch_model.safetensors", raw[:200_000]),
        Upload("vae/diffusion_pytorch_model.safetensors", raw[200_000:]),
    ]


@pytest.mark.usefixtures("impatient_xet")
def test_large_files_go_by_xet_where_the_server_has_it(hub: HubServer) -> None:
    """The real client of Xet, which shows the storage no token but its own."""
    hub.xet = True
    done = put(hub, large_files())
    assert (done["version"], done["notices"]) == ("v1", [])
    assert (hub.count("shard") > 0, hub.count("lfs_batch")) == (True, 0)
    there = hub.repos[REPO].head.files
    assert {path: there[path].content for path in there if path != ".gitattributes"} == {
        upload.path: upload.content for upload in large_files()
    }
    assert not put(hub, large_files())["changed"]
    assert hub.count("commit") == 1


@pytest.mark.usefixtures("impatient_xet")
@pytest.mark.parametrize("status", [403, 500, DROP])
@pytest.mark.parametrize("route", ["xorb", "shard"])
def test_large_files_go_to_the_hub_itself_where_its_xet_fails(
    hub: HubServer, route: str, status: int
) -> None:
    hub.xet = True
    hub.fail(route, status)
    done = put(hub, large_files())
    assert done["version"] == "v1"
    assert "HF_HUB_DISABLE_XET" in done["notices"][0]
    assert (hub.count(route) > 0, hub.count("lfs_put")) == (True, 2)
    assert len(hub.repos[REPO].commits) == 2
    assert not constants.HF_HUB_DISABLE_XET


def test_the_clients_settings_are_put_back(hub: HubServer) -> None:
    from huggingface_hub.utils import are_progress_bars_disabled

    before = constants.HF_HUB_DISABLE_XET, are_progress_bars_disabled()
    put(hub)
    assert (constants.HF_HUB_DISABLE_XET, are_progress_bars_disabled()) == before
