"""The shapes of the pocket base and its scorer: untrained models, made from code alone."""

from __future__ import annotations

from dataclasses import dataclass

from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    ConvNextConfig,
    ConvNextModel,
)

from adreg.pocket.paint import SIZE
from adreg.pocket.tokenizer import LENGTH

LATENT_SIZE = SIZE // 4


@dataclass(frozen=True)
class Shape:
    """Widths of all parts. The default is the shipped base; tests use smaller ones."""

    vae: tuple[int, ...] = (16, 32, 64)
    unet: tuple[int, ...] = (64, 128)
    text_width: int = 128
    text_layers: int = 2
    clip_width: int = 128
    clip_layers: int = 3
    identity: tuple[int, ...] = (48, 96, 192)
    norm_groups: int = 8


def text_config(tokenizer: CLIPTokenizer, width: int, layers: int) -> CLIPTextConfig:
    """A text tower whose end-of-text id is the tokenizer's own: pooling looks for it."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 32),
        max_position_embeddings=LENGTH,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def build_text_encoder(tokenizer: CLIPTokenizer, shape: Shape) -> CLIPTextModel:
    """The base's text encoder, trained together with the UNet."""
    return CLIPTextModel(text_config(tokenizer, shape.text_width, shape.text_layers))


def build_vae(shape: Shape) -> AutoencoderKL:
    """64 x 64 pixels to 4 x 16 x 16 latents."""
    depth = len(shape.vae)
    return AutoencoderKL(
        block_out_channels=shape.vae,
        down_block_types=("DownEncoderBlock2D",) * depth,
        up_block_types=("UpDecoderBlock2D",) * depth,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=shape.norm_groups,
        sample_size=SIZE,
    )


def build_unet(shape: Shape) -> UNet2DConditionModel:
    """Two resolutions, with self- and cross-attention at both."""
    depth = len(shape.unet)
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        block_out_channels=shape.unet,
        down_block_types=("CrossAttnDownBlock2D",) * depth,
        up_block_types=("CrossAttnUpBlock2D",) * depth,
        layers_per_block=1,
        cross_attention_dim=shape.text_width,
        attention_head_dim=4,
        norm_num_groups=4 * shape.norm_groups if shape.unet[0] % 32 == 0 else shape.norm_groups,
    )


def build_scheduler() -> DDIMScheduler:
    """The noise schedule of Stable Diffusion 1.5."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


def build_scorer(tokenizer: CLIPTokenizer, shape: Shape) -> CLIPModel:
    """A CLIP for scenes: 8 x 8 patches of 64 x 64 pixels, with a text tower of its own."""
    width, layers = shape.clip_width, shape.clip_layers
    vision = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 32),
        image_size=SIZE,
        patch_size=8,
        projection_dim=width,
    )
    text = text_config(tokenizer, width, 2)
    return CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=width)
    )


def build_identity(shape: Shape) -> ConvNextModel:
    """Pictures alone: 64 x 64 pixels to one feature, the mean over 4 x 4 places."""
    depths = [2] * (len(shape.identity) - 1) + [4]
    return ConvNextModel(
        ConvNextConfig(
            num_stages=len(shape.identity),
            hidden_sizes=list(shape.identity),
            depths=depths,
            patch_size=4,
            image_size=SIZE,
        )
    )


def build_image_processor() -> CLIPImageProcessor:
    """Pixels to [-1, 1] at the world's size."""
    half = [0.5, 0.5, 0.5]
    return CLIPImageProcessor(
        size={"shortest_edge": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        image_mean=half,
        image_std=half,
    )


def build_pipeline(
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    unet: UNet2DConditionModel,
) -> StableDiffusionPipeline:
    """The parts as an ordinary diffusers pipeline."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
