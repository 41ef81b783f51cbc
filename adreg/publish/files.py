"""What of a checkpoint, an adapter and its previews is uploaded: an allow-list.

Anything not named here stays at home and is listed as left out. What would tell where files lay
on this machine (paths in configs, a trainer's notes in a header, metadata of images) is removed
from the copy that is sent.
"""

from __future__ import annotations

import io
import json
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from adreg.bases.find import WITH_WEIGHTS
from adreg.domain import slug
from adreg.errors import ArtifactError, NotFoundError
from adreg.formats.header import Header, read_header, read_tensor_bytes
from adreg.formats.spelling import DENSE_SUFFIX, TOKEN_PREFIX, token_trigger
from adreg.publish.format import Format

COMPONENTS = (
    "feature_extractor",
    "image_encoder",
    "safety_checker",
    "scheduler",
    "text_encoder",
    "text_encoder_2",
    "tokenizer",
    "tokenizer_2",
    "unet",
    "vae",
)
LORA_FILE = "pytorch_lora_weights.safetensors"
_ROOT_FILES = ("model_index.json", "adreg_recipe.json")
_SUFFIXES = (".json", ".txt", ".safetensors")
_PATH_KEYS = ("_name_or_path", "name_or_path", "base_model_name_or_path")
_LOCAL_PATH = re.compile(r"[/~.\\]|[A-Za-z]:[/\\]")
_MAX_PIXELS = 50_000_000
# What a header may keep. A trainer's own notes (ss_dataset_dirs, ss_tag_frequency, a thumbnail
# that may be a training photo) go no further than this machine.
_KEPT_METADATA = re.compile(
    r"format|adreg|lora_adapter_metadata|ss_base_model_version|ss_network_(module|dim|alpha)"
    r"|modelspec\.(sai_model_spec|architecture|implementation|title|resolution|description|author"
    r"|hash_sha256|trigger_phrase|tags|license|prediction_type|merged_from)"
)
_PICTURES = r"images/\d+\.png"
_FOLDERS = rf"({'|'.join(COMPONENTS)})/[^/]+({'|'.join(_SUFFIXES)})"
_EMBEDDINGS = r"embeddings/[^/]+\.safetensors"
_MANAGED = {
    "diffusers": re.compile(f"{_PICTURES}|{_FOLDERS}"),
    "lora": re.compile(f"{_PICTURES}|{_EMBEDDINGS}"),
    "both": re.compile(f"{_PICTURES}|{_FOLDERS}|{_EMBEDDINGS}"),
}


@dataclass(frozen=True)
class Upload:
    """One file of the commit: its path in the repository, and a local file or its bytes."""

    path: str
    content: Path | bytes

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


@dataclass(frozen=True)
class Planned:
    """A file of a dry run that is not made yet: about how large it will be."""

    path: str
    size: int


@dataclass(frozen=True)
class LoraFiles:
    """An adapter as it is published: files that are there, files that will be.

    `embeddings` are (trigger, path in the repository); `factors` says whether there are any.
    """

    uploads: tuple[Upload, ...]
    embeddings: tuple[tuple[str, str], ...]
    factors: bool
    planned: tuple[Planned, ...] = ()


@dataclass(frozen=True)
class Selection:
    """What goes up, sorted by path; `left_out` are paths relative to the folder."""

    uploads: tuple[Upload, ...]
    left_out: tuple[str, ...] = ()


def checkpoint_files(folder: Path) -> Selection:
    """The files of a diffusers folder that are published.

    NotFoundError without a folder. ArtifactError (naming the file) for a symbolic link, for a
    folder without model_index.json, and for a component that would arrive without its files.
    """
    if not folder.is_dir():
        raise NotFoundError(
            f"no checkpoint folder at {folder}", remedy="restore it: adreg merge --again NAME"
        )
    uploads, left_out = [], []
    for path in _walk(folder):
        name = path.relative_to(folder).as_posix()
        if _is_published(name):
            uploads.append(Upload(name, _cleaned_json(path)))
        else:
            left_out.append(name)
    _check_complete(folder, {upload.path for upload in uploads})
    return Selection(tuple(uploads), tuple(left_out))


