"""`python -m adreg.jobs.look device NAME` or `hub`: what this machine has, or whose login it is.

A process of its own, for loading torch takes seconds and may fail, and a network may hang.
"""

from __future__ import annotations

import json
import sys

from adreg.domain import Json
from adreg.errors import AdregError


def devices(wanted: str) -> Json:
    """torch's version, every GPU with its memory (bytes), and the device that jobs would run on."""
    import torch

    from adreg.bases.load import pick_device

    found = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(number)
        name = torch.cuda.get_device_name(number)
        found.append({"name": name, "free": free, "total": total})
    try:
        picked = {"picked": str(pick_device(wanted))}
    except AdregError as error:
        picked = {"error": error.message}
    return {"torch": torch.__version__, "gpus": found, **picked}


def login() -> Json:
    """Who the Hub says we are; `trouble` where it says nothing. No word of what it answered is
    passed on: it may hold the token."""
    from huggingface_hub import HfApi, constants, errors, get_token

    token = get_token()
    if token is None:
        return {"trouble": "no login"}
    if constants.HF_HUB_OFFLINE:
        return {"trouble": "offline"}
    try:
        told = HfApi().whoami(token)
    except errors.HfHubHTTPError as error:
        return {"trouble": "refused" if error.response.status_code == 401 else "unreachable"}
    except Exception as error:
        return {"trouble": "unreachable", "how": type(error).__name__}
    role = ((told.get("auth") or {}).get("accessToken") or {}).get("role")
    return {"name": told.get("name"), "role": role}


if __name__ == "__main__":
    what, *more = sys.argv[1:]
    sys.stdout.write(json.dumps(devices(*more) if what == "device" else login()))
