"""The losses again, straight from the papers' formulas: dense weights W + B A, one whole table.

Shares no code with adreg/train: no peft, no switched-off adapter, no batched halves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from adreg.train.dataset import Batch

Leaves = dict[str, Tensor]
LENGTH = 77
NAMELESS = ("a photo of {}", "a picture of {}", "photo of {}")


class Reference:
    """A bare pipeline with leaves named as `Learner.parameters` names them.

    `past` and `earlier` (n x d) are a line's earlier deltas and tokens; `outside` (d x d) is what
    every down factor is multiplied by.
    """

    def __init__(
        self,
        pipe: Any,
        leaves: Mapping[str, Tensor],
        past: Mapping[str, Tensor],
        earlier: Tensor | None = None,
    ) -> None:
        self.pipe = pipe
        self.leaves: Leaves = {k: v.detach().clone().requires_grad_() for k, v in leaves.items()}
        self.past = past
        self.earlier = torch.empty(0, leaves["token"].shape[1]) if earlier is None else earlier
        self.outside: Tensor | None = None
        self.first = len(pipe.tokenizer)

    @property
    def modules(self) -> list[str]:
        return sorted({name.rsplit(".", 1)[0] for name in self.leaves if name != "token"})

    def delta(self, module: str) -> Tensor:
        if f"{module}.dense" in self.leaves:
            return self.leaves[f"{module}.dense"].reshape(self.before(module).shape)
        up, down = self.leaves[f"{module}.up"], self.leaves[f"{module}.down"]
        return up @ (down if self.outside is None else down @ self.outside)

    def before(self, module: str) -> Tensor:
        """The weight as the last task left it."""
        own = self.pipe.unet.get_parameter(module.removeprefix("unet.") + ".weight")
        return own + self.past.get(module, 0)

    def adapted(self, batch: Batch, ids: Tensor) -> Tensor:
        return self.dense(batch, ids, {m: self.before(m) + self.delta(m) for m in self.modules})

    def base(self, batch: Batch, ids: Tensor) -> Tensor:
        with torch.no_grad():
            return self.dense(batch, ids, {m: self.before(m) for m in self.modules})

    def dense(self, batch: Batch, ids: Tensor, chosen: Mapping[str, Tensor]) -> Tensor:
        weights = dict(self.pipe.unet.named_parameters())
        weights |= {f"{m.removeprefix('unet.')}.weight": value for m, value in chosen.items()}
        text, pooled = self.text(ids)
        told = {} if pooled is None else {"text_embeds": pooled, "time_ids": batch.time_ids}
        given = (batch.noisy, batch.timesteps, text)
        found = functional_call(self.pipe.unet, weights, given, {"added_cond_kwargs": told})
        return found.sample

    def without_trigger(self, ids: Tensor) -> Tensor:
        return torch.cat(
            [
                torch.tensor([self.padded([i for i in row if i < self.first], n) for row in rows])
                for n, rows in enumerate(part.tolist() for part in ids.split(LENGTH, dim=1))
            ],
            dim=1,
        )

    def padded(self, row: list[int], encoder: int) -> list[int]:
        pad = readers(self.pipe)[encoder][0].pad_token_id
        return row + [pad] * (LENGTH - len(row))

    def text(self, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the UNet attends to, and SDXL's pooled projection."""
        read, start = [], 0
        for (_, encoder, key), own in zip(
            readers(self.pipe), ids.split(LENGTH, dim=1), strict=True
        ):
            table = encoder.get_parameter(key)
            end = start + table.shape[1]
            fresh = torch.cat([self.earlier, self.leaves["token"]])[:, start:end]
            whole = torch.cat([table[: self.first], fresh])
            all_layers = {"output_hidden_states": True}
            read.append(functional_call(encoder, {key: whole}, (own,), all_layers))
            start = end
        if len(read) == 1:
            return read[0].last_hidden_state, None
        return torch.cat([one.hidden_states[-2] for one in read], dim=-1), read[1].text_embeds

    def past_text(self) -> Tensor:
        """C (d x T): all positions of all earlier concepts' prompts."""
        prompts = [text.format("dog") for text in NAMELESS]
        ids = torch.cat(
            [
                tokenizer(prompts, padding="max_length", max_length=LENGTH, return_tensors="pt")[
                    "input_ids"
                ]
                for tokenizer, _, _ in readers(self.pipe)
            ],
            dim=1,
        )
        here = ids == self.pipe.tokenizer("dog", add_special_tokens=False).input_ids[0]
        told = [ids.where(~here, self.first + number) for number in range(len(self.earlier))]
        return torch.cat(list(self.text(torch.cat(told))[0].detach())).T


