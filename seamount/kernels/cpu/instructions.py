"""How a numba function is made of LLVM instructions: three vector types of 64 bytes, and what builds their code."""

import inspect
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

I8, I16, I32, I64, F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()


class VectorType(types.Type):
    """A numba type whose values live in vector registers."""

    def __init__(self, name: str, element: ir.Type, count: int) -> None:
        self.ir_type = ir.VectorType(element, count)
        super().__init__(name=name)


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: VectorType) -> None:
        super().__init__(manager, vector, vector.ir_type)


Bytes = VectorType("Bytes", I8, 64)
Ints = VectorType("Ints", I32, 16)
Floats = VectorType("Floats", F32, 16)
address = types.int64


def instruction(returns: types.Type, *arguments: types.Type) -> Callable[[Callable[..., Any]], Any]:
    """Make a numba function of one that builds LLVM instructions: `emit(builder, *values) -> value`."""

    def decorate(emit: Callable[..., Any]) -> Any:
        def typed(context: Any, *given: Any) -> Any:
            def generate(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
                result = emit(builder, *values)
                return context.get_dummy_value() if result is None else result

            return returns(*arguments), generate

        # numba reads a function's parameters to match a call with it.
        names = ["context", *list(inspect.signature(emit).parameters)[1:]]
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        typed.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])  # type: ignore[attr-defined]
        typed.__name__, typed.__doc__ = emit.__name__, emit.__doc__
        return intrinsic(typed)

    return decorate


def call(builder: ir.IRBuilder, name: str, returns: ir.Type, *values: ir.Value) -> ir.Value:
    """Call one of LLVM's intrinsics."""
    function_type = ir.FunctionType(returns, [value.type for value in values])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), values)


def splat(builder: ir.IRBuilder, scalar: ir.Value, vector: ir.VectorType) -> ir.Value:
    """All lanes equal."""
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, I32(0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count))


def constant(vector: ir.VectorType, value: float) -> ir.Constant:
    """All lanes equal to a constant."""
    return ir.Constant(vector, [value] * vector.count)


def pick(builder: ir.IRBuilder, value: ir.Value, lanes: list[int]) -> ir.Value:
    """A vector made of some lanes of another."""
    return builder.shuffle_vector(value, value, ir.Constant(ir.VectorType(I32, len(lanes)), lanes))


def unseen(builder: ir.IRBuilder, value: ir.Value, register: str) -> ir.Value:
    """The same value in a register of this kind (as LLVM names it), but LLVM cannot know what it is."""
    kind = ir.FunctionType(value.type, [value.type])
    return builder.call(ir.InlineAsm(kind, "", f"={register},0"), [value])


def at(builder: ir.IRBuilder, place: ir.Value, kind: ir.Type) -> ir.Value:
    """An address as a pointer."""
    return builder.inttoptr(place, kind.as_pointer())


def read(builder: ir.IRBuilder, place: ir.Value, kind: ir.Type) -> ir.Value:
    """Read without asking for alignment."""
    value = builder.load(at(builder, place, kind))
    value.align = 1
    return value


def write(builder: ir.IRBuilder, place: ir.Value, value: ir.Value) -> None:
    """Write without asking for alignment."""
    builder.store(value, at(builder, place, value.type), align=1)
