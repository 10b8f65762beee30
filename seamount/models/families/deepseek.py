"""DeepSeek-MoE-16B: Llama's attention, and the first DeepSeekMoE."""

from typing import Literal

from seamount.models.families.llama import LlamaConfig
from seamount.models.families.mixture import MixtureConfig
from seamount.models.spec import ModelSpec


class DeepseekConfig(MixtureConfig, LlamaConfig):
    """config.json of `deepseek`."""

    model_type: Literal["deepseek"]  # type: ignore[assignment]
    scoring_func: Literal["softmax"] = "softmax"

    def spec(self) -> ModelSpec:
        """Layers of multi-head attention; experts chosen greedily from a softmax."""
        mixture = None
        if self.n_routed_experts:
            mixture = self.mixture(scoring_func="softmax", topk_method="greedy")
        attention = self.attention(qkv_bias=self.attention_bias, output_bias=self.attention_bias)
        return self.model(self.stack(attention, mixture))
