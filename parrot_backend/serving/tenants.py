"""Tenants: who the callers are, and how much each may have."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tenant:
    """One caller, by its API key; the one without a name is everybody where there are no keys.

    Each quota is None where there is none: `sessions` open at once, `calls` that have not ended,
    `tokens_per_minute` of prompts and answers, and the share of the KV memory, above 0 and up to 1.
    An `operator` may ask for what concerns all tenants.
    """

    name: str = ""
    operator: bool = True
    sessions: int | None = None
    calls: int | None = None
    tokens_per_minute: int | None = None
    kv_share: float | None = None


EVERYBODY = Tenant()
NOBODY = Tenant(operator=False)
"""Who has no key where there are keys, and asks what needs none."""
