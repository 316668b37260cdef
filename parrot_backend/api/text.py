"""Raw text, without a chat template: OpenAI's completions, and the tokenizer."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from parrot_backend.api.answers.answer import answer
from parrot_backend.api.answers.choices import start
from parrot_backend.api.answers.text_completion import TextShape
from parrot_backend.api.documentation import RUNS_CALLS, errors
from parrot_backend.api.requests.bodies import BodyRoute
from parrot_backend.api.scope import InScope, Taker
from parrot_backend.api.state import core_of
from parrot_backend.wire.text_protocol import CompletionRequest, TokenizeAnswer, TokenizeRequest

router = APIRouter(prefix="/v1", tags=["text"], route_class=BodyRoute)


@router.post("/completions", response_model=None, responses=RUNS_CALLS)
async def completions(
    body: CompletionRequest, http: Request, take: Taker, scope: InScope
) -> Response:
    """Go on from raw prompts, one or many; those of one request run together."""
    calls = await start(body, take, scope)
    return await answer(http, calls, body, TextShape(body.n or 1))


@router.post("/tokenize", responses=errors(404, 429, body=True))
async def tokenize(body: TokenizeRequest, http: Request) -> TokenizeAnswer:
    """The token ids of a text, or of messages in the model's chat template (as vLLM's route)."""
    core = core_of(http)
    core.check_model(body.model)
    tokens = await core.endpoint.tokenize(body.request())
    context = core.endpoint.card.model.context_length
    return TokenizeAnswer(tokens=tokens, count=len(tokens), max_model_len=context)
