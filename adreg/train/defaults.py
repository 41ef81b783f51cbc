"""What a training spec says where nobody says otherwise, by method and family of base."""

from __future__ import annotations

from adreg.domain import Json

# CAT's released code: SD1.5, rank 1, 1e-4, 900 steps of one 512 px image, weight 1. C-LoRA's
# reported settings: rank 16, 5e-4, lambda 1e8. The pocket base's were measured on it.
SD: dict[str, Json] = {
    "lora": {"steps": 900, "rank": 4, "batch": 1, "learning_rate": 1e-4},
    "cat": {"steps": 900, "rank": 4, "batch": 1, "learning_rate": 1e-4, "cat_weight": 1.0},
    "c-lora": {
        "steps": 900,
        "rank": 16,
        "batch": 1,
        "learning_rate": 5e-4,
        "penalty_weight": 1e8,
    },
    "sequential": {"steps": 900, "rank": 16, "batch": 1, "learning_rate": 5e-4},
    "ewc": {
        "steps": 900,
        "rank": 16,
        "batch": 1,
        "learning_rate": 5e-4,
        "penalty_weight": 1e6,
    },
    # Orthogonal Adaptation: rank 20; the rest is LoRA's.
    "orthogonal": {"steps": 900, "rank": 20, "batch": 1, "learning_rate": 1e-4},
    # The paper's: 0.005 for each image of the batch.
    "textual-inversion": {
        "steps": 5000,
        "rank": 0,
        "batch": 4,
        "learning_rate": 0.0,
        "token_learning_rate": 0.02,
    },
    # Zeng et al. give no numbers: these are AttnDreamBooth's, the nearest published relative's.
    "two-stage": {
        "steps": 560,
        "embedding_steps": 60,
        "rank": 4,
        "batch": 8,
        "learning_rate": 1e-4,
        "token_learning_rate": 1e-3,
    },
    # About 1,000 steps and lambda 1 as in the paper; the rest is LoRA's.
    "dreambooth": {
        "steps": 1000,
        "rank": 4,
        "batch": 1,
        "learning_rate": 1e-4,
        "token_learning_rate": 0.0,
        "prior_weight": 1.0,
        "prior_images": 200,
    },
    # Our own, measured nowhere.
    "custom-diffusion": {
        "steps": 500,
        "rank": 0,
        "full": True,
        "batch": 4,
        "learning_rate": 1e-5,
        "prior_weight": 1.0,
        "prior_images": 200,
    },
}
_POCKET_LINE: Json = {
    "steps": 300,
    "rank": 4,
    "batch": 4,
    "learning_rate": 1e-2,
    "token_learning_rate": 3e-2,
    "ema": 0.97,
}
_POCKET_LORA: Json = {"steps": 300, "rank": 4, "batch": 4, "learning_rate": 3e-3, "ema": 0.97}
POCKET: dict[str, Json] = {
    "lora": _POCKET_LORA,
    "cat": {**_POCKET_LORA, "cat_weight": 2.0, "cat_every": 3},
    # Keys and values alone, and no class word to start from, ask for higher rates.
    "c-lora": {**_POCKET_LINE, "penalty_weight": 30.0},
    "sequential": _POCKET_LINE,
    "ewc": {**_POCKET_LINE, "penalty_weight": 1e6},
    "orthogonal": _POCKET_LORA,
    "textual-inversion": {
        "steps": 300,
        "rank": 0,
        "batch": 4,
        "learning_rate": 0.0,
        "token_learning_rate": 2e-2,
    },
    "two-stage": {
        "steps": 300,
        "embedding_steps": 100,
        "rank": 4,
        "batch": 4,
        "learning_rate": 3e-3,
        "token_learning_rate": 2e-2,
    },
    "dreambooth": {
        **_POCKET_LORA,
        "token_learning_rate": 0.0,
        "prior_weight": 1.0,
        "prior_images": 32,
    },
    "custom-diffusion": {
        "steps": 300,
        "rank": 0,
        "full": True,
        "batch": 4,
        "learning_rate": 1e-3,
        "prior_weight": 1.0,
        "prior_images": 32,
    },
}
# Whole weights in place of factors: DreamBooth's own rate, and AttnDreamBooth's for its UNet.
SD_FULL: dict[str, Json] = {
    "dreambooth": {"rank": 0, "learning_rate": 5e-6},
    "two-stage": {"rank": 0, "learning_rate": 2e-6},
}
POCKET_FULL: dict[str, Json] = {
    "dreambooth": {"rank": 0, "learning_rate": 2e-4},
    "two-stage": {"rank": 0, "learning_rate": 2e-4},
}
# The other forms of C-LoRA's penalty: the first is relative, so one lambda serves all bases.
PENALTY_WEIGHTS: dict[str, float] = {"features": 10.0, "null-space": 0.0}
# How often a bound to stop at is looked at.
SAMPLE_EVERY = 50
TOKEN_RATES = {"pocket": 1e-2}
USUAL_TOKEN_RATE = 5e-4
# Individuals of pocket are told apart by what the noisy steps decide (docs/measured.md).
TIMESTEP_BIAS = {"pocket": 1.0}
