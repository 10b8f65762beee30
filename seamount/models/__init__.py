"""Models: one definition that is trained, served and saved, and the checkpoints that it comes from."""

from seamount.models.initialising import initialise
from seamount.models.loading import load, load_spec
from seamount.models.model import Model
from seamount.models.saving import save
from seamount.models.spec import ModelSpec

__all__ = ["Model", "ModelSpec", "initialise", "load", "load_spec", "save"]
