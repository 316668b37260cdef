"""Short ways to write tools and calls in tests."""

import json

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "its name", "maxLength": 20},
                "unit": {"enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city"],
        },
    },
}
ORDER = {
    "type": "function",
    "function": {
        "name": "order-food",
        "description": "Order food",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {
                "items": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "dish": {"enum": ["pizza", "salad"]},
                            "count": {"type": "integer", "minimum": 1, "maximum": 9},
                        },
                        "required": ["dish", "count"],
                    },
                    "minItems": 1,
                    "maxItems": 2,
                },
                "address": {"$ref": "#/$defs/Address"},
                "note": {"anyOf": [{"type": "string", "maxLength": 10}, {"type": "null"}]},
            },
            "required": ["items", "address"],
            "$defs": {
                "Address": {
                    "type": "object",
                    "properties": {
                        "street": {"type": "string", "maxLength": 20},
                        "zip": {"type": "string", "pattern": "^[0-9]{5}$"},
                    },
                    "required": ["street", "zip"],
                }
            },
        },
    },
}
NOW = {"type": "function", "function": {"name": "now"}}


def written(name: str, **arguments: object) -> str:
    """A call as a model writes it."""
    call = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{call}\n</tool_call>"


def named(name: str) -> dict[str, object]:
    """The `tool_choice` that wants this tool called."""
    return {"type": "function", "function": {"name": name}}
