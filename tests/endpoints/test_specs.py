"""What an operator says of engines, and what is wrong with it in one line."""

import re

import pytest

from parrot_backend.endpoints.spec_files import read_specs
from parrot_backend.endpoints.spec_names import named, with_key
from parrot_backend.endpoints.specs import EngineSpec, checked, spec_of
from parrot_backend.wire.errors import InvalidRequestError

URL = "http://localhost:8000/v1"


@pytest.mark.parametrize(
    ("engine", "kind", "target"),
    [
        ("vllm:org/model", "vllm", "org/model"),
        ("vllm:/models/m", "vllm", "/models/m"),
        ("parrot:smollm2-135m-instruct", "parrot", "smollm2-135m-instruct"),
        (URL, "upstream", URL),
        ("https://[::1]:8000/", "upstream", "https://[::1]:8000"),
    ],
)
def test_an_engine_is_a_model_or_a_url(engine, kind, target):
    spec = spec_of(engine)
    assert (spec.kind, spec.target) == (kind, target)


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ("", ": engine: it is no engine: write vllm:MODEL, parrot:MODEL or http://HOST:PORT"),
        ("vllm", ": engine: it names no model: write vllm:MODEL"),
        ("parrot: ", "names no model"),
        ("ollama:llama3", " ollama:...: engine: it is no engine"),
        (
            "localhost:8000",
            " localhost:8000: engine: it is no engine: is http://localhost:8000 meant?",
        ),
        (
            "127.0.0.1:9000/v1",
            " 127.0.0.1:9000/v1: engine: it is no engine: is http://127.0.0.1:9000/v1",
        ),
        ("[::1]:9000", "is http://[::1]:9000 meant?"),
        ("ftp://host", " ftp://host: engine: it is no engine"),
        ("http://", "is no engine"),
        ("http://host:port", " http://host:...: engine: it is no URL"),
        ("http://host:99999", "it is no URL"),
        ("http://host:0", "it is no URL"),
        ("http://[::1", "it is no URL"),
        ("http://host:1/v1?x=1", " http://host:1: engine: it is no engine's URL: leave out"),
        ("https://[::1]/v1#x", " https://[::1]: engine: it is no engine's URL"),
        ("http://host/a b", "leave out"),
    ],
)
def test_what_is_no_engine_is_said(engine, said):
    with pytest.raises(InvalidRequestError, match=f"^--engine.*{re.escape(said)}"):
        spec_of(engine)


def test_a_password_in_a_url_is_refused():
    with pytest.raises(InvalidRequestError) as told:
        spec_of("http://me:hunter2@host")
    assert told.value.message == (
        "--engine http:...: engine: a URL has no key or password in it: put it into "
        "PARROT_ENGINE_API_KEY, or name it by api_key_env or api_key_file in the file of --engines"
    )


