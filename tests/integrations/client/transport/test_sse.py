import json

import pytest

from parrot_integrations.client.errors import (
    BackendConnectionError,
    ContextLengthError,
    OverloadedError,
    QuotaError,
    ServerError,
)
from parrot_integrations.client.transport.sse import EventDecoder

BODY = 'data: {"n": 1}\n\n: a comment\n\ndata: {"text": "a\u2028b\u0085c"}\r\n\r\ndata: [DONE]\n\n'
EVENTS = [{"n": 1}, {"text": "a\u2028b\u0085c"}]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_events_come_out_however_the_bytes_are_cut(size):
    decoder, body = EventDecoder(), BODY.encode()
    events = []
    for start in range(0, len(body), size):
        events += decoder.feed(body[start : start + size])
    decoder.finish()
    assert events == EVENTS


def test_a_stream_without_its_end_is_an_error():
    decoder = EventDecoder()
    assert list(decoder.feed(b'data: {"n": 1}\n\ndata: [DO')) == [{"n": 1}]
    with pytest.raises(BackendConnectionError, match="before the answer was complete"):
        decoder.finish()


@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        ({"type": "invalid_request_error", "code": "context_length_exceeded"}, ContextLengthError),
        ({"type": "rate_limit_error", "code": "quota_exceeded"}, QuotaError),
        ({"type": "server_error", "code": "overloaded"}, OverloadedError),
        ({"type": "server_error", "code": "engine_failed"}, ServerError),
        ({"type": "server_error", "code": "not_repeatable"}, ServerError),
    ],
)
def test_an_error_event_is_raised_as_what_it_is(detail, expected):
    event = json.dumps({"error": {"message": "no", **detail}})
    with pytest.raises(expected, match="no") as raised:
        list(EventDecoder().feed(f"data: {event}\n\n".encode()))
    assert type(raised.value) is expected
    assert raised.value.code == detail.get("code")


@pytest.mark.parametrize("data", [b"data: {not json\n\n", b"data: 7\n\n"])
def test_an_event_that_is_no_object_is_an_error(data):
    with pytest.raises(ServerError):
        list(EventDecoder().feed(data))
