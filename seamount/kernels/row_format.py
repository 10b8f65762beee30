"""Cached rows in fewer bytes: most numbers as int8, a scale for each group of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from seamount.errors import ConfigError

SMALLEST_TOP = 1e-30
"""A group's largest number is taken to be at least this, so that what is decoded is 0 or no subnormal number."""


@dataclass(frozen=True)
class RowFormat:
    """A row of `dim` numbers: the first `compressed` as int8, in groups of `group`, and the others as bfloat16.

    Layout: int8 (compressed); scales, float32 (compressed / group); bfloat16 (dim - compressed). A number is its code
    times its group's scale, rounded to the dtype that attention computes in. `compressed` is a multiple of `group`, and
    that of 16. A group with a number that is not finite is decoded to no number at all.
    Errors: ConfigError for a group that 16 does not divide.
    """

    dim: int
    compressed: int
    group: int

    def __post_init__(self) -> None:
        if self.group % 16:
            raise ConfigError(
                f"rows are compressed in groups of {self.group} numbers, of a latent or a head, and that must be a "
                "multiple of 16: keep this model's rows uncompressed"
            )
        assert 0 < self.compressed <= self.dim, f"{self.compressed} of {self.dim} numbers"
        assert self.compressed % self.group == 0, f"groups of {self.group} do not fill {self.compressed} numbers"

    @property
    def nbytes(self) -> int:
        """Bytes of a row."""
        return self.compressed + self.compressed // self.group * 4 + (self.dim - self.compressed) * 2

    def encode(self, rows_TX: Tensor) -> Tensor:
        """Rows (T, dim) as they are stored: (T, nbytes) uint8. Source: absolute maximum, round to nearest even."""
        group_TGX = rows_TX[:, : self.compressed].float().unflatten(1, (-1, self.group))
        top_TG = group_TGX.abs().amax(-1).clamp(min=SMALLEST_TOP)
        inverse_TG = torch.full_like(top_TG, 127) / top_TG  # of a number and a tensor torch multiplies the reciprocal
        code_TGX = (group_TGX * inverse_TG[..., None]).round().nan_to_num(0).to(torch.int8)
        scale_TG = torch.where(group_TGX.isfinite().all(-1), top_TG / 127, torch.nan)
        parts = (code_TGX.flatten(1), scale_TG, rows_TX[:, self.compressed :].bfloat16())
        return torch.cat([part.contiguous().view(torch.uint8) for part in parts], dim=1)

    def decode(self, rows_TX: Tensor, dtype: torch.dtype) -> Tensor:
        """Stored rows (..., nbytes) as numbers: (..., dim)."""
        sizes = (self.compressed, self.compressed // self.group * 4, (self.dim - self.compressed) * 2)
        code, scale, rest = (part.contiguous() for part in rows_TX.split(sizes, dim=-1))
        code_XG = code.view(torch.int8).float().unflatten(-1, (-1, self.group))
        number = (code_XG * scale.view(torch.float32)[..., None]).flatten(-2)
        return torch.cat((number.to(dtype), rest.view(torch.bfloat16).to(dtype)), dim=-1)
