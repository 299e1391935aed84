"""Weights that do not fit are refused by the name of the tensor; the fingerprint follows the content."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from checkpoints import cached_checkpoint
from safetensors.torch import load_file, save_file

from dualpath_api.errors import SpecError, UnsupportedError
from dualpath_worker.models import load_model, resolve_model
from dualpath_worker.models.fingerprint import cache_directory, fingerprint
from dualpath_worker.models.linear import make_linear

NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


@pytest.fixture
def directory(tmp_path):
    return shutil.copytree(cached_checkpoint("qwen2"), tmp_path / "model")


def rewrite(directory, change):
    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def refused(directory, kind=SpecError):
    with pytest.raises(kind) as caught:
        load_model(directory, "float32", "cpu")
    return caught.value.cause


def test_a_missing_tensor(directory):
    rewrite(directory, lambda tensors: tensors.pop(NAME))
    assert refused(directory) == f"tensor {NAME} is missing"


def test_a_misshaped_tensor(directory):
    rewrite(directory, lambda tensors: tensors.update({NAME: torch.zeros(3, 64)}))
    assert refused(directory) == f"tensor {NAME} has shape (3, 64), not (160, 64)"


def test_an_unexpected_tensor(directory):
    rewrite(directory, lambda tensors: tensors.update({"model.extra": torch.zeros(3)}))
    assert refused(directory) == "unexpected tensors: model.extra"


def test_a_stored_dtype_that_cannot_be_used(directory):
    rewrite(directory, lambda tensors: tensors.update({NAME: tensors[NAME].to(torch.int8)}))
    assert "int8" in refused(directory, UnsupportedError)


def test_known_leftovers_are_ignored(directory):
    def change(tensors):
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(8)
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    rewrite(directory, change)
    load_model(directory, "float32", "cpu")


def test_a_missing_file_of_the_index(tmp_path):
    directory = shutil.copytree(cached_checkpoint("llama"), tmp_path / "model")
    name = sorted(directory.glob("*.safetensors"))[1]
    name.unlink()
    assert refused(directory) == f"missing: {name.name}"


def test_no_weights_and_broken_weights(directory):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    refused(directory)
    path.unlink()
    assert refused(directory) == "missing: model.safetensors"


def test_layout_comes_from_config_and_weights(directory):
    layout = load_model(directory, "bfloat16", "cpu").layout(64)
    assert (layout.dtype, layout.layers, layout.kv_heads, layout.head_dim) == ("bfloat16", 4, 2, 16)
    assert layout.fingerprint == fingerprint(directory)
    assert layout.layer_block_bytes == 64 * 2 * 2 * 16 * 2


def test_fingerprint_follows_content_not_place(directory, tmp_path):
    before = fingerprint(directory)
    assert fingerprint(shutil.copytree(directory, tmp_path / "copy")) == before
    path = directory / "model.safetensors"
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size and mtime: ctime tells
    assert fingerprint(directory) != before
    content[-1] ^= 1
    path.write_bytes(content)
    assert fingerprint(directory) == before
    raw = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**raw, "rope_theta": 5.0}))
    assert fingerprint(directory) != before


def test_fingerprint_of_many_files_is_cached_and_survives_a_broken_cache():
    directory = cached_checkpoint("llama")
    before = fingerprint(directory)
    entries = list(cache_directory().iterdir())
    assert len(entries) == len(list(directory.glob("*.safetensors"))) + 1
    entries[0].write_text("cut of")
    assert fingerprint(directory) == before
    assert len(entries[0].read_text()) == 64
    for entry in entries:  # the cache is really read
        entry.write_text("0" * 64)
    assert fingerprint(directory) != before


def test_fingerprint_without_a_usable_cache(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(fingerprint(cached_checkpoint("qwen3"))) == 64


def test_fingerprint_from_several_threads_at_once():
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(fingerprint, [cached_checkpoint("llama")] * 16))
    assert len(found) == 1
    assert not list(cache_directory().glob(".new-*"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 3, 8, 130])
@pytest.mark.parametrize("shape", [(40, 24), (700, 600)])
def test_linear_packed_or_not(dtype, bias, rows, shape):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator).to(dtype)
    vector = torch.randn(shape[0], generator=generator).to(dtype) if bias else None
    x = torch.randn(rows, shape[1], generator=generator).to(dtype)
    expected = x.double() @ weight.double().t() + (vector.double() if bias else 0)
    tolerance = 1e-4 if dtype == torch.float32 else 0.3
    torch.testing.assert_close(make_linear(weight, vector)(x).double(), expected, atol=tolerance, rtol=0.01)


def test_model_uris(directory, tmp_path):
    assert resolve_model(str(directory)) == directory
    assert resolve_model(directory.as_uri()) == directory
    with pytest.raises(SpecError, match="does not exist"):
        resolve_model((tmp_path / "none").as_uri())
    with pytest.raises(SpecError, match="not known here"):
        resolve_model("s3://bucket/model")
    with pytest.raises(SpecError, match="two parts"):
        resolve_model("hf://name")


def test_a_hub_id_without_the_hub(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(UnsupportedError, match="cannot get the model nobody/nothing") as caught:
        resolve_model("hf://nobody/nothing@main")
    assert "local directory" in caught.value.remedy
