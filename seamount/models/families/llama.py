"""Llama's shape: DeepSeek-LLM, -Coder, -Math, R1-Distill-Llama, and the embedded model."""

from typing import Literal

from pydantic import model_validator

from seamount.models.families.base import FamilyConfig, Size
from seamount.models.spec import GQASpec, LayerSpec, ModelSpec


class LlamaConfig(FamilyConfig):
    """config.json of `llama`."""

    model_type: Literal["llama"]
    num_key_value_heads: Size | None = None
    head_dim: Size | None = None
    attention_bias: bool = False
    mlp_bias: Literal[False] = False

    @model_validator(mode="after")
    def _heads_divide(self) -> "LlamaConfig":
        groups = self.num_key_value_heads or self.num_attention_heads
        if self.num_attention_heads % groups:
            raise ValueError(f"num_attention_heads {self.num_attention_heads} must be a multiple of {groups} KV heads")
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise ValueError("hidden_size must be a multiple of num_attention_heads where head_dim is not given")
        return self

    def attention(self, *, qkv_bias: bool, output_bias: bool, qk_norm: bool = False) -> GQASpec:
        """Every layer's attention."""
        head_dim = self.head_dim or self.hidden_size // self.num_attention_heads
        return GQASpec(
            num_attention_heads=self.num_attention_heads,
            num_key_value_heads=self.num_key_value_heads or self.num_attention_heads,
            head_dim=head_dim,
            rope=self.rope(head_dim, interleaved=False),
            qkv_bias=qkv_bias,
            output_bias=output_bias,
            qk_norm=qk_norm,
        )

    def spec(self) -> ModelSpec:
        """Dense layers of grouped-query attention."""
        attention = self.attention(qkv_bias=self.attention_bias, output_bias=self.attention_bias)
        return self.model((LayerSpec(attention, self.dense()),) * self.num_hidden_layers)
