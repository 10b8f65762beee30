"""The bfloat16 row product against the reference, over odd shapes."""

import pytest
import torch

from seamount import kernels
from seamount.kernels import reference
from seamount.kernels.cpu_rows import is_one_row_of_bfloat16, one_row


@pytest.mark.parametrize("F", [1, 15, 16, 17, 97])
@pytest.mark.parametrize("D", [1, 7, 64, 577])
def test_one_row_equals_the_reference(F: int, D: int) -> None:
    generator = torch.Generator().manual_seed(F * 1000 + D)
    x_1D = torch.randn(1, D, generator=generator).bfloat16()
    weight_FD = torch.randn(F, D, generator=generator).bfloat16()
    ours_1F = one_row(x_1D, weight_FD)
    exact_1F = x_1D.double() @ weight_FD.double().T
    assert ours_1F.shape == (1, F)
    # One rounding to bfloat16, of a float32 sum whose own error is small beside the sum of magnitudes.
    magnitude_1F = x_1D.double().abs() @ weight_FD.double().abs().T
    assert ((ours_1F.double() - exact_1F).abs() <= exact_1F.abs() * 2**-8 + magnitude_1F * 2**-20).all()
    torch.testing.assert_close(ours_1F, reference.linear(x_1D, weight_FD), rtol=2**-7, atol=2**-7)


def test_a_row_is_the_same_whatever_rows_of_weight_surround_it() -> None:
    x_1D, weight_FD = torch.randn(1, 300).bfloat16(), torch.randn(50, 300).bfloat16()
    whole_F = one_row(x_1D, weight_FD)[0]
    for row in range(50):
        assert torch.equal(one_row(x_1D, weight_FD[row : row + 1])[0], whole_F[row : row + 1])


def test_it_is_taken_only_where_it_is_right() -> None:
    x_1D, weight_FD = torch.randn(1, 8).bfloat16(), torch.randn(4, 8).bfloat16()
    assert is_one_row_of_bfloat16(x_1D, weight_FD)
    assert not is_one_row_of_bfloat16(x_1D.expand(2, 8), weight_FD)
    assert not is_one_row_of_bfloat16(x_1D.float(), weight_FD.float())
    assert not is_one_row_of_bfloat16(x_1D, torch.randn(8, 4).bfloat16().T)
    assert not is_one_row_of_bfloat16(x_1D, weight_FD.requires_grad_())
    with torch.inference_mode():
        assert is_one_row_of_bfloat16(x_1D, weight_FD)


def test_gradients_flow_through_linear() -> None:
    x_1D = torch.randn(1, 8).bfloat16().requires_grad_()
    weight_FD = torch.randn(4, 8).bfloat16().requires_grad_()
    kernels.linear(x_1D, weight_FD).sum().backward()
    assert torch.equal(x_1D.grad[0], weight_FD.detach().sum(0))
