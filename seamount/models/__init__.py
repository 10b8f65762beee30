"""Models: one definition that is trained, served and saved, and the checkpoints that it comes from."""

from seamount.models.initialise import initialise
from seamount.models.load import load, load_spec
from seamount.models.model import Model
from seamount.models.save import save
from seamount.models.spec import ModelSpec

__all__ = ["Model", "ModelSpec", "initialise", "load", "load_spec", "save"]
