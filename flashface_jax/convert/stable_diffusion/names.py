"""What two layouts call the parts of Stable Diffusion 1.x, and what of them no network uses.

`LDM` is the original layout, of single files; `DIFFUSERS` that of folders with one network each.
In a name, {level} counts resolutions from the highest, {rise} from the lowest, {index} the
residual blocks of one level, {position} all entries of a half (the encoder's input convolution is
0), and {after} is what follows a residual block and, if there is one, its transformer.
"""

from dataclasses import dataclass

from flashface_jax.convert.table import Dead


@dataclass(frozen=True)
class StageNames:
    """One half of a network; names have places for numbers.

    Attributes:
        residual: a residual block.
        resample: the convolution that halves or doubles after a level.
        transformer: the transformer after a residual block; the autoencoder has none.
    """

    residual: str
    resample: str
    transformer: str = ""


@dataclass(frozen=True)
class UNetNames:
    """The U-Net.

    Attributes:
        root: what every key starts with.
        time: the time embedding's two layers.
        conv_in: the input convolution.
        encoder: stages on the way down.
        middle: residual block, transformer, residual block.
        decoder: stages on the way up.
        residual: a residual block's first norm and convolution, projection of the time, second
            norm and convolution.
        shortcut: the convolution beside a residual block that changes the width.
        head: the last norm and convolution.
        dead: keys that may lie beside it.
    """

    root: str
    time: tuple[str, str]
    conv_in: str
    encoder: StageNames
    middle: tuple[str, str, str]
    decoder: StageNames
    residual: tuple[str, str, str, str, str]
    shortcut: str
    head: tuple[str, str]
    dead: tuple[Dead, ...] = ()


@dataclass(frozen=True)
class AutoencoderNames:
    """The autoencoder; what goes by one name in both layouts is not here.

    Attributes:
        root: what every key starts with.
        encoder: stages on the way down.
        decoder: stages on the way up.
        middle: residual block, attention, residual block, of either half.
        attention: the attention's norm, query, key, value and output; every set that is in use.
        shortcut: the convolution beside a residual block that changes the width.
        norm_out: the last norm of either half.
        dead: keys that may lie beside it.
    """

    root: str
    encoder: StageNames
    decoder: StageNames
    middle: tuple[str, str, str]
    attention: tuple[tuple[str, str, str, str, str], ...]
    shortcut: str
    norm_out: str
    dead: tuple[Dead, ...] = ()


@dataclass(frozen=True)
class Layout:
    """All networks.

    Attributes:
        unet: the U-Net.
        autoencoder: the autoencoder.
        text_root: what keys of the text tower start with; below it both layouts hold it as
            `transformers` does.
        conditioner: what that starts with.
    """

    unet: UNetNames
    autoencoder: AutoencoderNames
    text_root: str
    conditioner: str = ""


AVERAGE = "a moving average of the weights; training goes on from the weights themselves"
SCHEDULE = "the noise schedule, which config.json describes"

LDM = Layout(
    UNetNames(
        root="model.diffusion_model.",
        time=("time_embed.0", "time_embed.2"),
        conv_in="input_blocks.0.0",
        encoder=StageNames(
            residual="input_blocks.{position}.0",
            resample="input_blocks.{position}.0.op",
            transformer="input_blocks.{position}.1",
        ),
        middle=("middle_block.0", "middle_block.1", "middle_block.2"),
        decoder=StageNames(
            residual="output_blocks.{position}.0",
            resample="output_blocks.{position}.{after}.conv",
            transformer="output_blocks.{position}.1",
        ),
        residual=("in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3"),
        shortcut="skip_connection",
        head=("out.0", "out.2"),
        dead=(
            Dead("model_ema.", AVERAGE),
            *(
                Dead(name, SCHEDULE)
                for name in (
                    "betas",
                    "alphas_cumprod",
                    "sqrt_",
                    "log_one_minus_alphas_cumprod",
                    "posterior_",
                    "logvar",
                    "lvlb_weights",
                )
            ),
        ),
    ),
    AutoencoderNames(
        root="first_stage_model.",
        encoder=StageNames(
            residual="encoder.down.{level}.block.{index}",
            resample="encoder.down.{level}.downsample.conv",
        ),
        decoder=StageNames(
            residual="decoder.up.{level}.block.{index}",
            resample="decoder.up.{level}.upsample.conv",
        ),
        middle=("mid.block_1", "mid.attn_1", "mid.block_2"),
        attention=(("norm", "q", "k", "v", "proj_out"),),
        shortcut="nin_shortcut",
        norm_out="norm_out",
        dead=(
            Dead("first_stage_model.loss.", "what judged images while the autoencoder was trained"),
            Dead("first_stage_model.model_ema.", AVERAGE),
        ),
    ),
    text_root="cond_stage_model.transformer.",
    conditioner="cond_stage_model.",
)

DIFFUSERS = Layout(
    UNetNames(
        root="",
        time=("time_embedding.linear_1", "time_embedding.linear_2"),
        conv_in="conv_in",
        encoder=StageNames(
            residual="down_blocks.{level}.resnets.{index}",
            resample="down_blocks.{level}.downsamplers.0.conv",
            transformer="down_blocks.{level}.attentions.{index}",
        ),
        middle=("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
        decoder=StageNames(
            residual="up_blocks.{rise}.resnets.{index}",
            resample="up_blocks.{rise}.upsamplers.0.conv",
            transformer="up_blocks.{rise}.attentions.{index}",
        ),
        residual=("norm1", "conv1", "time_emb_proj", "norm2", "conv2"),
        shortcut="conv_shortcut",
        head=("conv_norm_out", "conv_out"),
    ),
    AutoencoderNames(
        root="",
        encoder=StageNames(
            residual="encoder.down_blocks.{level}.resnets.{index}",
            resample="encoder.down_blocks.{level}.downsamplers.0.conv",
        ),
        decoder=StageNames(
            residual="decoder.up_blocks.{rise}.resnets.{index}",
            resample="decoder.up_blocks.{rise}.upsamplers.0.conv",
        ),
        middle=("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
        attention=(
            ("group_norm", "to_q", "to_k", "to_v", "to_out.0"),
            ("group_norm", "query", "key", "value", "proj_attn"),  # diffusers before 0.15
        ),
        shortcut="conv_shortcut",
        norm_out="conv_norm_out",
    ),
    text_root="",
)
