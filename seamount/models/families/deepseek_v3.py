"""DeepSeek-V3, V3.1 and R1: V2's attention, balancing without an auxiliary loss, and multi-token prediction."""

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from seamount.models.families.deepseek_v2 import LatentConfig
from seamount.models.spec import LayerSpec, ModelSpec, MoESpec


class DeepseekV3Config(LatentConfig):
    """config.json of `deepseek_v3`."""

    model_type: Literal["deepseek_v3"]
    topk_method: Literal["noaux_tc"] = "noaux_tc"
    scoring_func: Literal["sigmoid"] = "sigmoid"
    norm_topk_prob: bool = True
    routed_scaling_factor: float = 2.5
    num_nextn_predict_layers: Annotated[int, Field(ge=0, le=64)] = 0

    def routed(self) -> MoESpec | None:
        """Experts by biased sigmoid, weighed without the bias."""
        if self.n_routed_experts is None:
            return None
        return self.mixture(
            scoring_func="sigmoid",
            topk_method="noaux_tc",
            routed_scaling_factor=self.routed_scaling_factor,
            n_group=self.n_group or 1,
            topk_group=self.topk_group or 1,
        )

    def spec(self) -> ModelSpec:
        """V2's layers, and the MTP layers that the config counts, each with the last layers' shape."""
        mtp_layer = LayerSpec(self.attention(), self.routed() or self.dense())
        return replace(super().spec(), mtp_layers=(mtp_layer,) * self.num_nextn_predict_layers)
