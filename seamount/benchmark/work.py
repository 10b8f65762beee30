"""The bytes that a step must read and the operations that it must do: what its time is compared with."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from seamount.kernels.cpu.limits import Limits
from seamount.kernels.paged import PAGE
from seamount.models import Model, cost
from seamount.models.packed import packed_weights
from seamount.models.spec import MoESpec


class Work:
    """What tokens cost at least on one model.

    Units: bytes, and operations, of which a multiplication and an addition are two.
    """

    def __init__(self, model: Model) -> None:
        self.row_bytes = model.page_layout.nbytes / PAGE
        """A token's cached rows of all layers."""
        self.token_operations = 2 * cost.parameters(model.spec).active_in_layers
        """Of one token in the layers: the head serves a prompt's last token alone."""
        self._is_packed = any(True for _ in packed_weights(model))
        self._dtype = next(model.parameters()).dtype
        self._always, self._routed = 0, dict[float, int]()
        for name, nbytes in _weights(model):
            if ".experts." not in name:
                self._always += nbytes
                continue
            spec = model.spec.layers[int(name.split(".")[1])].feed_forward
            assert isinstance(spec, MoESpec), f"{name} belongs to no mixture"
            share = spec.num_experts_per_tok / spec.n_routed_experts
            self._routed[share] = self._routed.get(share, 0) + nbytes

    def weight_bytes(self, num_tokens: int) -> float:
        """Of the weights that a step of so many tokens reads: under even routing, the experts that these touch."""
        routed = sum(nbytes * (1 - (1 - share) ** num_tokens) for share, nbytes in self._routed.items())
        return self._always + routed

    def operations_limit(self, limits: Limits) -> float:
        """Operations per second, in the numbers that this model multiplies."""
        name = "int8" if self._is_packed else "bfloat16" if self._dtype == torch.bfloat16 else "float32"
        return float(getattr(limits, name))

    def step_seconds(self, num_tokens: int, limits: Limits) -> float:
        """The least time of a step, its cached rows apart: either its weights' or its operations'."""
        operations = num_tokens * self.token_operations / self.operations_limit(limits)
        return max(self.weight_bytes(num_tokens) / limits.read, operations)


def _weights(model: Model) -> Iterator[tuple[str, int]]:
    """Names and bytes of what a step reads: not of the embedding, a look-up, unless it is the head as well."""
    for name, packed in packed_weights(model):
        if not name.startswith("mtp."):
            yield name, packed.nbytes
    is_looked_up = model.lm_head is not None
    for name, parameter in model.named_parameters():
        if not name.startswith("mtp.") and not (is_looked_up and name == "embed_tokens.weight"):
            yield name, parameter.nbytes
