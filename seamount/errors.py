"""Every error that Seamount raises on purpose, and how they relate.

    SeamountError
    ├── ConfigError          (ValueError)         a value in a config, a recipe or a command line is not allowed
    │   ├── UnknownModelType                      config.json names a model_type that no family here implements
    │   └── UnsupportedField                      a field would change the result and is not implemented
    ├── CheckpointError      (ValueError)         weights cannot be used
    │   ├── CorruptFile                           truncated, damaged, or not of the format that its name says
    │   ├── UnsafeFile                            could run code or reach outside its directory; refused unread
    │   └── TensorMismatch                        missing, surplus or wrongly shaped tensors, all of them listed
    ├── ModelNotFound        (FileNotFoundError)  no directory, file, preset or hub id of that name
    ├── TokenizerError       (ValueError)         tokenizer missing or unusable
    │   └── TemplateError                         the chat template is missing or refused the messages
    ├── RequestError         (ValueError)         a request for tokens is not answerable as asked
    │   ├── ContextOverflow                       prompt and answer do not fit into the model's context
    │   └── ModelNotAllowed                       the API key is not for this model
    ├── EngineError          (RuntimeError)       a request is in order, and this engine does not answer it now
    │   ├── QueueFull                             too many requests wait already; ask again later
    │   ├── RateLimited                           the API key's limit is reached; `seconds` says how long to wait
    │   └── BudgetExceeded                        the API key has spent what it may
    ├── LedgerError          (RuntimeError)       the database of ledger and keys cannot be read or written
    └── MissingDependency    (ImportError)        an optional package is not installed

Catch `SeamountError` for all of them, or the standard error in brackets. Each takes one message, so each can be
pickled and sent between processes. A bug of ours is an `AssertionError`, never one of these.
"""

from collections.abc import Mapping


class SeamountError(Exception):
    """The base of all errors above."""


class ConfigError(SeamountError, ValueError):
    """A value in a config, a recipe or a command line is not allowed."""


class UnknownModelType(ConfigError):
    """config.json names a model_type that no family here implements."""


class UnsupportedField(ConfigError):
    """A config field would change the result and is not implemented."""


class CheckpointError(SeamountError, ValueError):
    """Weights cannot be used."""


class CorruptFile(CheckpointError):
    """A file is truncated, damaged, or not of the format that its name says."""


class UnsafeFile(CheckpointError):
    """A file could run code or reach outside its directory."""


class TensorMismatch(CheckpointError):
    """Tensors are missing, surplus or wrongly shaped; the message lists them all."""


class ModelNotFound(SeamountError, FileNotFoundError):
    """No directory, file, preset or hub id of that name."""


class TokenizerError(SeamountError, ValueError):
    """The tokenizer is missing or unusable."""


class TemplateError(TokenizerError):
    """The chat template is missing or refused the messages."""


class RequestError(SeamountError, ValueError):
    """A request for tokens is not answerable as asked."""


class ContextOverflow(RequestError):
    """Prompt and answer do not fit into the model's context."""


class ModelNotAllowed(RequestError):
    """The API key is not for this model."""


class EngineError(SeamountError, RuntimeError):
    """A request is in order, and this engine does not answer it now."""


class QueueFull(EngineError):
    """Too many requests wait already."""


class RateLimited(EngineError):
    """The API key's requests or tokens per minute, or its requests at the same time, are used up.

    Units: `seconds` until the same request can be admitted. `headers` tell it to the client in its dialect.
    """

    def __init__(self, message: str, seconds: float = 1.0, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.seconds = seconds
        self.headers = dict(headers or {})


class BudgetExceeded(EngineError):
    """The API key has spent what it may."""


class LedgerError(SeamountError, RuntimeError):
    """The database of ledger and keys cannot be read or written, or is not one."""


class MissingDependency(SeamountError, ImportError):
    """An optional package is not installed."""