@pytest.mark.parametrize(
    "engine",
    [
        "http://h:8000/v1?api_key=sk-SECRET",
        "http://h/v1#sk-SECRET",
        "user:sk-SECRET@host:8000",
        "sk-SECRET@host:8000",
        "sk-SECRET:@host:8000",
        "http:/user:sk-SECRET@host/v1",
        "htp://user:sk-SECRET@host",
        "http://user:sk-SECRET@host",
        "http://user:sk-SECRET/with@host",
        "http://sk-SECRET/with@host",
        "http://user:sk-SECRET?with@host",
        "http://host:sk-SECRET",
        "sk-SECRET",
    ],
)
def test_a_key_in_what_is_no_engine_is_not_repeated(engine):
    for wrong in (lambda: spec_of(engine), lambda: checked({"engine": engine}, "here")):
        with pytest.raises(InvalidRequestError) as told:
            wrong()
        assert "SECRET" not in told.value.message


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "engine: it is missing"),
        ({"engine": URL, "wieght": 2}, "wieght: there is no such field; there are engine, name,"),
        ({"engine": URL, "api_key": "sk-1"}, "api_key: there is no such field"),
        ({"engine": URL, "weight": 0}, "weight: Input should be greater than 0"),
        ({"engine": URL, "slots": 0}, "slots: Input should be greater than or equal to 1"),
        ({"engine": URL, "name": "a/b"}, "name: String should match"),
        ({"engine": URL, "models": []}, "models: it is empty: leave it out"),
        ({"engine": URL, "models": ["a", "a"]}, "models: 'a' is there twice"),
        ({"engine": URL, "aliases": ["a", "a"]}, "aliases: 'a' is there twice"),
        ({"engine": URL, "models": ["a", "b"], "aliases": ["c"]}, "aliases go with one model"),
        ({"engine": URL, "models": ["a", "b"], "serves": "c"}, "serves and aliases go with one"),
        ({"engine": URL, "serves": "c", "aliases": ["c"]}, "'c' is what it serves already"),
        ({"engine": URL, "tenants": []}, "tenants: it is empty: leave it out"),
        ({"engine": URL, "arguments": ["-x"]}, "only a vllm: engine has some"),
        ({"engine": "vllm:m", "arguments": ["--port", "1"]}, "--port is not yours to give"),
        ({"engine": "vllm:m", "models": ["m"]}, "models, api_key_env and api_key_file go with a URL"),
        ({"engine": URL, "api_key_env": "A", "api_key_file": "b"}, "either api_key_env or"),
        ({"engine": URL, "api_key_env": "sk-secret"}, "api_key_env: it is no name of an environment"),
        ([URL], "here: it has to be fields with their values"),
        ({"engine": URL, "aliases": "a"}, "aliases: it has to be a list"),
        ({"engine": URL, "tenants": "a"}, "tenants: it has to be a list"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_field_is_said_with_its_name_and_without_its_value(fields, said):
    with pytest.raises(InvalidRequestError) as told:
        checked(fields, "here")
    assert told.value.message.startswith("here: ")
    assert said in told.value.message
    assert "sk-" not in told.value.message
    assert "\n" not in told.value.message


def test_keys_are_where_the_spec_says_and_never_in_it(tmp_path, monkeypatch):
    monkeypatch.setenv("THE_KEY", " sk-1 ")
    spec = checked({"engine": URL, "api_key_env": "THE_KEY"}, "")
    assert spec.key().reveal() == "sk-1"
    assert "sk-1" not in repr(spec) + spec.model_dump_json() + repr(spec.key())
    (tmp_path / "key").write_text("sk-2\n")
    assert checked({"engine": URL, "api_key_file": tmp_path / "key"}, "").key().reveal() == "sk-2"
    assert spec_of(URL).key() is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "can't read that file: No such file"),
        ("", "there is no key"),
        ("a b", "its only word"),
        (b"\xff", "no text"),
    ],
)
def test_a_key_that_is_not_there_is_said(tmp_path, content, said):
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(
        InvalidRequestError, match=f"'http://localhost:8000': api_key_file: .*{said}"
    ):
        checked({"engine": URL, "api_key_file": str(path)}, "").key()


@pytest.mark.parametrize("field", ["api_key_env", "api_key_file"])
@pytest.mark.parametrize("key", ["gsk_SECRETabc123", "SECRETABCDEFGHIJKLMN234567", "SECRET_abc"])
def test_a_key_where_its_place_is_wanted_is_not_repeated(field, key):
    spec = checked({"engine": f"{URL}/sk-SECRET", "name": "cloud", field: key}, "")
    with pytest.raises(InvalidRequestError, match=f"^engine 'cloud': {field}: ") as told:
        spec.key()
    assert "SECRET" not in told.value.message


def test_a_key_that_no_header_can_carry_is_told_by_its_field(monkeypatch):
    monkeypatch.setenv("THE_KEY", "sk-SÉCRET")
    with pytest.raises(InvalidRequestError, match="api_key_env: the API key is empty or") as told:
        checked({"engine": URL, "api_key_env": "THE_KEY"}, "").key()
    assert "SÉCRET" not in told.value.message


def test_the_only_url_has_the_key_of_the_environment(caplog):
    ours, one, two = spec_of("parrot:m"), spec_of(URL), spec_of("http://other")
    set_ = {"PARROT_ENGINE_API_KEY": "k"}
    given = with_key([ours, one], set_)
    assert [spec.api_key_env for spec in given] == [None, "PARROT_ENGINE_API_KEY"]
    assert not caplog.records
    assert with_key([one, two], set_) == [one, two]
    assert [told.split(":")[0] for told in caplog.messages] == [
        "PARROT_ENGINE_API_KEY is the key of an only URL, and none of these 2 gets it"
    ]
    assert with_key([one], {}) == [one]
    own = checked({"engine": URL, "api_key_env": "OWN"}, "")
    assert with_key([own], set_) == [own]
    assert with_key([own, own], set_) == [own, own]
    assert len(caplog.records) == 1


