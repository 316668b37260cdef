"""The backend that is used where none is named: found or started, and shared by a user's processes."""

from parrot_integrations.client.managed.backends import abase_url, aloss, backend, base_url, loss
from parrot_integrations.client.managed.starting import full_name, named_model

__all__ = ["abase_url", "aloss", "backend", "base_url", "full_name", "loss", "named_model"]
