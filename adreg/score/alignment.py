"""text-alignment/1: whether pictures of a concept still show what the rest of the prompt asks."""

from __future__ import annotations

from torch import Tensor

NAME = "text-alignment/1"


def alignment(images: Tensor, texts: Tensor) -> list[float]:
    """cos(image i, text i) from unit features (n x d); texts are the prompts without the trigger.

    The mean is the score (CLIP-T of DreamBooth, https://arxiv.org/abs/2208.12242).
    """
    return [float(value) for value in (images * texts).sum(dim=-1)]
