"""Models fetched from the Hugging Face hub: weights, configs and templates as data, never code and never pickles."""

from __future__ import annotations

from pathlib import Path

from seamount.errors import MissingDependency, ModelNotFound

DATA_PATTERNS = ["*.safetensors", "*.json", "*.jinja"]


def fetch_from_hub(model_id: str) -> Path:
    """The directory of the hub's model `owner/name`, fetched unless it is in the cache.

    Errors: MissingDependency without huggingface_hub; ModelNotFound when the hub lacks it, refuses it, or is out of
    reach.
    """
    # Optional, and slow to import: a model on this machine must not wait for it.
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise MissingDependency(
            f"fetching {model_id!r} from the hub needs huggingface_hub: pip install huggingface_hub"
        ) from error
    try:
        # Subdirectories repeat the weights in other layouts or hold demo code; nothing here reads them.
        directory = snapshot_download(model_id, allow_patterns=DATA_PATTERNS, ignore_patterns=["*/*"])
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelNotFound(
            f"the hub's model {model_id!r} could not be fetched: {reason[0]} "
            "Check the name, the network and, for a gated model, your hub token; or give a directory or a .gguf file"
        ) from error
    return Path(directory)