def adapter_files(path: Path) -> Selection:
    """An adapter's weights, and each token embedding of the bundle as a file of its own.

    The embeddings are cut from the bundle byte for byte: one key, the trigger, as diffusers'
    `load_textual_inversion` wants it; of SDXL a file for each text encoder. Where there is nothing
    else, no LoRA file goes with them: diffusers would refuse it. ArtifactError for a link, a
    malformed file, or whole weights, which no program could load.
    """
    _refuse_link(path)
    header = read_header(path)
    whole = min((key for key in header.tensors if key.endswith(DENSE_SUFFIX)), default=None)
    if whole is not None:
        raise ArtifactError(
            f"{path} holds whole weights (key {whole!r}), which no other program loads",
            remedy="merge it into a checkpoint and publish that: adreg merge NAME --name OTHER",
        )
    embeddings = tuple(_embeddings(header))
    if len(embeddings) == len(header.tensors):
        return Selection(embeddings)
    return Selection((*embeddings, Upload(LORA_FILE, _cleaned_adapter(header))))


def lora_files(path: Path) -> LoraFiles:
    """What `adapter_files` selects, with what a card says of it. Raises what that raises."""
    selection = adapter_files(path)
    factors = any(upload.path == LORA_FILE for upload in selection.uploads)
    return LoraFiles(selection.uploads, tuple(embedding_files(selection)), factors)


def planned_lora(factors: int, size: int, tokens: Mapping[str, int]) -> LoraFiles:
    """What will be published of a LoRA that is still to be cut.

    `factors` are its modules, `size` its bytes; `tokens` maps the keys of its embeddings to theirs.
    """
    named = list(_embedding_paths(tokens))
    planned = tuple(Planned(path, tokens[key]) for key, _, path in named)
    lora = (Planned(LORA_FILE, size),) if factors else ()
    embeddings = tuple((trigger, path) for _, trigger, path in named)
    return LoraFiles((), embeddings, bool(factors), (*planned, *lora))


def embedding_files(selection: Selection) -> list[tuple[str, str]]:
    """(trigger, path in the repository) of the token embeddings among the files."""
    return [
        (next(iter(_entries(upload.content))), upload.path)
        for upload in selection.uploads
        if upload.path.startswith("embeddings/") and isinstance(upload.content, bytes)
    ]


def preview_files(paths: Iterable[Path]) -> tuple[Upload, ...]:
    """The pictures as images/0.png, images/1.png ..., encoded anew: pixels and nothing else.

    NotFoundError or ArtifactError naming a picture that is missing or cannot be read.
    """
    return tuple(Upload(f"images/{index}.png", _encoded(path)) for index, path in enumerate(paths))


def stale_files(
    form: Format, there: Iterable[str], now: Iterable[str], *, ours: bool = False
) -> list[str]:
    """Files an earlier publication left in the repository that this one does not bring.

    A shard of older weights beside newer ones would be loaded in their place. Only what adreg
    itself writes in this format counts, or in any where its card is there (`ours`): everything
    else in the repository is the user's.
    """
    kept = set(now)
    others = (*_ROOT_FILES, LORA_FILE) if ours else ()
    managed = _MANAGED["both" if ours else form]
    return sorted(p for p in there if p not in kept and (managed.fullmatch(p) or p in others))


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        _refuse_link(path)
        if path.is_file():
            yield path


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise ArtifactError(
            f"{path} is a symbolic link: what it points to is not published unseen",
            remedy="put a copy of the file in its place",
        )


def _is_published(name: str) -> bool:
    folder, _, file = name.rpartition("/")
    return name in _ROOT_FILES or (folder in COMPONENTS and file.endswith(_SUFFIXES))


