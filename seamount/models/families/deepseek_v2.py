"""DeepSeek-V2, V2-Lite and Coder-V2: MLA, and DeepSeekMoE with device-limited routing."""

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from seamount.models.families.base import Size
from seamount.models.families.mixture import MixtureConfig
from seamount.models.spec import MLASpec, ModelSpec, MoESpec


class LatentConfig(MixtureConfig):
    """The fields of MLA, and of routers that choose groups of experts first."""

    # Derived fields that transformers writes beside those they come from; MLA has no key-value heads of its own.
    INERT: ClassVar[frozenset[str]] = frozenset({"head_dim", "qk_head_dim", "num_key_value_heads"})

    q_lora_rank: Size | None = None
    kv_lora_rank: Size
    qk_nope_head_dim: Size
    qk_rope_head_dim: Annotated[int, Field(gt=0, le=65_536, multiple_of=2)]
    v_head_dim: Size
    n_group: Size | None = None
    topk_group: Size | None = None
    routed_scaling_factor: float = 1.0
    mlp_bias: Literal[False] = False
    rope_interleave: Literal[True] = True
    use_mla: Literal[True] = True

    @model_validator(mode="after")
    def _groups_divide(self) -> "LatentConfig":
        if self.n_group and self.n_group > 1:
            if (self.n_routed_experts or 0) % self.n_group:
                raise ValueError(f"n_routed_experts must be a multiple of n_group ({self.n_group})")
            if not self.topk_group or self.topk_group > self.n_group:
                raise ValueError(f"topk_group must be given, and at most n_group ({self.n_group})")
        return self

    def attention(self) -> MLASpec:
        """Every layer's attention."""
        return MLASpec(
            num_attention_heads=self.num_attention_heads,
            q_lora_rank=self.q_lora_rank,
            kv_lora_rank=self.kv_lora_rank,
            qk_nope_head_dim=self.qk_nope_head_dim,
            qk_rope_head_dim=self.qk_rope_head_dim,
            v_head_dim=self.v_head_dim,
            rope=self.rope(self.qk_rope_head_dim, interleaved=True),
            bias=self.attention_bias,
        )

    @abstractmethod
    def routed(self) -> MoESpec | None:
        """The mixture, if the config has one."""

    def spec(self) -> ModelSpec:
        """Layers of MLA; mixtures after the first dense ones."""
        return self.model(self.stack(self.attention(), self.routed()))


class DeepseekV2Config(LatentConfig):
    """config.json of `deepseek_v2`."""

    model_type: Literal["deepseek_v2"]
    topk_method: Literal["greedy", "group_limited_greedy"] = "greedy"
    scoring_func: Literal["softmax"] = "softmax"

    def routed(self) -> MoESpec | None:
        """Experts by softmax, from the best groups where groups are limited; the factor only if not normalised."""
        if self.n_routed_experts is None:
            return None
        return self.mixture(
            scoring_func="softmax",
            topk_method=self.topk_method,
            routed_scaling_factor=self.routed_scaling_factor,
            scale_normalised=False,
            n_group=self.n_group or 1,
            topk_group=self.topk_group or 1,
        )
