"""Small models with MTP layers, and one whose MTP layers are right by construction."""

from __future__ import annotations

from pathlib import Path

import torch

import seamount
from seamount.models import initialise
from seamount.models.model import Model
from seamount.tokenizer import Tokenizer

FORMS = {"float32": {"dtype": "float32"}, "bfloat16": {"dtype": "bfloat16"}, "int8": {"quantize": "int8"}}


def mtp_model(directory: Path, tokenizer: Tokenizer, form: str = "float32", layers: int = 1) -> Model:
    """A random model of V3's kind."""
    overrides = {"num_nextn_predict_layers": layers, "initializer_range": 0.2}
    initialise("tiny-v3", directory / "model", seed=1, overrides=overrides)
    model = seamount.load(directory / "model", **FORMS[form])
    model.tokenizer = tokenizer
    return model


@torch.no_grad()
def make_right(model: Model) -> None:
    """Let the next token depend on the last one alone, and the MTP layers say what the model will say.

    All layers add nothing; an MTP layer hands on the embedding of the token behind, which is what the model will read.
    """
    for name, weight in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight", "down_proj")):
            weight.zero_()
        if name.endswith("eh_proj.weight"):
            weight.copy_(torch.eye(*weight.shape))
