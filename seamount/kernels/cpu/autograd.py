"""The canonical forward operations with gradients: our kernels forward, torch's products backward.

Only what the trainer's log-probabilities depend on must have one order of sums; a gradient need not.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seamount.kernels.cpu import dense


def wants_gradient(*tensors: Tensor | None) -> bool:
    """Whether the result of an operation on these must know how it came about."""
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                return True
    return False


class Linear(torch.autograd.Function):
    """dense.linear with gradients of input, weight and bias."""

    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, weight_FD: Tensor, bias_F: Tensor | None) -> Tensor:
        """See dense.linear."""
        ctx.save_for_backward(x_TD, weight_FD)
        return dense.linear(x_TD, weight_FD, bias_F)

    @staticmethod
    def backward(ctx: Any, grad_TF: Tensor) -> tuple[Tensor | None, ...]:
        """Only the gradients that are asked for."""
        x_TD, weight_FD = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        grad_NF = grad_TF.reshape(-1, grad_TF.shape[-1])
        return (
            grad_TF @ weight_FD if needs_x else None,
            grad_NF.T @ x_TD.reshape(-1, x_TD.shape[-1]) if needs_weight else None,
            grad_NF.sum(0) if needs_bias else None,
        )


class Recomputed(torch.autograd.Function):
    """A kernel forward; backward, its reference is worked out again and differentiated.

    Cost: one more forward in torch, and no memory beyond the inputs in between.
    """

    @staticmethod
    def forward(
        ctx: Any, kernel: Callable[..., Tensor], specification: Callable[..., Tensor], *inputs: Tensor
    ) -> Tensor:
        """`kernel(*inputs)`."""
        ctx.specification = specification
        ctx.save_for_backward(*inputs)
        return kernel(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Only the gradients that are asked for."""
        wanted = ctx.needs_input_grad[2:]
        inputs = [
            tensor.detach().requires_grad_() if is_wanted else tensor.detach()
            for tensor, is_wanted in zip(ctx.saved_tensors, wanted, strict=True)
        ]
        with torch.enable_grad():
            out = ctx.specification(*inputs)
        found = iter(torch.autograd.grad(out, [tensor for tensor in inputs if tensor.requires_grad], grad))
        return None, None, *(next(found) if is_wanted else None for is_wanted in wanted)


def run(kernel: Callable[..., Tensor], specification: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """`kernel(*inputs)`, with the gradients of `specification` where they are wanted."""
    if wants_gradient(*inputs):
        return Recomputed.apply(kernel, specification, *inputs)
    return kernel(*inputs)
