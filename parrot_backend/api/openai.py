"""OpenAI's routes: any client of theirs works, and a header lets a request claim from a session."""

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
from parrot_backend.wire.views import ModelList, ModelView

router = APIRouter(prefix="/v1", tags=["openai"], route_class=BodyRoute)


@router.post("/chat/completions", response_model=None, responses=RUNS_CALLS)
async def chat_completions(
    body: ChatRequest, http: Request, take: Taker, scope: InScope
) -> Response:
    """Answer a chat request; inside a session, an equal planned call is claimed."""
    return await answer(http, await start(body, take, scope), body)


@router.get("/models", responses=errors())
async def list_models(http: Request) -> ModelList:
    """The model that is served."""
    return ModelList(data=[_view(http)])


@router.get("/models/{model:path}", responses=errors(404))
async def get_model(model: str, http: Request) -> ModelView:
    """One model."""
    view = _view(http)
    if model != view.id:
        raise NotFoundError(
            f"model '{model}' is not served here: this server serves '{view.id}'",
            param="model",
            code="model_not_found",
        )
    return view


def _view(http: Request) -> ModelView:
    model = core_of(http).endpoint.card.model
    return ModelView(
        id=model.name,
        created=http.app.state.started,
        max_model_len=model.context_length,
        generation_config=model.generation_config,
    )
