"""The backend's client, sync and async, and how one is started where none is named."""

from parrot_integrations.client.http import ParrotClient, active_sessions, asked_clients
from parrot_integrations.client.shared import shared_client

__all__ = ["ParrotClient", "active_sessions", "asked_clients", "shared_client"]
