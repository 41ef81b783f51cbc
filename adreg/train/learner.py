"""The parts of a pipeline that learn: the triggers' embeddings, and low-rank factors in the UNet or
the deltas of whole weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adreg.diffusion.attach import disabled, patched_modules, peft_name
from adreg.diffusion.dense import add_delta
from adreg.diffusion.modules import get_module, live_name, weight_matrix
from adreg.diffusion.text import Text, encode_ids, joined, text_widths
from adreg.diffusion.tokens import add_tokens, drop_tokens, token_ids
from adreg.errors import ArtifactError
from adreg.formats.factors import Factors
from adreg.formats.read import AdapterWeights
from adreg.train.dataset import Batch
from adreg.train.precision import autocast
from adreg.train.spec import Precision
from adreg.train.vocabulary import TriggerEmbedding, add_triggers, own_vocabulary

_SLOT = "training"


class OutsideOf(nn.Module):
    """A (I - V V^T) for A (r x in) and V (in x k) of orthonormal columns: blind to their span."""

    def __init__(self, directions: Tensor) -> None:
        super().__init__()
        self.directions = nn.Buffer(directions)

    def forward(self, down: Tensor) -> Tensor:
        return down - (down @ self.directions) @ self.directions.T


class Learner:
    """A pipeline in training: what it predicts, with and without what was learnt so far.

    `dense` maps the modules whose whole weights learn to their deltas (out x in, fp32, 0 at first).
    `past` maps modules to the sum of a line's earlier deltas (out x in), `past_triggers` are its
    concepts and `statistics` what its tasks left behind: empty but for a line's later tasks. A
    method that keeps the outputs on some inputs puts them (in x T) into `kept_inputs`, by module,
    and token ids (n x 77, of SDXL n x 154, here as below) of prompts without a trigger into
    `ordinary`. `precision` is what the UNet predicts in.
    """

    def __init__(
        self,
        pipe: Any,
        modules: Sequence[str],
        trigger: list[int],
        past: Mapping[str, Tensor],
        past_triggers: Sequence[str] = (),
        statistics: Mapping[str, Tensor] | None = None,
        dense: Mapping[str, nn.Parameter] | None = None,
    ) -> None:
        self.past = past
        self.dense = dense or {}
        self.past_triggers = tuple(past_triggers)
        self.statistics = statistics or {}
        self.kept_inputs: Mapping[str, Tensor] = {}
        self.ordinary: tuple[Tensor, ...] = ()
        self.precision: Precision = "fp32"
        self._pipe = pipe
        self._modules = modules
        self._trigger = trigger
        self._plain: dict[tuple[int, ...], Text] = {}
        self._still: dict[tuple[int, ...], Text] = {}
        self._still_token: Tensor | None = None

    def parameters(self) -> dict[str, nn.Parameter]:
        """Everything that learns, by name, in a fixed order: the factors, then the token."""
        found: dict[str, nn.Parameter] = {}
        for module in self._modules:
            layer = self._layer(module)
            down = _own_weight(layer.lora_A[peft_name(_SLOT)])
            if down.requires_grad:
                found[f"{module}.down"] = down
            found[f"{module}.up"] = layer.lora_B[peft_name(_SLOT)].weight
        found.update({f"{module}.dense": delta for module, delta in self.dense.items()})
        found["token"] = self._embedding().rows
        return found

    def factors(self) -> dict[str, Factors]:
        """The factors as they are now, with their gradients."""
        slot = peft_name(_SLOT)
        return {
            module: Factors(layer.lora_B[slot].weight, layer.lora_A[slot].weight)
            for module in self._modules
            for layer in [self._layer(module)]
        }

    def weights(self) -> dict[str, Tensor]:
        """What each learning module starts from, the line's earlier deltas included (out x in)."""
        return {module: weight_matrix(self._layer(module)) for module in self._modules}

    def fix_down(self, module: str, rows: Tensor) -> None:
        """Sets the module's down factor (r x in) for good: only up learns."""
        part = self._layer(module).lora_A[peft_name(_SLOT)]
        part.weight.data.copy_(rows)
        part.weight.requires_grad_(False)

    def stay_outside_of(self, directions: Tensor) -> None:
        """Keeps every delta blind to inputs in the span of orthonormal columns (in x k)."""
        for module in self._modules:
            part = self._layer(module).lora_A[peft_name(_SLOT)]
            outside = OutsideOf(directions.to(part.weight))
            parametrize.register_parametrization(part, "weight", outside)

    def token(self) -> Tensor:
        """The triggers' embeddings (n x d), one row each: of SDXL both encoders' side by side."""
        return self._embedding().rows

    def token_widths(self) -> tuple[int, ...]:
        """How many of the token's columns are each text encoder's, where there are several."""
        widths = text_widths(self._pipe)
        return tuple(widths) if len(widths) > 1 else ()

    def text(self, ids: Tensor) -> Text:
        """What prompts say, with the token's gradient; read once as long as the token is frozen."""
        token = self.token()
        if token.requires_grad:
            return encode_ids(self._pipe, ids)
        if self._still_token is None or not torch.equal(self._still_token, token):
            self._still, self._still_token = {}, token.detach().clone()
        return self._read_once(ids, self._still)

    def ids(self, prompts: Sequence[str]) -> Tensor:
        """Token ids of prompts."""
        return token_ids(self._pipe, prompts)

    def plain_text(self, ids: Tensor) -> Text:
        """What the same prompts say without a trigger, which nothing learnt changes."""
        return self._read_once(drop_tokens(self._pipe, ids, self._trigger), self._plain)

    def predict(self, batch: Batch, *texts: Text) -> Tensor:
        """eps_{theta + D}(z_t, t, text), or v: what the base's UNet predicts of a batch, for one
        text after the other (k n x c x h x w) in one pass.
        """
        text = joined(texts)
        noisy, timesteps, time_ids = (
            torch.cat([part] * len(texts))
            for part in (batch.noisy, batch.timesteps, batch.time_ids)
        )
        told = None if text.pooled is None else {"text_embeds": text.pooled, "time_ids": time_ids}
        with autocast(self.precision, noisy.device):
            found: Tensor = self._pipe.unet(
                noisy, timesteps, text.features, added_cond_kwargs=told, return_dict=False
            )[0]
        return found.float()

    @torch.no_grad()
    def predict_base(self, batch: Batch, text: Text) -> Tensor:
        """eps_theta(z_t, t, text): the one UNet with what is being learnt switched off."""
        with disabled(self._pipe):
            return self.predict(batch, text)

    @torch.no_grad()
    def _read_once(self, ids: Tensor, known: dict[tuple[int, ...], Text]) -> Text:
        """The text of prompts, row by row; what is `known` is not read again."""
        rows = []
        for row in ids:
            key = tuple(row.tolist())
            if key not in known:
                known[key] = encode_ids(self._pipe, row[None])
            rows.append(known[key])
        return joined(rows)

    def _layer(self, module: str) -> LoraLayer:
        layer = get_module(self._pipe, module)
        assert isinstance(layer, LoraLayer)
        return layer

    def _embedding(self) -> TriggerEmbedding:
        """The first text encoder's: all of them share its rows."""
        table = self._pipe.text_encoder.get_input_embeddings()
        assert isinstance(table, TriggerEmbedding)
        return table


