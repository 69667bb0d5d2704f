"""What the launcher asks for: of accelerate's configuration, which reaches each process through its environment."""

from __future__ import annotations

import importlib.util
import os
from importlib.metadata import version
from typing import NamedTuple

import torch

from reasonembed.errors import ConfigError, MissingExtra

_OLDEST = "0.19"  # the training's tests fail with 0.18.9; 0.19.0, 0.19.4, 0.19.6 and 0.19.8 pass them


class _Setting(NamedTuple):
    """A line of accelerate's configuration."""

    name: str
    taken: str  # the one value that this training takes
    unset: str  # what stands for it where it is left out
    cure: str


# Of what `accelerate launch` hands on in the environment.
_SETTINGS = {
    "ACCELERATE_DEEPSPEED_CONFIG_FILE": _Setting(
        "deepspeed_config_file", "none", "none", "Name the stage as zero_stage: 1 under deepspeed_config."
    ),
    "ACCELERATE_DEEPSPEED_ZERO_STAGE": _Setting(
        "zero_stage", "1", "2", "To share gradients and weights out as well, launch without DeepSpeed and set shard."
    ),
    "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": _Setting("offload_optimizer_device", "none", "none", "Set none."),
    "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": _Setting("offload_param_device", "none", "none", "Set none."),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": _Setting(
        "gradient_accumulation_steps", "1", "1", "A global batch is a step of its own; micro_batch_tokens divides it."
    ),
    "ACCELERATE_GRADIENT_CLIPPING": _Setting("gradient_clipping", "none", "none", "Set gradient_clip in the training."),
}


def asks_for_deepspeed(*, shard: bool) -> bool:
    """Whether the launcher asks for DeepSpeed. To be called before anything imports accelerate.

    shard: whether the training's own configuration shares the weights out.
    Raises ConfigError if the launcher asks for FSDP, for DeepSpeed beside `shard`, or for more of DeepSpeed than this
    training has: stage 1, on the device, once a step; or of a version that is too old. MissingExtra without one.
    """
    if not torch.cuda.is_available():
        # or DeepSpeed prints that it found none, as soon as accelerate imports it, which it does wherever it is
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if _asked("ACCELERATE_USE_FSDP"):
        raise ConfigError(
            "accelerate is configured for FSDP, which this training does not take from it. Launch with a configuration "
            "of type MULTI_GPU (docs/accelerate/gpus.yaml) and set shard = true in the training's own."
        )
    if not _asked("ACCELERATE_USE_DEEPSPEED"):
        return False
    for variable, setting in _SETTINGS.items():
        found = os.environ.get(variable, setting.unset)
        if found.lower() != setting.taken:
            raise ConfigError(
                f"accelerate is configured for DeepSpeed with {setting.name} {found}, and this training takes "
                f"{setting.taken} (docs/accelerate/deepspeed.yaml). {setting.cure}"
            )
    if shard:
        raise ConfigError(
            "accelerate is configured for DeepSpeed, and shard is set, which shares the optimiser's state out already. "
            "Launch with a configuration of type MULTI_GPU (docs/accelerate/gpus.yaml), or leave shard out."
        )
    if importlib.util.find_spec("deepspeed") is None:
        raise MissingExtra(
            "accelerate is configured for DeepSpeed, which is not installed: pip install 'reasonembed[deepspeed]'. Or "
            "launch with a configuration of type MULTI_GPU (docs/accelerate/gpus.yaml) and set shard_optimizer = true, "
            "which shares the optimiser's state out as well."
        )
    from accelerate.utils import compare_versions

    if compare_versions("deepspeed", "<", _OLDEST):
        raise ConfigError(
            f"accelerate is configured for DeepSpeed, of which {version('deepspeed')} is installed, and this training "
            f"needs {_OLDEST} or newer: pip install -U 'reasonembed[deepspeed]'."
        )
    return True


def _asked(variable: str) -> bool:
    return os.environ.get(variable, "").lower() == "true"


__all__ = ["asks_for_deepspeed"]