def test_engines_without_a_name_are_called_after_what_they_are():
    specs = [spec_of(e) for e in ("vllm:m", "vllm:m", "parrot:m", URL, URL, "https://api.x.com/v1")]
    specs.append(EngineSpec(engine="vllm:m", name="vllm-2"))
    assert [spec.name for spec in named(specs)] == [
        "vllm", "vllm-3", "parrot", "localhost:8000", "localhost:8000-2", "api.x.com", "vllm-2",
    ]  # fmt: skip


def test_a_name_that_two_have_is_said():
    with pytest.raises(InvalidRequestError, match="two engines are named 'a'"):
        named([EngineSpec(engine=URL, name="a") for _ in range(2)])


def test_replicas_may_have_one_alias_and_two_models_may_not():
    def aliased(**fields):
        return EngineSpec(engine=URL, aliases=("x",), **fields)

    named([aliased(), aliased()])
    named([aliased(models=("m",)), aliased(models=("m",)), aliased()])
    named([aliased(models=("m:latest",), serves="m"), aliased(models=("m",))])
    for one in (aliased(models=("m",)), aliased(models=("n",), serves="m")):
        with pytest.raises(
            InvalidRequestError, match="the alias 'x', and one serves 'm', the other 'n'"
        ):
            named([one, aliased(models=("n",))])


@pytest.mark.parametrize(
    ("models", "others"),
    [(("a/b", "a-b"), ()), (("a" * 65, "a" * 66), ()), (("a/b", "c"), ("cloud:c",))],
)
def test_models_whose_members_would_have_one_name_are_said(models, others):
    specs = [EngineSpec(engine=URL, name="cloud", models=models)]
    specs += [EngineSpec(engine=URL, name=name) for name in others]
    with pytest.raises(InvalidRequestError, match="two engines would be named 'cloud:"):
        named(specs)


def test_of_several_models_each_is_an_engine():
    (spec,) = named([EngineSpec(engine=URL, name="cloud", models=("org/a", "b"), slots=3)])
    each = spec.each()
    assert [(one.name, one.models, one.slots) for one in each] == [
        ("cloud:org-a", ("org/a",), 3),
        ("cloud:b", ("b",), 3),
    ]


FILE = """
engines:
  - engine: vllm:org/model
    arguments: [--dtype, float32]
    weight: 2
  - engine: http://localhost:8000
    name: other
    models: [m]
    aliases: [small]
    tenants: [acme]
    api_key_env: OTHER_KEY
"""


def test_a_file_has_a_list_of_engines(tmp_path):
    (tmp_path / "engines.yaml").write_text(FILE)
    assert read_specs(tmp_path / "engines.yaml") == [
        EngineSpec(engine="vllm:org/model", arguments=("--dtype", "float32"), weight=2),
        EngineSpec(
            engine="http://localhost:8000",
            name="other",
            models=("m",),
            aliases=("small",),
            tenants=frozenset({"acme"}),
            api_key_env="OTHER_KEY",
        ),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (FILE + "    wieght: 2\n", "engines.1.wieght: there is no such field; there are engine,"),
        (FILE + "    weight: heavy\n", "engines.1.weight: Input should be a valid number"),
        (FILE + "    weight: 1\n    weight: 2\n", "line 13: 'weight' is there twice"),
        (FILE + "default: m\n", "default: there is no such field; there are engines"),
        ("engines: []", "engines: it is empty"),
        ("", "it has to be a list under 'engines:'"),
        ("- vllm:m", "it has to be a list under 'engines:'"),
        ("engines: http://h", "engines: it has to be a list"),
        (
            "engines: [vllm:m]",
            "engines.0: it has to be fields with their values, such as 'engine: http",
        ),
        ("engines: [}", "line 1: "),
        ("engines: !!python/object:os.system {}", "line 1: could not determine a constructor"),
        ("a: \x00", "it is no YAML"),
        (b"\xff\xfe\xfa", "codec can't decode"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_place(tmp_path, content, said):
    path = tmp_path / "engines.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidRequestError) as told:
        read_specs(path)
    assert told.value.message.startswith(f"{path}: ")
    assert said in told.value.message
    assert "\n" not in told.value.message


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InvalidRequestError, match=r"can't read .*: No such file"):
        read_specs(tmp_path / "none.yaml")
