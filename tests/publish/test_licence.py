from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import HfApi
from safetensors.numpy import save_file

from adreg.publish.licence import License, license_of_file, license_of_folder, license_on_hub
from adreg.publish.preflight import license_finding
from tests.hub_server import HubServer


@pytest.mark.parametrize(
    ("card", "found"),
    [
        ("---\nlicense: openrail++\n---\n", {"license": "openrail++"}),
        (
            "---\nlicense: other\nlicense_name: sai-nc\nlicense_link: LICENSE.md\n---\n",
            {"license": "other", "license_name": "sai-nc"},
        ),
        (
            "---\nlicense: other\nlicense_name: x\nlicense_link: https://x/y\n---\n",
            {"license": "other", "license_name": "x", "license_link": "https://x/y"},
        ),
        (
            "---\nlicense: 'Ask me: first'\n---\n",
            {"license": "other", "license_name": "Ask me: first"},
        ),
        ("---\nlicense: [mit]\n---\n", {}),
        ("---\nlicense: ''\n---\n", {}),
        ("---\nlicense: mit\n: [\n---\n", {}),
        ("no yaml", {}),
        (None, {}),
    ],
)
def test_a_bases_card_says_its_licence(
    tmp_path: Path, hub: HubServer, card: str | None, found: dict[str, str]
) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert license_of_folder(tmp_path) == found
    state = license_finding("base", license_of_folder(tmp_path)).state
    assert state == ("ok" if found.get("license") == "openrail++" else "warning")


def test_a_single_file_says_it_in_its_header(tmp_path: Path) -> None:
    file = tmp_path / "sd.safetensors"
    save_file({"a": np.ones(1)}, file, metadata={"modelspec.license": "CreativeML Open RAIL-M"})
    assert license_of_file(file)["license_name"] == "CreativeML Open RAIL-M"
    save_file({"a": np.ones(1)}, file)
    assert license_of_file(file) == {}
    assert license_of_file(tmp_path / "gone.safetensors") == {}


def test_a_base_on_the_hub_is_asked_for_its_card(hub: HubServer) -> None:
    api = HfApi(endpoint=hub.url, token=hub.token)
    commit = hub.host("them/sd", {"README.md": b"---\nlicense: openrail++\n---\n"})
    hub.host("them/sd", {"README.md": b"---\nlicense: mit\n---\n"})
    assert license_on_hub(api, "them/sd", commit) == {"license": "openrail++"}
    assert license_on_hub(api, "them/sd", None) == {"license": "mit"}
    assert license_on_hub(api, "them/gone", None) == {}
    card = b"---\nlicense: other\nlicense_name: x\nlicense_link: LICENSE.md\n---\n"
    hub.host("them/own", {"README.md": card})
    link = f"{hub.url}/them/own/blob/main/LICENSE.md"
    assert license_on_hub(api, "them/own", None)["license_link"] == link
    hub.host("them/bare", {"config.json": b"{}"})
    assert license_on_hub(api, "them/bare", None) == {}


@pytest.mark.parametrize(
    ("license", "state"),
    [
        ({"license": "apache-2.0"}, "ok"),
        ({"license": "creativeml-openrail-m"}, "ok"),
        ({"license": "cc-by-nc-sa-4.0"}, "warning"),
        ({"license": "cc-by-nd-4.0"}, "warning"),
        ({"license": "other", "license_name": "Their Words"}, "warning"),
        ({"license": "other", "license_name": "x", "license_link": "https://x/terms"}, "warning"),
    ],
)
def test_a_licence_that_restricts_is_one_to_be_read_first(license: License, state: str) -> None:
    found = license_finding("them/base", license)
    assert found.state == state
    where = license.get("license_link", "them/base")
    assert (found.remedy is None) if state == "ok" else (where in str(found.remedy))
