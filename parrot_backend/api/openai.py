"""OpenAI's routes: any client of theirs works, and a header lets a request claim from a session."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from parrot_backend.api.answers.answer import answer
from parrot_backend.api.answers.choices import start
from parrot_backend.api.documentation import RUNS_CALLS, errors
from parrot_backend.api.requests.bodies import BodyRoute
from parrot_backend.api.scope import InScope, Taker
from parrot_backend.api.state import core_of, tenant_of
from parrot_backend.engines.base import ModelCard
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
    """The models that the caller may use, and their aliases."""
    models = core_of(http).models(tenant_of(http))
    return ModelList(data=[_view(http, name, model) for name, model in models.items()])


@router.get("/models/{model:path}", responses=errors(404))
async def get_model(model: str, http: Request) -> ModelView:
    """One model."""
    return _view(http, model, core_of(http).served(model, tenant_of(http)))


def _view(http: Request, name: str, model: ModelCard) -> ModelView:
    return ModelView(
        id=name,
        created=http.app.state.started,
        root=model.name,
        max_model_len=model.context_length,
        generation_config=model.generation_config,
    )
