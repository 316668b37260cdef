"""Endpoints: what runs chats. From requests as clients send them to the tokens of an engine."""
