"""LangChain's own tests of a chat model, on the real backend.

What they skip is images, audio and PDF, which the models do not read, and a benchmark that replays
recorded HTTP.
"""

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from syrupy.assertion import SnapshotAssertion

from parrot_integrations.langchain import ChatParrot

MODEL = "smollm2-135m-instruct"


class TestUnit(ChatModelUnitTests):
    pytestmark = pytest.mark.filterwarnings(
        # The standard test itself calls the deprecated `.dict()`, and `load` is in beta.
        "ignore::langchain_core._api.LangChainDeprecationWarning",
        "ignore::langchain_core._api.LangChainBetaWarning",
    )

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatParrot

    @property
    def chat_model_params(self) -> dict:
        return {"model": MODEL, "base_url": "http://127.0.0.1:8642"}

    @property
    def init_from_env_params(self) -> tuple[dict, dict, dict]:
        return (
            {"PARROT_BASE_URL": "http://127.0.0.1:8642", "PARROT_API_KEY": "key"},
            {"model": MODEL},
            {"base_url": "http://127.0.0.1:8642", "api_key": "key"},
        )

    @pytest.mark.xfail(
        raises=ValueError,
        reason="LangChain's load() admits, as allowed_objects='all', only classes of its own list; "
        "test_serialization does the round trip with ChatParrot named",
    )
    def test_serdes(self, model: BaseChatModel, snapshot: SnapshotAssertion) -> None:
        super().test_serdes(model, snapshot)


def settings(test: str) -> dict:
    """Of the model in a test, which is a small one and needs help with three things."""
    if "structured_output" in test or test == "test_json_mode":
        # It says the same over and over where a text may be long, until it is cut off.
        return {"max_tokens": 72, "frequency_penalty": 1.2}
    # Where it must call a tool it calls it many times, and where it need not it never does.
    forced = {"tool_choice": "required"} if test == "test_agent_loop" else {}
    return {"max_tokens": 64, "model_kwargs": {"parallel_tool_calls": False, **forced}}


@pytest.mark.model
class TestIntegration(ChatModelIntegrationTests):
    pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")

    @pytest.fixture(autouse=True)
    def backend(self, base_url: str, request: pytest.FixtureRequest) -> None:
        type(self).settings = {"base_url": base_url, **settings(request.node.originalname)}

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatParrot

    @property
    def chat_model_params(self) -> dict:
        return {"model": MODEL, "temperature": 0, **self.settings}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return MODEL

    @property
    def supported_usage_metadata_details(self) -> dict:
        return {"invoke": ["cache_read_input"], "stream": ["cache_read_input"]}

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        llm = ChatParrot(**self.chat_model_params)
        prompt = "A prompt that comes twice is computed once. " * 8
        llm.invoke(prompt)
        again = sum(llm.stream(prompt), AIMessageChunk("")) if stream else llm.invoke(prompt)
        assert again.usage_metadata["input_token_details"]["cache_read"] > 32
        return again
