"""Whatever people write, it does the same compiled: results, errors, and events."""

from collections.abc import Iterator

import pytest

from parrot_integrations.langchain import ChatParrot, compile
from tests.doubles import ScriptedEngine
from tests.integrations.langchain.corpus.chains import CORPUS
from tests.integrations.langchain.corpus.script import script
from tests.integrations.langchain.corpus.watched import MODES, Watched
from tests.servers import serving

# LangChain would have people write other chains than they do.
pytestmark = pytest.mark.filterwarnings(
    "ignore::langchain_core._api.LangChainDeprecationWarning",
    "ignore:The apply_and_parse method is deprecated",
)


@pytest.fixture(scope="module")
def engine() -> ScriptedEngine:
    return ScriptedEngine(script)


@pytest.fixture(scope="module")
def llm(engine: ScriptedEngine) -> Iterator[ChatParrot]:
    with serving(engine) as url:
        yield ChatParrot(base_url=url, temperature=0, max_retries=0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CORPUS)
def test_it_does_the_same_compiled(
    name: str, mode: str, llm: ChatParrot, engine: ScriptedEngine
) -> None:
    entry = CORPUS[name]
    engine.started.clear()
    expected = Watched(entry.build(llm), entry, mode)
    if mode == "invoke":  # a stream may end earlier, and is not tried again
        assert (len(engine.started), bool(expected.error)) == (entry.calls, entry.fails)
    found = Watched(compile(entry.build(llm)), entry, mode)
    assert found.error == expected.error
    assert found.result == expected.result
    assert found.events == expected.events


def test_there_are_enough_of_them() -> None:
    assert len(CORPUS) >= 44
