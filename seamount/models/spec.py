"""What a model is made of, as plain data: every family's config becomes one ModelSpec, and all else is built from it.

ModelSpec
  layers: LayerSpec ...      attention: GQASpec | MLASpec
                             feed_forward: DenseSpec | MoESpec
  mtp_layers: LayerSpec ...  multi-token prediction, after the last layer
"""

from dataclasses import dataclass, field
from math import gcd
from typing import Literal

from seamount.kernels import RowFormat
from seamount.models.parts.rope import RopeSpec


@dataclass(frozen=True)
class GQASpec:
    """Grouped-query attention (Llama and Qwen shapes; multi-head where both head counts agree)."""

    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rope: RopeSpec
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = False

    @property
    def kind(self) -> str:
        """The short name that people use."""
        if self.num_key_value_heads == self.num_attention_heads:
            return "MHA"
        return "MQA" if self.num_key_value_heads == 1 else "GQA"

    @property
    def cache_dim(self) -> int:
        """Numbers that the cache keeps per token: all keys and values."""
        return 2 * self.num_key_value_heads * self.head_dim

    @property
    def row_format(self) -> RowFormat:
        """How a compressed row is stored: a scale for each head's key and value. Errors: see RowFormat."""
        return RowFormat(self.cache_dim, self.cache_dim, self.head_dim)

    @property
    def mha_cache_dim(self) -> int:
        """Numbers that multi-head attention with as many query heads would keep."""
        return 2 * self.num_attention_heads * self.head_dim

    @property
    def softmax_scale(self) -> float:
        """The factor on the scores."""
        return self.head_dim**-0.5


@dataclass(frozen=True)
class MLASpec:
    """Multi-head latent attention (V2, V3, R1).

    Source: DeepSeek-V2, arXiv 2405.04434, section 2.1; field names are those of the published configs.
    """

    num_attention_heads: int
    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    rope: RopeSpec
    bias: bool = False
    latent_norm_eps: float = 1e-6  # the published code takes its norm class's default here, not the config's value

    kind = "MLA"

    @property
    def cache_dim(self) -> int:
        """Numbers that the cache keeps per token: the latent and the one rotated key."""
        return self.kv_lora_rank + self.qk_rope_head_dim

    @property
    def row_format(self) -> RowFormat:
        """How a compressed row is stored: the rotated key keeps bfloat16. Errors: see RowFormat."""
        return RowFormat(self.cache_dim, self.kv_lora_rank, gcd(self.kv_lora_rank, 128))

    @property
    def mha_cache_dim(self) -> int:
        """Numbers that multi-head attention with as many heads would keep: keys (unrotated part alone), values."""
        return self.num_attention_heads * (self.qk_nope_head_dim + self.v_head_dim)

    @property
    def softmax_scale(self) -> float:
        """The factor on the scores: (N + R)^-0.5, times YaRN's m^2 where the config asks for it."""
        return (self.qk_nope_head_dim + self.qk_rope_head_dim) ** -0.5 * self.rope.softmax_factor


@dataclass(frozen=True)
class DenseSpec:
    """A SwiGLU feed-forward."""

    intermediate_size: int

    kind = "dense"


@dataclass(frozen=True)
class MoESpec:
    """DeepSeekMoE: few of many fine-grained experts, beside experts that every token passes."""

    n_routed_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    n_shared_experts: int
    scoring_func: Literal["softmax", "sigmoid"]
    topk_method: Literal["greedy", "group_limited_greedy", "noaux_tc"]
    norm_topk_prob: bool
    routed_scaling_factor: float = 1.0
    scale_normalised: bool = True  # V2 leaves the factor out where it normalises, V3 does not
    n_group: int = 1
    topk_group: int = 1

    kind = "MoE"


@dataclass(frozen=True)
class LayerSpec:
    """One transformer layer."""

    attention: GQASpec | MLASpec
    feed_forward: DenseSpec | MoESpec


@dataclass(frozen=True)
class ModelSpec:
    """A whole model's shape."""

    model_type: str
    vocab_size: int
    hidden_size: int
    context_length: int
    layers: tuple[LayerSpec, ...]
    rms_norm_eps: float
    tie_word_embeddings: bool = False
    mtp_layers: tuple[LayerSpec, ...] = field(default=())
    initializer_range: float = 0.02
