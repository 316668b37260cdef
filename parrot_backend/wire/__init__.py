"""Wire types: what clients send and are answered, and typed errors; pydantic only."""
