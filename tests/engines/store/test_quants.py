"""Which of several GGUF files is meant."""

import pytest

from parrot_backend.engines.store.quants import choose, label, models_among
from parrot_backend.wire.errors import InvalidRequestError, NotFoundError

FILES = [
    "Llama-3.2-1B-Instruct-IQ4_XS.gguf",
    "Llama-3.2-1B-Instruct-Q4_K_M.gguf",
    "Llama-3.2-1B-Instruct-UD-Q4_K_M.gguf",
    "Llama-3.2-1B-Instruct-Q8_0.gguf",
    "Llama-3.2-1B-Instruct-f16.gguf",
    "BF16/Llama-3.2-1B-Instruct-BF16-00001-of-00002.gguf",
    "BF16/Llama-3.2-1B-Instruct-BF16-00002-of-00002.gguf",
    "mmproj-model-f16.gguf",
    "README.md",
]


@pytest.mark.parametrize(
    ("quant", "file"),
    [
        (None, "Llama-3.2-1B-Instruct-Q4_K_M.gguf"),
        ("q4_k_m", "Llama-3.2-1B-Instruct-Q4_K_M.gguf"),
        ("UD-Q4_K_M", "Llama-3.2-1B-Instruct-UD-Q4_K_M.gguf"),
        ("Q8_0", "Llama-3.2-1B-Instruct-Q8_0.gguf"),
        ("F16", "Llama-3.2-1B-Instruct-f16.gguf"),
        ("bf16", "BF16/Llama-3.2-1B-Instruct-BF16-00001-of-00002.gguf"),
        ("Llama-3.2-1B-Instruct-IQ4_XS.gguf", "Llama-3.2-1B-Instruct-IQ4_XS.gguf"),
    ],
)
def test_a_file_is_named_by_what_its_name_ends_in(quant: str | None, file: str) -> None:
    assert choose(FILES, quant, "here") == file


@pytest.mark.parametrize("quant", ["Q4_XS", "Q5_K_M", "K_M", "16", ".*", "Q4"])
def test_a_quantization_that_is_not_there_is_told_with_those_that_are(quant: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        choose(FILES, quant, "the repository")
    message = caught.value.message
    assert message.startswith(f"the repository has no '{quant}'; there is: BF16, IQ4_XS, Q4_K_M,")
    assert "mmproj" not in message


def test_without_a_name_the_only_one_is_meant() -> None:
    assert choose(["a-Q5_0.gguf", "mmproj-a-f16.gguf"], None, "here") == "a-Q5_0.gguf"
    with pytest.raises(InvalidRequestError, match=r"2 GGUF files, name one .*: Q5_0, Q6_K"):
        choose(["a-Q5_0.gguf", "a-Q6_K.gguf"], None, "here")
    with pytest.raises(NotFoundError, match="holds no GGUF file"):
        choose(["mmproj-a-f16.gguf", "a.bin"], None, "here")


def test_the_first_part_stands_for_all() -> None:
    assert models_among(FILES[-4:]) == [FILES[5]]


@pytest.mark.parametrize(
    ("file", "quant"),
    [
        ("a.b-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1"),
        ("ggml_model_q4_0.gguf", "q4_0"),
        ("gpt-oss-20b-mxfp4.gguf", "mxfp4"),
        ("x/a-Q8_0-00001-of-00003.gguf", "Q8_0"),
        ("tiny.gguf", "tiny.gguf"),
    ],
)
def test_a_file_is_asked_for_by_its_label(file: str, quant: str) -> None:
    assert label(file) == quant
    assert choose([file, "other-F32.gguf"], quant, "here") == file
