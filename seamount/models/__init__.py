"""Models: one definition that is trained, served and saved, and the checkpoints that it comes from."""

from seamount.models.converting import convert
from seamount.models.fingerprint import fingerprint
from seamount.models.initialising import initialise
from seamount.models.loading import load
from seamount.models.model import Model
from seamount.models.opened import load_spec
from seamount.models.saving import save
from seamount.models.spec import ModelSpec

__all__ = ["Model", "ModelSpec", "convert", "fingerprint", "initialise", "load", "load_spec", "save"]