def readers(pipe: Any) -> list[tuple[Any, Any, str]]:
    """(tokenizer, text encoder, the name of its embeddings)."""
    key = "embeddings.token_embedding.weight"
    first = (pipe.tokenizer, pipe.text_encoder, key)
    if not hasattr(pipe, "text_encoder_2"):
        return [first]
    return [first, (pipe.tokenizer_2, pipe.text_encoder_2, f"text_model.{key}")]


def lora(ref: Reference, batch: Batch) -> Tensor:
    return ((ref.adapted(batch, batch.ids) - batch.target) ** 2).mean()


def cat(ref: Reference, batch: Batch, weight: float, plain: Tensor | None = None) -> Tensor:
    plain = ref.without_trigger(batch.ids) if plain is None else plain
    kept = ((ref.adapted(batch, plain) - ref.base(batch, plain)) ** 2).mean()
    return lora(ref, batch) + weight * kept


def dreambooth(ref: Reference, batch: Batch, weight: float) -> Tensor:
    prior = batch.prior
    assert prior is not None
    return lora(ref, batch) + weight * lora(ref, prior)


def c_lora(ref: Reference) -> Tensor:
    norms = [torch.linalg.matrix_norm(past.abs() * ref.delta(m)) for m, past in ref.past.items()]
    return torch.stack(norms).square().sum()


def c_lora_features(ref: Reference) -> Tensor:
    features = ref.past_text()
    shares = [
        (ref.delta(m) @ features).norm() / (ref.before(m) @ features).norm() for m in ref.past
    ]
    return torch.stack(shares).square().mean()


def null_space(ref: Reference, negligible: float) -> Tensor:
    """I - V V^T, V the eigenvectors of C C^T but for a negligible share of its trace."""
    features = ref.past_text().double()
    values, vectors = torch.linalg.eigh(features @ features.T)
    kept = vectors[:, values.cumsum(0) > negligible * values.sum()]
    return (torch.eye(len(features)) - kept @ kept.T).float()


def ewc(ref: Reference, importance: Mapping[str, Tensor], weight: float) -> Tensor:
    return weight / 2 * sum((f * ref.delta(m) ** 2).sum() for m, f in importance.items())


def fisher(ref: Reference, batches: Sequence[Batch]) -> dict[str, Tensor]:
    """The mean over batches of one image of the squared gradient by the dense weights."""
    found: dict[str, Tensor] = {}
    for batch in batches:
        leaves = {m: (ref.before(m) + ref.delta(m)).detach().requires_grad_() for m in ref.modules}
        ((ref.dense(batch, batch.ids, leaves) - batch.target) ** 2).mean().backward()
        for module, leaf in leaves.items():
            assert leaf.grad is not None
            found[module] = found.get(module, 0) + leaf.grad**2 / len(batches)
    return found


@torch.no_grad()
def prediction(pipe: Any, weights: Any, prompt: str) -> Tensor:
    """What the UNet with an adapter makes of a prompt and fixed noise."""
    table = pipe.text_encoder.get_input_embeddings().weight
    tokenizer, first = pipe.tokenizer, len(pipe.tokenizer)
    words = [*weights.tokens]
    stand_ins = tokenizer(prompt.replace(words[0], "dog"), return_tensors="pt").input_ids
    stand_ins[stand_ins == tokenizer("dog", add_special_tokens=False).input_ids[0]] = first
    whole = torch.cat([table[:first], *weights.tokens.values()])
    key = "embeddings.token_embedding.weight"
    text = functional_call(pipe.text_encoder, {key: whole}, (stand_ins,))[0]
    dense = dict(pipe.unet.named_parameters())
    for module, factor in weights.factors.items():
        name = f"{module.removeprefix('unet.')}.weight"
        dense[name] = dense[name] + factor.up @ factor.down
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    return functional_call(pipe.unet, dense, (noise, torch.tensor([500]), text)).sample
