"""Checkpoints by path or hub identifier: from the cache when offline, or one clear sentence."""

from pathlib import Path

import pytest

from clarep.engine.hub import checkpoint_folder
from clarep.errors import UserError

COMMIT = "0" * 39 + "1"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of the hub, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def put_into_cache(cache: Path, identifier: str) -> Path:
    repository = cache / f"models--{identifier.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    (snapshot / "unet").mkdir(parents=True)
    (snapshot / "model_index.json").write_text("{}")
    (snapshot / "unet/config.json").write_text("{}")
    (snapshot / "unet/diffusion_pytorch_model.safetensors").touch()
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(COMMIT)
    return snapshot


def test_a_cached_repository_needs_no_network(cache):
    snapshot = put_into_cache(cache, "someone/a-model.v2")
    folder = checkpoint_folder("someone/a-model.v2")
    assert folder.samefile(snapshot)
    assert (folder / "unet/config.json").exists()


def test_neither_network_nor_cache(cache):
    put_into_cache(cache, "someone/another")
    with pytest.raises(UserError) as caught:
        checkpoint_folder("someone/a-model")
    text = str(caught.value)
    assert "someone/a-model is no folder here, is not in the Hugging Face cache" in text
    assert "give a folder, or run this once with a network" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "kind", ["LocalEntryNotFoundError", "RepositoryNotFoundError", "GatedRepoError", "ReadError"]
)
def test_what_the_hub_answers_is_told_in_one_sentence(kind, cache, monkeypatch):
    import huggingface_hub
    from huggingface_hub import errors

    class ReadError(Exception):
        """Of an HTTP library, which need not be an OSError."""

    fail = ReadError if kind == "ReadError" else getattr(errors, kind)

    def snapshot_download(*_args, **_options):
        error = fail.__new__(fail)
        Exception.__init__(error, "401 Client Error.\nMore of it\nand more")
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    words = {
        "LocalEntryNotFoundError": "the hub cannot be reached",
        "RepositoryNotFoundError": "the Hugging Face hub gives no someone/model",
        "GatedRepoError": "accept its licence there",
        "ReadError": "cannot download someone/model",
    }[kind]
    with pytest.raises(UserError, match=words) as caught:
        checkpoint_folder("someone/model")
    assert "\n" not in str(caught.value)


def test_no_pickle_and_no_code_is_downloaded(cache, monkeypatch, tmp_path):
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    asked = {}

    def snapshot_download(identifier, **options):
        asked.update(options, identifier=identifier)
        return str(tmp_path)

    (tmp_path / "model.safetensors").touch()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert checkpoint_folder("someone/model") == tmp_path
    assert asked["identifier"] == "someone/model"
    there = [
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "tokenizer/merges.txt",
        "unet/diffusion_pytorch_model.bin",
        "unet/clarep_unet.py",
        "pipeline.py",
        "model.ckpt",
        "weights.pt",
    ]
    taken = list(filter_repo_objects(there, allow_patterns=asked["allow_patterns"]))
    assert taken == there[:4]


@pytest.fixture
def hub(cache, monkeypatch, tmp_path):
    """A hub of one repository, whose files are the fixture's list; `asked` says what was asked."""
    import huggingface_hub

    class Hub:
        files, asked = [], {}

    def list_repo_files(identifier, revision, repo_type):
        Hub.asked = {"identifier": identifier, "revision": revision}
        return Hub.files

    def snapshot_download(identifier, *, revision, repo_type, allow_patterns, ignore_patterns):
        assert Hub.asked == {"identifier": identifier, "revision": revision}
        assert ignore_patterns is None
        Hub.asked["files"] = allow_patterns
        for name in allow_patterns:
            (tmp_path / "got" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "got" / name).touch()
        return str(tmp_path / "got")

    monkeypatch.setattr(huggingface_hub, "list_repo_files", list_repo_files)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return Hub


def test_a_revision_and_a_repository_of_pickles_alone(hub):
    hub.files = ["model_index.json", "transformer/diffusion_pytorch_model.bin"]
    with pytest.raises(UserError) as caught:
        checkpoint_folder("facebook/DiT-XL-2-256")
    assert hub.asked["revision"] is None and hub.asked["files"] == ["model_index.json"]
    text = str(caught.value)
    assert text.startswith("facebook/DiT-XL-2-256 holds no safetensors at this revision")
    assert "facebook/DiT-XL-2-256@refs/pr/1 say, or convert it" in text and "\n" not in text
    hub.files = ["model_index.json", "transformer/diffusion_pytorch_model.safetensors"]
    checkpoint_folder("facebook/DiT-XL-2-256@refs/pr/1")
    asked = {"identifier": "facebook/DiT-XL-2-256", "revision": "refs/pr/1", "files": hub.files}
    assert hub.asked == asked


def test_half_precision_is_taken_where_there_is_no_other(hub):
    half = "diffusion_pytorch_model.fp16.safetensors"
    hub.files = [
        f"unet/{half}",
        "unet/diffusion_pytorch_model.safetensors",
        f"vae/{half}",
        "vae/diffusion_pytorch_model.bin",
        "text_encoder/model.fp16-00001-of-00002.safetensors",
        "text_encoder/model.safetensors.index.fp16.json",
    ]
    checkpoint_folder("someone/model")
    assert hub.asked["files"] == [hub.files[i] for i in (1, 2, 4, 5)]


def test_of_a_pipeline_one_part_alone(hub):
    name = "diffusion_pytorch_model.safetensors"
    hub.files = ["model_index.json", f"unet/{name}", "vae/config.json", f"vae/{name}"]
    folder = checkpoint_folder("someone/model", part="vae")
    assert hub.asked["files"] == ["vae/config.json", f"vae/{name}"]
    assert (folder / "vae").is_dir()
    hub.files = ["config.json", name]  # of an autoencoder alone
    checkpoint_folder("someone/vae", part="vae")
    assert hub.asked["files"] == hub.files


def test_a_folder_is_taken_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("some/model").mkdir(parents=True)
    assert checkpoint_folder("some/model") == Path("some/model")  # never asked for at the hub
    assert checkpoint_folder(str(tmp_path)) == tmp_path
    Path("a_file").write_text("")
    with pytest.raises(UserError, match=r"a_file is a file: give the folder"):
        checkpoint_folder("a_file")
    for place in ("nowhere", "a/b/c", "/no/where", "../x", "./x", "a/..b", "a b/c", "a/b@"):
        with pytest.raises(UserError, match="there is no folder"):
            checkpoint_folder(place)
