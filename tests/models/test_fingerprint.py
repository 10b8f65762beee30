"""The fingerprint of a model: equal for equal models, and another one for every other."""

import hashlib
import itertools
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toys import LLAMA, V3

import seamount
from seamount.kernels import checksum
from seamount.kernels.cpu import checksum as kernel
from seamount.models import Model, fingerprint, initialise
from seamount.models.packed import packed_weights

V3_MTP = V3 | {"num_nextn_predict_layers": 1}


def model(config: dict[str, Any], directory: Path, **options: Any) -> Model:
    if not directory.exists():
        initialise(config, directory)
    return seamount.load(directory, **options)


def tensors(model: Model) -> list[Tensor]:
    packed = [part for _, weight in packed_weights(model) for part in (weight.blocks, weight.scale)]
    return [parameter.detach() for parameter in model.parameters()] + packed


def flip(tensor: Tensor, bit: int) -> None:
    tensor.view(-1).view(torch.uint8)[bit // 8] ^= 1 << bit % 8


def data(count: int, seed: int = 0) -> Tensor:
    return torch.randint(256, (count,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def plain_states(data_B: Tensor) -> bytes:
    """The checksum's lanes, word by word."""
    whole = 2**64
    states = [(number * kernel._SQRT5) % whole for number in range(1, 33)]
    padded = data_B.numpy().tobytes() + bytes(-len(data_B) % 256)
    for place, (word,) in enumerate(struct.iter_unpack("<Q", padded)):
        total = (states[place % 32] + word * kernel._SQRT5) % whole
        states[place % 32] = ((total << 31 | total >> 33) * kernel._SQRT2) % whole
    return struct.pack("<32Q", *states)


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 511, 512, 1283])
def test_a_checksum_is_what_its_definition_says(count: int) -> None:
    expected = hashlib.blake2b(plain_states(data(count)) + struct.pack("<Q", count), digest_size=32).digest()
    assert checksum(data(count)) == expected


def test_every_bit_every_length_and_every_order_has_its_own_checksum() -> None:
    data_B = data(600)
    found = [checksum(data_B[:length]) for length in range(601)]
    found += [checksum(torch.zeros(length, dtype=torch.uint8)) for length in range(1, 601)]
    for bit in range(600 * 8):
        flip(data_B, bit)
        found.append(checksum(data_B))
        flip(data_B, bit)
    for first, second in itertools.combinations(range(0, 600, 40), 2):
        words_B = data_B.clone()
        words_B[first : first + 8], words_B[second : second + 8] = (
            data_B[second : second + 8],
            data_B[first : first + 8],
        )
        found.append(checksum(words_B))
    assert len(set(found)) == len(found)


def test_signs_that_turn_in_a_pattern_do_not_cancel() -> None:
    """Signs are the words' highest bits, which a product alone would hand on as they are."""
    plain = np.ones(4096, np.float32)
    found = [plain]
    for step, first in itertools.product((1, 2, 32, 64, 128), range(4)):
        turned = plain.copy()
        turned[first::step] *= -1
        found.append(turned)
    distinct = {array.tobytes() for array in found}
    assert len({checksum(torch.from_numpy(array).view(torch.uint8)) for array in found}) == len(distinct) > 10


@pytest.mark.parametrize("options", [{}, {"quantize": "int8"}, {"quantize": "int4"}])
@pytest.mark.parametrize("config", [LLAMA | {"attention_bias": True}, V3_MTP])
def test_every_tensor_counts_to_the_last_bit(config: dict[str, Any], options: dict[str, Any], tmp_path: Path) -> None:
    changed = model(config, tmp_path / "a", **options)
    first = fingerprint(changed)
    assert first == fingerprint(model(config, tmp_path / "a", **options))
    generator = torch.Generator().manual_seed(0)
    found = {first}
    for tensor in tensors(changed):
        bit = int(torch.randint(tensor.nbytes * 8, (), generator=generator))
        flip(tensor, bit)
        found.add(fingerprint(changed))
        flip(tensor, bit)
    assert len(found) == 1 + len(tensors(changed))
    assert fingerprint(changed) == first


def test_the_same_weights_in_other_formats_differ(tmp_path: Path) -> None:
    options = ({"dtype": "float32"}, {"dtype": "bfloat16"}, {"quantize": "int8"}, {"quantize": "int4"})
    assert len({fingerprint(model(V3, tmp_path / "a", **each)) for each in options}) == len(options)


def test_the_same_weights_under_another_config_differ(tmp_path: Path) -> None:
    plain = model(LLAMA, tmp_path / "a")
    found = {fingerprint(plain)}
    for number, change in enumerate(({"rope_theta": 5000.0}, {"rms_norm_eps": 1e-5}, {"tie_word_embeddings": True})):
        other = model(LLAMA | change, tmp_path / str(number))
        other.load_state_dict(plain.state_dict(), strict="tie_word_embeddings" not in change)
        found.add(fingerprint(other))
    assert len(found) == 4


def test_weights_that_changed_places_differ(tmp_path: Path) -> None:
    changed = model(LLAMA, tmp_path / "a")
    first = fingerprint(changed)
    one, other = (layer.mlp.down_proj.weight for layer in changed.layers[:2])
    one.data, other.data = other.data, one.data
    second = fingerprint(changed)
    assert second != first
    one.data, other.data = other.data, one.data
    assert fingerprint(changed) == first


def test_how_a_tensor_lies_in_memory_does_not_count(tmp_path: Path) -> None:
    changed = model(LLAMA, tmp_path / "a")
    first = fingerprint(changed)
    weight = changed.layers[0].mlp.down_proj.weight
    weight.data = weight.data.T.contiguous().T
    assert not weight.is_contiguous()
    assert fingerprint(changed) == first


@pytest.mark.gpu
def test_weights_on_a_gpu_count_to_the_last_bit(tmp_path: Path) -> None:
    changed = model(LLAMA, tmp_path / "a").to("cuda")
    first = fingerprint(changed)
    tensor = tensors(changed)[3]
    flip(tensor, 7)
    assert fingerprint(changed) != first
    flip(tensor, 7)
    assert fingerprint(changed) == first
