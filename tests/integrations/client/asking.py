"""The plainest request."""

from typing import Any


def body(content: str, **parameters: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], **parameters}
