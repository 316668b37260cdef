"""What the doctor says of a real `parrot serve` is true."""

import json

import pytest

from parrot_backend.cli import main
from parrot_backend.doctor.engine import examination
from parrot_backend.endpoints.cards import MeasuredCard
from tests.test_cli import PARROT, end_of, ready_url, running

SERVE = ["serve", "--port", "0", "--kv-memory", "512MiB", "--model"]


@pytest.mark.model
def test_what_is_said_of_our_own_engine_is_true(model_path, capsys, tmp_path, monkeypatch):
    """All but its slots, which are as many as are asked for. A busy machine has the time it takes."""
    checks = {name: (check, 120) for name, (check, _) in examination.CHECKS.items()}
    del checks["slots"]
    monkeypatch.setattr(examination, "CHECKS", checks)
    monkeypatch.setattr(examination, "_REST_SECONDS", 0.0)
    with running(*PARROT, *SERVE, model_path) as server:
        url = ready_url(server)
        monkeypatch.setenv("PARROT_CACHE_DIR", str(tmp_path))
        assert main(["doctor", url, "--quick", "--json"]) == 0
        assert end_of(server) == 0
    told = json.loads(capsys.readouterr().out)
    (closing,) = [each for each in told["findings"] if each["check"] == "closed connections"]
    assert closing["level"] == "ok"
    card = MeasuredCard.model_validate(told["card"])
    assert card.priority_order == "refused"  # HTTP has none: programs tell what matters
    assert card.salt_isolates is False  # tenants are told by their keys
    assert card.tells_cached_tokens
    assert (card.takes_token_ids, card.tells_token_ids) == (True, False)
    assert card.obeys == {"json_schema", "regex", "lark"}
    assert card.tells_logprobs
    assert card.batching_changes_tokens is False
    assert card.sharing == "batch"
    assert card.context_length
    assert len(list((tmp_path / "cards").iterdir())) == 1
