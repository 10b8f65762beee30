"""Real texts to measure on: those that every Python interpreter carries, so that no network is needed, or one's own."""

import importlib
import inspect
import platform
from dataclasses import dataclass
from pathlib import Path

from seamount.errors import ConfigError, MissingDependency, ModelNotFound

CODE_MODULES = ("textwrap", "heapq", "bisect", "fnmatch", "shlex", "statistics")
ENGLISH_TOPICS = ("naming", "objects", "execmodel", "exceptions", "import", "typesseq", "customization", "compound")


@dataclass(frozen=True)
class Text:
    """A text, what to call it, and where it comes from."""

    name: str
    source: str
    content: str


def shipped_texts() -> tuple[Text, Text]:
    """English and Python code from this interpreter's own standard library.

    They differ a little between Python versions, so compare figures of the same version only; `source` names it.

    Errors: MissingDependency if the interpreter was installed without its sources or help texts.
    """
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
        english = "\n\n".join(topics[name] for name in ENGLISH_TOPICS if name in topics)
        code = "\n\n".join(inspect.getsource(importlib.import_module(name)) for name in CODE_MODULES)
    except (ImportError, OSError) as error:
        raise MissingDependency(
            f"this Python lacks its own help texts or sources ({error}); install the full standard library, or give a "
            "text of your own with --text"
        ) from error
    version = platform.python_version()
    return (
        Text("english", f"Python {version}, pydoc_data.topics: {', '.join(ENGLISH_TOPICS)}", english),
        Text("python", f"Python {version}, source of the modules {', '.join(CODE_MODULES)}", code),
    )


def file_text(path: Path) -> Text:
    """A text file.

    Errors: ModelNotFound if there is none of that name, ConfigError if it is not UTF-8 text.
    """
    try:
        return Text(path.name, "a file", path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelNotFound(f"no text file {path}") from None
    except (UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} cannot be read as UTF-8 text: {error}") from None
