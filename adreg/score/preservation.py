"""pres/1: whether the class still looks like itself, or already like the subject.

DreamBooth's PRES (https://arxiv.org/abs/2208.12242): the mean similarity of pictures
of the class, asked for without the trigger, to the photos of the subject. Lower is better.
"""

from __future__ import annotations

from torch import Tensor

from adreg.score.identity import identity

NAME = "pres/1"


def preservation(of_class: Tensor, photos: Tensor) -> list[float]:
    """Mean cosine of each class picture (n x d) to all photos (m x d), from unit features.

    The mean over the pictures is the score. The base's own, of the same prompts and noise, is
    what it would be had nothing been learnt.
    """
    return identity(of_class, photos)
