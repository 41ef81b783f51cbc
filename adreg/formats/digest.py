"""An adapter's identity: the SHA-256 of what it does, whatever its header says beside.

The tensor bytes alone are not enough: files that differ only in an alpha kept in the header, or
in key names, share them. `start` is part of it because two tensors of one shape could be swapped.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from adreg.errors import ArtifactError
from adreg.formats.header import Header, read_pieces
from adreg.formats.probe import Probe, probe
from adreg.store.digest import sha256_json

# dtype -> (unsigned integer of the same width, bits of the exponent): all set = NaN or infinity
_EXPONENT = {
    "F64": ("<u8", 0x7FF0000000000000),
    "F32": ("<u4", 0x7F800000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}


def adapter_digest(path: Path) -> str:
    """SHA-256 (hex) of the canonical manifest of an adapter file.

    The manifest: sorted (key, dtype, shape, start), the effective scale of each module, SHA-256
    of each token's embedding, and SHA-256 of the tensor region. Header metadata that changes no
    delta is not in it. Raises what `probe` raises, and ArtifactError (naming file and key) for
    values that are not finite.
    """
    found = probe(path)
    region, tokens = _hashes(found)
    tensors = [
        [key, info.dtype, list(info.shape), info.start]
        for key, info in sorted(found.header.tensors.items())
    ]
    return sha256_json(
        {
            "version": 1,
            "tensors": tensors,
            "scales": dict(found.scales),
            "tokens": tokens,
            "region": region,
        }
    )


def _hashes(found: Probe) -> tuple[str, dict[str, str]]:
    """SHA-256 of the tensor region, and of each token's bytes, in one reading."""
    header = found.header
    triggers = {
        key: trigger if len(keys) == 1 else key
        for trigger, keys in found.tokens.items()
        for key in keys
    }
    region, tokens = hashlib.sha256(), {}
    for key in sorted(header.tensors, key=lambda key: header.tensors[key].start):
        own = hashlib.sha256()
        for raw in read_pieces(header, key):
            _check_finite(header, key, raw)
            region.update(raw)
            if key in triggers:
                own.update(raw)
        if key in triggers:
            tokens[triggers[key]] = own.hexdigest()
    return region.hexdigest(), tokens


def _check_finite(header: Header, key: str, raw: bytes) -> None:
    kind = _EXPONENT.get(header.tensors[key].dtype)
    if kind is None:
        return
    bits = np.frombuffer(raw, dtype=kind[0])
    if ((bits & kind[1]) == kind[1]).any():
        raise ArtifactError(
            f"{header.path} holds values that are not finite (key {key!r})",
            remedy="the training diverged or the file is damaged: use another copy",
        )
