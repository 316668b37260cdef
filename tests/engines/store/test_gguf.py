"""GGUF files as models: read as transformers would, converted once, refused with a reason."""

import logging
import os
from pathlib import Path

import pytest
import torch

from parrot_backend.engines.store.catalog import pull, resolve_model
from parrot_backend.engines.store.conversions import conversions, converted, find_gguf
from parrot_backend.engines.store.gguf import GGUFError
from parrot_backend.engines.store.listing import list_models
from tests.engines.store.tiny_gguf import tiny_model, write_gguf

TOKENS = torch.tensor([[5, 80, 33, 200, 7, 7, 129]])


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARROT_CACHE_DIR", str(tmp_path / "cache"))


def logits_of(path: Path) -> torch.Tensor:
    from parrot_backend.engines.torch_engine.load.examined import examine

    model = examine(str(converted(path))).model
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        return model(TOKENS).logits


def exact_logits(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(TOKENS).logits


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_file_computes_what_transformers_does(kind: str, tmp_path: Path) -> None:
    model = tiny_model(kind)
    write_gguf(tmp_path / "tiny.gguf", model)
    torch.testing.assert_close(logits_of(tmp_path / "tiny.gguf"), exact_logits(model))


def test_quantized_weights_are_dequantized(tmp_path: Path) -> None:
    model = tiny_model(hidden=64)
    write_gguf(tmp_path / "tiny.gguf", model, quantized="Q8_0")
    got, exact = logits_of(tmp_path / "tiny.gguf"), exact_logits(model)
    assert 0 < (got - exact).abs().max() < 0.05 * exact.abs().max()


def test_a_file_is_converted_once_and_again_when_it_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file)
    with caplog.at_level(logging.INFO, "parrot_backend"):
        folder = converted(file)
        assert converted(file) == folder
        assert caplog.text.count("converting tiny.gguf (once)") == 1

        os.utime(file, ns=(0, 0))
        assert converted(file) == folder
        (folder / "config.json").unlink()
        assert converted(file) == folder
    assert caplog.text.count("converting tiny.gguf (once)") == 3
    assert [path for _, path in conversions()] == [folder]


def test_a_folder_with_one_file_stands_for_it(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    file = tmp_path / "models" / "tiny.gguf"
    file.touch()
    assert find_gguf(tmp_path / "models") == file
    resolved = resolve_model(str(tmp_path / "models"))
    assert (resolved.name, resolved.path) == ("tiny", str(file))

    file.with_name("other.gguf").touch()
    with pytest.raises(GGUFError, match=r"2 GGUF files, name one: other\.gguf, tiny\.gguf"):
        resolve_model(str(tmp_path / "models"))
    (tmp_path / "models" / "config.json").touch()
    assert find_gguf(tmp_path / "models") is None


def test_pull_converts_ahead_and_list_shows_it(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file)
    folder = pull(str(file))
    listing = list_models()[-1]
    assert (listing.name, listing.source, listing.path) == (str(file), "file", file)
    assert listing.disk_bytes == file.stat().st_size
    assert listing.made_bytes == sum(made.stat().st_size for made in folder.iterdir())


def test_every_digit_is_a_token_where_the_file_says_so(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    write_gguf(tmp_path / "tiny.gguf")
    tokenizer = AutoTokenizer.from_pretrained(converted(tmp_path / "tiny.gguf"))
    # Digits are split off first, so two spaces before one stay one token.
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("a  12")) == ["a", "ĠĠ", "1", "2"]


def cut(file: Path, share: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])


@pytest.mark.parametrize("share", [0, 0.001, 0.2, 0.7, 0.999])
def test_a_file_that_is_cut_off_is_named(share: float, tmp_path: Path) -> None:
    file = tmp_path / "cut.gguf"
    write_gguf(file)
    cut(file, share)
    with pytest.raises(GGUFError, match=r"cut\.gguf' is not a whole GGUF file: .*fetch it again"):
        converted(file)
    assert conversions() == []


def test_a_file_without_a_tokenizer_says_what_to_fetch(tmp_path: Path) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "bare.gguf", "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(GGUFError, match=r"has no tokenizer .*: fetch a file that has one"):
        converted(tmp_path / "bare.gguf")


def test_a_link_keeps_its_name(tmp_path: Path) -> None:
    """The hub's cache has files under their hashes, and links with their names."""
    write_gguf(tmp_path / "hash")
    (tmp_path / "snapshot").mkdir()
    link = tmp_path / "snapshot" / "tiny.gguf"
    link.symlink_to(tmp_path / "hash")
    assert find_gguf(link) == find_gguf(tmp_path / "snapshot") == link
    assert converted(link).name.startswith("tiny-")


def test_projectors_and_further_parts_are_no_models(tmp_path: Path) -> None:
    for name in ("a-00001-of-00002.gguf", "a-00002-of-00002.gguf", "mmproj-a.gguf"):
        (tmp_path / name).touch()
    assert find_gguf(tmp_path) == tmp_path / "a-00001-of-00002.gguf"


def test_an_unsupported_architecture_is_named(tmp_path: Path) -> None:
    file = tmp_path / "odd.gguf"
    write_gguf(file, architecture="rwkv6")
    with pytest.raises(GGUFError, match=r"odd\.gguf' \(architecture 'rwkv6'\) can't be loaded"):
        converted(file)


def test_one_part_of_a_model_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "part-00001-of-00003.gguf"
    write_gguf(file, split__count=3)
    with pytest.raises(GGUFError, match="one of 3 parts"):
        converted(file)


def test_the_loader_tells_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    from parrot_backend.engines.torch_engine.errors import ModelLoadError
    from parrot_backend.engines.torch_engine.load.loader import load_model

    (tmp_path / "no.gguf").write_bytes(b"GGUF?")
    with pytest.raises(ModelLoadError, match=r"no\.gguf' is not a whole GGUF file"):
        load_model(str(tmp_path / "no.gguf"))
