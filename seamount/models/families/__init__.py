"""One file per family: its config, checked, becomes a ModelSpec."""

from collections.abc import Mapping
from typing import Any

from seamount.errors import UnknownModelType
from seamount.models.families.base import FamilyConfig
from seamount.models.families.deepseek import DeepseekConfig
from seamount.models.families.deepseek_v2 import DeepseekV2Config
from seamount.models.families.deepseek_v3 import DeepseekV3Config
from seamount.models.families.llama import LlamaConfig
from seamount.models.families.qwen import Qwen2Config, Qwen3Config

FAMILIES: Mapping[str, type[FamilyConfig]] = {
    "deepseek": DeepseekConfig,
    "deepseek_v2": DeepseekV2Config,
    "deepseek_v3": DeepseekV3Config,
    "llama": LlamaConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
}


def family_config(config: Mapping[str, Any], *, source: str) -> FamilyConfig:
    """The checked config of a config.json.

    Errors: UnknownModelType, UnsupportedField, ConfigError; each names `source`.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise UnknownModelType(f"{source}: model_type {model_type!r} is not implemented; known are {known}")
    return FAMILIES[model_type].parse(config, source=source)


__all__ = ["FAMILIES", "FamilyConfig", "family_config"]
