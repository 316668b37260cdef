"""Keys files: what they may say, and that what is wrong in one is named."""

import hashlib
import hmac
import json
from pathlib import Path

import pytest

from parrot_backend.api.access.keys import Keys, read_keys
from parrot_backend.serving.tenants import EVERYBODY, Tenant
from parrot_backend.wire.errors import InvalidRequestError

SHA = hashlib.sha256(b"anns key").hexdigest()
TOML = f"""
[[keys]]
name = "ann"
sha256 = "{SHA}"
sessions = 3
calls = 20
tokens_per_minute = 1000
kv_share = 0.25

[[keys]]
name = "ops"
key = "the operator's"
operator = true
"""


def written(folder: Path, content: str, mode: int = 0o600) -> Path:
    path = folder / "keys"
    path.write_text(content)
    path.chmod(mode)
    return path


def test_a_file_names_tenants_with_their_quotas(tmp_path: Path) -> None:
    keys = read_keys(written(tmp_path, TOML))
    ann = Tenant("ann", False, 3, 20, 1000, 0.25)
    assert [keys.tenant(key) for key in ("anns key", "the operator's", "other", "")] == [
        ann,
        Tenant("ops", operator=True),
        None,
        None,
    ]


def test_json_says_the_same(tmp_path: Path) -> None:
    content = json.dumps({"keys": [{"name": "a", "key": "1"}, {"name": "a", "key": "2"}]})
    keys = read_keys(written(tmp_path, content))
    assert keys.tenant("1") == keys.tenant("2") == Tenant("a", operator=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "keys: Field required"),
        ("[[keys]]\nname = \n", "line 2"),
        ('{"keys": [}', "line 1"),
        ('[[keys]]\nname = "a"', "keys.0: give either key or sha256"),
        (f'[[keys]]\nname = "a"\nkey = "1"\nsha256 = "{SHA}"', "keys.0: give either"),
        ('[[keys]]\nname = "a"\nsha256 = "12"', "keys.0.sha256: String should match"),
        ('[[keys]]\nname = "a b"\nkey = "1"', "keys.0.name: String should match"),
        ('[[keys]]\nname = "a"\nkey = "1"\nquota = 1', "keys.0.quota: Extra inputs"),
        ('[[keys]]\nname = "a"\nkey = "1"\nsessions = 0', "keys.0.sessions: Input should be"),
        ('[[keys]]\nname = "a"\nkey = "1"\nkv_share = 1.5', "keys.0.kv_share: Input should be"),
        ('[[keys]]\nname = "a"\nkey = "1"\n[[keys]]\nname = "b"\nkey = "1"', "that of keys.0"),
        (
            '[[keys]]\nname = "a"\nkey = "1"\n[[keys]]\nname = "a"\nkey = "2"\ncalls = 1',
            "tenant 'a' has other quotas",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(InvalidRequestError) as caught:
        read_keys(path)
    assert caught.value.message.startswith(str(path))
    assert message in caught.value.message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"can.t read .*none: No such file"):
        read_keys(tmp_path / "none")


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, True), (0o604, True)])
def test_who_else_may_read_it_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    read_keys(written(tmp_path, TOML, mode))
    assert ("can be read by other users" in caplog.text) is warned


def test_every_key_is_compared_whichever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, compared = read_keys(written(tmp_path, TOML)), []
    real = hmac.compare_digest

    def noted(one: bytes, other: bytes) -> bool:
        compared.append(len(one))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    for key in ("anns key", "the operator's", "other", "x" * 1000):
        keys.tenant(key)
    assert compared == [32] * 8


def test_one_key_is_everybody_s() -> None:
    assert Keys.single("secret").tenant("secret") is EVERYBODY
    assert Keys.single("secret").tenant("Secret") is None
