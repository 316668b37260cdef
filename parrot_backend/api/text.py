"""Raw text, without a chat template: OpenAI's completions, and the tokenizer."""

import asyncio
from itertools import islice

from fastapi import APIRouter, Request
from fastapi.responses import Response

from parrot_backend.api.answers.answer import answer
from parrot_backend.api.answers.choices import start
from parrot_backend.api.answers.text_completion import TextShape
from parrot_backend.api.documentation import RUNS_CALLS, errors
from parrot_backend.api.requests.bodies import BodyRoute
from parrot_backend.api.scope import InScope, Taker
from parrot_backend.api.state import core_of, tenant_of
from parrot_backend.wire.text_protocol import CompletionRequest, TokenizeAnswer, TokenizeRequest

router = APIRouter(prefix="/v1", tags=["text"], route_class=BodyRoute)

_AT_ONCE = 64


@router.post("/completions", response_model=None, responses=RUNS_CALLS)
async def completions(
    body: CompletionRequest, http: Request, take: Taker, scope: InScope
) -> Response:
    """Go on from raw prompts, one or many; those of one request run together."""
    calls = await start(body, take, scope)
    return await answer(http, calls, body, TextShape(body.n or 1))


@router.post("/tokenize", response_model=TokenizeAnswer, responses=errors(404, 429, body=True))
async def tokenize(body: TokenizeRequest, http: Request) -> Response:
    """The token ids of a text, of messages in the model's chat template (as vLLM's route), or of
    several texts."""
    core, tenant = core_of(http), tenant_of(http)
    model = core.served(body.model, tenant)
    each: list[list[int]] = []
    requests = body.requests()
    # In slices, between which others have their turns.
    while some := list(islice(requests, _AT_ONCE)):
        each += await asyncio.gather(*(core.tokenize(r, model.name, tenant) for r in some))
    tokens = each if isinstance(body.prompt, list) else each[0]
    told = TokenizeAnswer(
        tokens=tokens, count=sum(map(len, each)), max_model_len=model.context_length
    )
    return Response(told.model_dump_json(), media_type="application/json")
