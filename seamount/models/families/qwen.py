"""Qwen2's and Qwen3's shapes, the bases of R1's Qwen distillations: Llama's with biases, or with head norms."""

from typing import ClassVar, Literal

from seamount.models.families.llama import LlamaConfig
from seamount.models.spec import LayerSpec, ModelSpec


class _QwenConfig(LlamaConfig):
    # The window's size and place mean nothing while no layer uses it.
    INERT: ClassVar[frozenset[str]] = frozenset({"sliding_window", "max_window_layers"})

    use_sliding_window: Literal[False] = False
    layer_types: list[Literal["full_attention"]] | None = None


class Qwen2Config(_QwenConfig):
    """config.json of `qwen2`: biases on queries, keys and values."""

    model_type: Literal["qwen2"]  # type: ignore[assignment]

    def spec(self) -> ModelSpec:
        """Dense layers of grouped-query attention with biases."""
        attention = self.attention(qkv_bias=True, output_bias=False)
        return self.model((LayerSpec(attention, self.dense()),) * self.num_hidden_layers)


class Qwen3Config(_QwenConfig):
    """config.json of `qwen3`: an RMS norm on each query and key head."""

    model_type: Literal["qwen3"]  # type: ignore[assignment]
    head_dim: int = 128

    def spec(self) -> ModelSpec:
        """Dense layers of grouped-query attention with head norms."""
        attention = self.attention(qkv_bias=self.attention_bias, output_bias=self.attention_bias, qk_norm=True)
        return self.model((LayerSpec(attention, self.dense()),) * self.num_hidden_layers)
