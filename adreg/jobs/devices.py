"""`python -m adreg.jobs.devices NAME...`: prints, as JSON, why one is not to be had; else nothing.

A process of its own, since whoever asks loads no torch.
"""

from __future__ import annotations

import json
import sys

from adreg.bases.load import pick_device
from adreg.errors import AdregError

if __name__ == "__main__":
    try:
        for name in sys.argv[1:]:
            pick_device(name)
    except AdregError as error:
        print(json.dumps(error.to_json()))
