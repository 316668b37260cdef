"""OpenAI's routes: any client of theirs works, and a header lets a request claim from a session."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from parrot_backend.api.answers.answer import answer
from parrot_backend.api.answers.choices import start
from parrot_backend.api.documentation import RUNS_CALLS, errors
from parrot_backend.api.requests.bodies import BodyRoute
from parrot_backend.api.scope import InScope, Taker
from parrot_backend.api.state import core_of
from parrot_backend.wire.errors import NotFoundError
from parrot_backend.wire.protocol import ChatRequest

router = APIRouter(prefix="/v1", tags=["openai"], route_class=BodyRoute)


@router.post("/chat/completions", response_model=None, responses=RUNS_CALLS)
async def chat_completions(
    body: ChatRequest, http: Request, take: Taker, scope: InScope
) -> Response:
    """Answer a chat request; inside a session, an equal planned call is claimed."""
    return await answer(http, await start(body, take, scope), body)


@router.get("/models", responses=errors())
async def list_models(http: Request) -> dict[str, Any]:
    """The model that is served, with its context length in tokens."""
    return {"object": "list", "data": [_card(http)]}


@router.get("/models/{model:path}", responses=errors(404))
async def get_model(model: str, http: Request) -> dict[str, Any]:
    """One model."""
    card = _card(http)
    if model != card["id"]:
        raise NotFoundError(
            f"model '{model}' is not served here: this server serves '{card['id']}'",
            param="model",
            code="model_not_found",
        )
    return card


def _card(http: Request) -> dict[str, Any]:
    model = core_of(http).endpoint.card.model
    return {
        "id": model.name,
        "object": "model",
        "created": http.app.state.started,
        "owned_by": "parrot",
        "max_model_len": model.context_length,
    }
