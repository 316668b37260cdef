from typing import Any

from parrot_integrations.client.chat.calls import StreamedCalls, wire_call


def piece(index: int, arguments: str, **named: Any) -> dict[str, Any]:
    name = {"name": named.pop("name")} if "name" in named else {}
    return {"index": index, "function": {**name, "arguments": arguments}, **named}


def test_pieces_are_joined_to_their_calls_in_the_order_of_the_calls() -> None:
    calls = StreamedCalls()
    calls.add([piece(0, "", id="1", name="f")])
    calls.add([piece(0, '{"a": '), piece(1, "{}", id="2", name="g"), piece(0, "1}")])
    assert list(calls) == [wire_call("1", "f", '{"a": 1}'), wire_call("2", "g", "{}")]


def test_what_was_told_of_a_call_does_not_grow() -> None:
    calls = StreamedCalls()
    calls.add([piece(0, "{", id="1", name="f")])
    (told,) = calls
    calls.add([piece(0, "}")])
    assert told["function"]["arguments"] == "{"


def test_arguments_are_json_as_a_model_writes_it() -> None:
    call = wire_call("1", "f", {"city": "Zürich"})
    assert call["function"] == {"name": "f", "arguments": '{"city": "Zürich"}'}
    assert wire_call("1", "f", {})["function"]["arguments"] == "{}"
    assert wire_call("1", "f", "not json")["function"]["arguments"] == "not json"
