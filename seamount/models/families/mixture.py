"""The fields that say which layers are mixtures of experts, shared by `deepseek`, V2 and V3."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from seamount.models.families.base import FamilyConfig, Size
from seamount.models.spec import DenseSpec, GQASpec, LayerSpec, MLASpec, MoESpec

ExpertCount = Annotated[int, Field(gt=0, le=65_536)]


class MixtureConfig(FamilyConfig):
    """Routed and shared experts in all layers but the first few."""

    n_routed_experts: ExpertCount | None = None
    num_experts_per_tok: ExpertCount | None = None
    moe_intermediate_size: Size | None = None
    n_shared_experts: ExpertCount | None = None
    first_k_dense_replace: Annotated[int, Field(ge=0)] = 0
    moe_layer_freq: Literal[1] = 1
    attention_bias: bool = False
    norm_topk_prob: bool = False

    @model_validator(mode="after")
    def _experts_suffice(self) -> "MixtureConfig":
        if self.n_routed_experts is None:
            return self
        if self.num_experts_per_tok is None or self.moe_intermediate_size is None:
            raise ValueError("num_experts_per_tok and moe_intermediate_size are required beside n_routed_experts")
        if self.num_experts_per_tok > self.n_routed_experts:
            raise ValueError(f"num_experts_per_tok must be at most n_routed_experts ({self.n_routed_experts})")
        return self

    def mixture(self, **router: object) -> MoESpec:
        """The mixture, with the router's fields as the family says."""
        assert self.n_routed_experts is not None
        assert self.num_experts_per_tok is not None
        assert self.moe_intermediate_size is not None
        return MoESpec(
            n_routed_experts=self.n_routed_experts,
            num_experts_per_tok=self.num_experts_per_tok,
            moe_intermediate_size=self.moe_intermediate_size,
            n_shared_experts=self.n_shared_experts or 0,
            norm_topk_prob=self.norm_topk_prob,
            **router,  # type: ignore[arg-type]
        )

    def stack(self, attention: GQASpec | MLASpec, mixture: MoESpec | None) -> tuple[LayerSpec, ...]:
        """All layers: the first ones dense, then mixtures, if there are any."""
        dense: DenseSpec | MoESpec = self.dense()
        first = self.num_hidden_layers if mixture is None else self.first_k_dense_replace
        return tuple(
            LayerSpec(attention, dense if mixture is None or number < first else mixture)
            for number in range(self.num_hidden_layers)
        )