@contextmanager
def learning(
    pipe: Any,
    modules: Sequence[str],
    rank: int,
    trigger: str,
    init: str | None,
    *,
    also: Mapping[str, str | None] | None = None,
    parent: AdapterWeights | None = None,
    statistics: Mapping[str, Tensor] | None = None,
    full: bool = False,
    seed: int = 0,
) -> Iterator[Learner]:
    """Makes the pipeline learn `trigger` with fresh factors of `rank` on `modules`; with `full`
    their whole weights instead.

    The token starts as the mean of the words of `init`, or at random where that is None; `also`
    are further triggers that learn, each with its words. A
    `parent`'s tokens and deltas count as part of the base. Afterwards the pipeline is what it was.
    Raises ConflictError where the trigger is a token already, ArtifactError for a missing module.
    """
    generator = torch.Generator().manual_seed(seed)
    earlier = parent or AdapterWeights({})
    with own_vocabulary(pipe):
        add_tokens(pipe, earlier.tokens)
        ids = add_triggers(pipe, {trigger: init, **(also or {})}, generator)
        with _fused(pipe, earlier.factors) as past:
            dense = _add_dense(pipe, modules if full else [])
            low_rank = [] if full else modules
            _add_factors(pipe, low_rank, rank, generator)
            yield Learner(pipe, low_rank, ids, past, list(earlier.tokens), statistics, dense)


def _own_weight(layer: Any) -> nn.Parameter:
    """The parameter behind a layer's weight, where that is computed from one."""
    if parametrize.is_parametrized(layer, "weight"):
        found: nn.Parameter = layer.parametrizations.weight.original
        return found
    weight: nn.Parameter = layer.weight
    return weight


def _add_dense(pipe: Any, modules: Sequence[str]) -> dict[str, nn.Parameter]:
    """A delta of 0 on each module. AdamW's decay then pulls towards the base, not towards 0."""
    found: dict[str, nn.Parameter] = {}
    for module in modules:
        fresh = torch.zeros(weight_matrix(get_module(pipe, module)).shape)
        found[module] = add_delta(pipe, module, peft_name(_SLOT), fresh)
        found[module].requires_grad_()
    return found


def _add_factors(pipe: Any, modules: Sequence[str], rank: int, generator: torch.Generator) -> None:
    """down as in LoRA's own code (Kaiming uniform, a = sqrt 5), up at 0 (arXiv 2106.09685)."""
    if not modules:
        return
    paths = [live_name(module).removeprefix("unet.") for module in modules]
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=paths)
    pipe.unet.add_adapter(config, peft_name(_SLOT))
    if patched_modules(pipe, _SLOT) != sorted(modules):
        raise ArtifactError("the base's modules are not those of its files")
    for module in modules:
        layer = get_module(pipe, module)
        assert isinstance(layer, LoraLayer)
        down, up = (part[peft_name(_SLOT)].weight for part in (layer.lora_A, layer.lora_B))
        fresh = torch.empty(down.shape)
        nn.init.kaiming_uniform_(fresh, a=math.sqrt(5), generator=generator)
        down.data.copy_(fresh)
        nn.init.zeros_(up)


@contextmanager
def _fused(pipe: Any, factors: Mapping[str, Factors]) -> Iterator[dict[str, Tensor]]:
    """The deltas inside the weights for as long as the context lasts; yields them, dense."""
    kept: dict[str, Tensor] = {}
    past: dict[str, Tensor] = {}
    try:
        for module, factor in factors.items():
            weight = weight_matrix(get_module(pipe, module))
            past[module] = factor.delta().to(weight.device)
            kept[module] = weight.detach().clone()
            weight.data.add_(past[module].to(weight))
        yield past
    finally:
        for module, weight in kept.items():
            weight_matrix(get_module(pipe, module)).data.copy_(weight)