def _check_complete(folder: Path, names: set[str]) -> None:
    """Every component the index names arrives, and those that learn arrive with weights."""
    index = folder / "model_index.json"
    if "model_index.json" not in names:
        raise ArtifactError(f"{index} is missing", remedy="publish a diffusers folder")
    for component, made_of in sorted(_read_json(index).items()):
        if not isinstance(made_of, list) or not made_of or made_of[0] is None:
            continue
        suffix = ".safetensors" if component in WITH_WEIGHTS else _SUFFIXES
        if not any(n.startswith(f"{component}/") and n.endswith(suffix) for n in names):
            raise ArtifactError(
                f"{index} names {component!r}, but {folder / component} has no file to publish",
                remedy="save the pipeline as safetensors",
            )


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise ArtifactError(f"{path} holds no JSON object")
    return content


def _cleaned_json(path: Path) -> Path | bytes:
    """The file itself, or its text without the local paths libraries write into configs."""
    if path.name not in ("config.json", "model_index.json", "tokenizer_config.json"):
        return path
    content = _read_json(path)
    kept = _without_local_paths(content)
    if kept == content:
        return path
    return (json.dumps(kept, indent=2, ensure_ascii=False) + "\n").encode()


def _without_local_paths(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if not _is_local_path(key, value)}


def _is_local_path(key: str, value: Any) -> bool:
    # diffusers prefixes the keys of an adapter's config with the component: "unet.base_..."
    named = key.rpartition(".")[2] in _PATH_KEYS
    return named and isinstance(value, str) and _LOCAL_PATH.match(value) is not None


def _cleaned_adapter(header: Header) -> Path | bytes:
    kept = {k: v for k, v in header.metadata.items() if _KEPT_METADATA.fullmatch(k)}
    if "lora_adapter_metadata" in kept:
        kept["lora_adapter_metadata"] = _cleaned_lora_config(header, kept["lora_adapter_metadata"])
    if kept == header.metadata:
        return header.path
    data = header.path.read_bytes()[header.data_start :]
    entries = {
        key: {"dtype": t.dtype, "shape": list(t.shape), "data_offsets": [t.start, t.end]}
        for key, t in header.tensors.items()
    }
    return _bundle({"__metadata__": kept, **entries} if kept else entries, data)


def _cleaned_lora_config(header: Header, text: str) -> str:
    try:
        config = json.loads(text)
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise ArtifactError(f"{header.path} has a lora_adapter_metadata that is no JSON object")
    kept = _without_local_paths(config)
    return text if kept == config else json.dumps(kept, sort_keys=True)


def _embeddings(header: Header) -> Iterator[Upload]:
    for key, trigger, path in _embedding_paths(header.tensors):
        tensor = header.tensors[key]
        raw = read_tensor_bytes(header, key)
        entry = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [0, len(raw)]}
        yield Upload(path, _bundle({trigger: entry}, raw))


def _embedding_paths(keys: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """(key, trigger, path in the repository) of the embeddings among an adapter's keys."""
    taken: set[str] = set()
    for key in sorted(key for key in keys if key.startswith(TOKEN_PREFIX)):
        trigger, encoder = token_trigger(key) or (key.removeprefix(TOKEN_PREFIX), "")
        wanted = f"{slug(trigger)}.{encoder}" if encoder else slug(trigger)
        yield key, trigger, f"embeddings/{_free_name(wanted, taken)}.safetensors"


def _free_name(wanted: str, taken: set[str]) -> str:
    """`wanted`, or wanted-2 ... where two triggers share a slug."""
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted}-{number}", number + 1
    taken.add(name)
    return name


def _bundle(entries: Mapping[str, Any], data: bytes) -> bytes:
    """A safetensors file: u64 header length, header padded to 8 bytes, data."""
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def _entries(bundle: bytes) -> Mapping[str, Any]:
    (length,) = struct.unpack_from("<Q", bundle)
    entries: Mapping[str, Any] = json.loads(bundle[8 : 8 + length])
    return entries


def _encoded(path: Path) -> bytes:
    _refuse_link(path)
    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise ArtifactError(f"{path} has more than {_MAX_PIXELS} pixels")
            pixels = Image.frombytes("RGB", image.size, image.convert("RGB").tobytes())
    except FileNotFoundError:
        raise NotFoundError(f"no preview at {path}") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read as a picture: {error}") from None
    out = io.BytesIO()
    pixels.save(out, "PNG", optimize=True)
    return out.getvalue()
