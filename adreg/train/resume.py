"""The state of a training run on disk, so that a killed run goes on exactly where it was.

One file a saved step: tensors, and in the header the run it belongs to and a checksum. A new
file is written, synced, renamed and read back before older ones go; the one before it stays, in
case the newest turns out damaged.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from adreg.errors import ArtifactError
from adreg.store.staging import writing
from adreg.train.memory import MicroBatches

_NAME = re.compile(r"state-(\d{8})\.safetensors")
_KEPT = 2


@dataclass(frozen=True)
class State:
    """Step count done so far, and tensors: parameters, AdamW's moments, averages, generator; and
    where there is such a thing, when memory ran out (see MicroBatches) and fp16's scale.
    """

    step: int
    tensors: Mapping[str, Tensor]


def save_state(folder: Path, run: str, state: State) -> None:
    """Writes the state, verifies it, then deletes all but it and the one before.

    `run` says which run this is a state of. Raises ArtifactError where what was written does not
    read back, ExternalError where the disk refuses.
    """
    path = folder / f"state-{state.step:08}.safetensors"
    with writing(path) as file:
        file.write(_to_bytes(run, state))
    _read(path, run)
    for _, old in _states(folder)[:-_KEPT]:
        old.unlink(missing_ok=True)


def load_state(folder: Path, run: str) -> tuple[State | None, list[str]]:
    """The newest whole state of this run, and what was wrong with each newer file.

    A file that is damaged or of another run is told of and deleted, so that it is not tried again.
    """
    problems: list[str] = []
    for _, path in reversed(_states(folder)):
        try:
            return _read(path, run), problems
        except ArtifactError as error:
            problems.append(error.message)
            path.unlink()
    return None, problems


@dataclass(frozen=True)
class Keeper:
    """Saves and brings back the state of one run: all that a step depends on."""

    folder: Path
    run: str
    parameters: Mapping[str, nn.Parameter]
    optimizer: Optimizer
    generator: torch.Generator
    micro: MicroBatches
    scaler: GradScaler
    average: EMAModel | None = None
    losses: Tensor | None = None

    def save(self, step: int) -> None:
        """Raises what `save_state` raises."""
        save_state(self.folder, self.run, State(step, self._capture()))

    def restore(self) -> tuple[int | None, tuple[str, ...]]:
        """The step gone on from, None where there is no whole state; what was wrong with others."""
        state, problems = load_state(self.folder, self.run)
        if state is not None:
            self._put_back(state)
        return (state.step if state else None), tuple(problems)

    def _capture(self) -> dict[str, Tensor]:
        tensors = {"generator": self.generator.get_state()}
        for name, parameter in self.parameters.items():
            tensors[f"value.{name}"] = parameter.detach()
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"{key}.{name}"] = value
        for name, value in self._averages():
            tensors[f"average.{name}"] = value
        if self.losses is not None:
            tensors["losses"] = self.losses
        if self.micro.short:
            tensors["short"] = torch.tensor([[self.micro.parts, 0], *self.micro.short])
        if self.scaler.is_enabled():
            told = self.scaler.state_dict()
            tensors["scale"] = torch.tensor([told["scale"], told["_growth_tracker"]])
        return {key: value.cpu().contiguous() for key, value in tensors.items()}

    def _put_back(self, state: State) -> None:
        self.generator.set_state(state.tensors["generator"])
        for name, parameter in self.parameters.items():
            parameter.data.copy_(state.tensors[f"value.{name}"])
            if f"step.{name}" not in state.tensors:
                continue  # its stage had not begun
            moments = {
                key: state.tensors[f"{key}.{name}"].to(parameter)
                for key in ("exp_avg", "exp_avg_sq")
            }
            steps = state.tensors[f"step.{name}"].clone()
            self.optimizer.state[parameter] = {"step": steps, **moments}
        for name, value in self._averages():
            value.copy_(state.tensors[f"average.{name}"])
        if self.average is not None:
            self.average.optimization_step = state.step
        if self.losses is not None and "losses" in state.tensors:
            self.losses.copy_(state.tensors["losses"])
        if "short" in state.tensors:
            (self.micro.parts, _), *short = state.tensors["short"].tolist()
            self.micro.short = [(step, size) for step, size in short]
        if self.scaler.is_enabled():
            scale, unskipped = state.tensors["scale"].tolist()
            fresh = {"scale": scale, "_growth_tracker": int(unskipped)}
            self.scaler.load_state_dict({**self.scaler.state_dict(), **fresh})

    def _averages(self) -> Iterator[tuple[str, Tensor]]:
        if self.average is not None:
            yield from zip(self.parameters, self.average.shadow_params, strict=True)


def _states(folder: Path) -> list[tuple[int, Path]]:
    """(step, file), oldest first."""
    return sorted(_named(folder))


def _named(folder: Path) -> Iterator[tuple[int, Path]]:
    for path in folder.iterdir() if folder.is_dir() else ():
        if hit := _NAME.fullmatch(path.name):
            yield int(hit[1]), path


def _to_bytes(run: str, state: State) -> bytes:
    tensors = dict(state.tensors)
    facts = {"run": run, "step": state.step, "checksum": _checksum(tensors)}
    content: bytes = save(tensors, metadata={"adreg_state": json.dumps(facts)})
    return content


def _read(path: Path, run: str) -> State:
    try:
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        facts = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["adreg_state"])
        tensors = load(content)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ArtifactError(f"{path.name} is damaged: {error}") from None
    if facts["checksum"] != _checksum(tensors):
        raise ArtifactError(f"{path.name} is damaged: its checksum is another")
    if facts["run"] != run:
        raise ArtifactError(f"{path.name} belongs to another run")
    return State(facts["step"], tensors)


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
