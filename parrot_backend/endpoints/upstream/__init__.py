"""Endpoints over HTTP: any server that speaks OpenAI's API, recognized and used in its own dialect."""
