"""The losses again, straight from the papers' formulas: dense weights W + B A, one whole table.

Shares no code with adreg/train: no peft, no switched-off adapter, no batched halves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from adreg.train.dataset import Batch

Leaves = dict[str, Tensor]


class Reference:
    """A bare pipeline with leaves named as `Learner.parameters` names them."""

    def __init__(self, pipe: Any, leaves: Mapping[str, Tensor], past: Mapping[str, Tensor]) -> None:
        self.pipe = pipe
        self.leaves: Leaves = {k: v.detach().clone().requires_grad_() for k, v in leaves.items()}
        self.past = past
        self.first = len(pipe.tokenizer)

    def adapted(self, batch: Batch, ids: Tensor) -> Tensor:
        weights = dict(self.pipe.unet.named_parameters())
        for module in {name.rsplit(".", 1)[0] for name in self.leaves if name != "token"}:
            path = module.removeprefix("unet.") + ".weight"
            up, down = self.leaves[f"{module}.up"], self.leaves[f"{module}.down"]
            weights[path] = weights[path] + self.past.get(module, 0) + up @ down
        text = self._text(ids)
        return functional_call(self.pipe.unet, weights, (batch.noisy, batch.timesteps, text)).sample

    def base(self, batch: Batch, ids: Tensor) -> Tensor:
        with torch.no_grad():
            return self.pipe.unet(
                batch.noisy, batch.timesteps, self.pipe.text_encoder(ids)[0]
            ).sample

    def without_trigger(self, ids: Tensor) -> Tensor:
        rows = [[i for i in row if i < self.first] for row in ids.tolist()]
        pad = self.pipe.tokenizer.pad_token_id
        return torch.tensor([row + [pad] * (ids.shape[1] - len(row)) for row in rows])

    def _text(self, ids: Tensor) -> Tensor:
        key = "embeddings.token_embedding.weight"
        table = dict(self.pipe.text_encoder.named_parameters())[key]
        whole = torch.cat([table[: self.first], self.leaves["token"]])
        return functional_call(self.pipe.text_encoder, {key: whole}, (ids,))[0]


def lora(ref: Reference, batch: Batch) -> Tensor:
    return ((ref.adapted(batch, batch.ids) - batch.target) ** 2).mean()


def cat(ref: Reference, batch: Batch, weight: float) -> Tensor:
    plain = ref.without_trigger(batch.ids)
    kept = ((ref.adapted(batch, plain) - ref.base(batch, plain)) ** 2).mean()
    return lora(ref, batch) + weight * kept


def c_lora(ref: Reference, batch: Batch, weight: float) -> Tensor:
    total = lora(ref, batch)
    for module, past in ref.past.items():
        new = ref.leaves[f"{module}.up"] @ ref.leaves[f"{module}.down"]
        total = total + weight * torch.linalg.matrix_norm(past.abs() * new) ** 2
    return total
