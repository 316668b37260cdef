"""Rules for langchain-classic's chains, whose loops are plain Python: planned from their parts.

The package need not be installed: the rules are found by the names of its classes. What a chain
does with an unusual part (a memory, a parser of the user's) is a graph break.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from parrot_integrations.langchain.compiling.planner import Planner, StepContext, exact_type, rule
from parrot_integrations.langchain.compiling.rules.documents import (
    Page,
    joined_pages,
    page_text,
    pages,
)
from parrot_integrations.langchain.compiling.rules.inputs import is_dict
from parrot_integrations.planning.values import BreakError, Text, need

_CHAINS = "langchain_classic.chains"
_COMBINE = f"{_CHAINS}.combine_documents"
_LLM = f"{_CHAINS}.llm.LLMChain"
_STUFF = f"{_COMBINE}.stuff.StuffDocumentsChain"
_REDUCE = f"{_COMBINE}.reduce.ReduceDocumentsChain"

Inputs = Mapping[str, Any]


@rule(_LLM)
def llm_chain(planner: Planner, runnable: Any, value: Any, context: StepContext) -> Any:
    """Prompt, model and parser."""
    inputs = _inputs(runnable, value)
    return _outputs(runnable, inputs, _predict(planner, runnable, inputs, context), context)


@rule(_STUFF)
def stuff(planner: Planner, runnable: Any, value: Any, context: StepContext) -> Any:
    """All documents in one prompt."""
    inputs, documents = _documents(runnable, value)
    text = _stuffed(planner, runnable, documents, _others(runnable, inputs), context)
    return _outputs(runnable, inputs, text, context)


@rule(f"{_COMBINE}.map_reduce.MapReduceDocumentsChain")
def map_reduce(planner: Planner, runnable: Any, value: Any, context: StepContext) -> Any:
    """A call per document, and one over their answers, where these fit into it."""
    inputs, documents = _documents(runnable, value)
    others = _others(runnable, inputs)
    name = runnable.document_variable_name
    _expect(runnable.llm_chain, _LLM)
    reduce = runnable.reduce_documents_chain
    _expect(reduce, _REDUCE)
    texts = [
        _predict(planner, runnable.llm_chain, {name: page.text, **others}, context.element(index))
        for index, page in enumerate(documents)
    ]
    answers = [Page(need(text), page.metadata) for text, page in zip(texts, documents, strict=True)]
    text = _stuffed(planner, reduce.combine_documents_chain, answers, others, context)
    return _outputs(runnable, inputs, text, context, texts)


@rule(f"{_COMBINE}.refine.RefineDocumentsChain")
def refine(planner: Planner, runnable: Any, value: Any, context: StepContext) -> Any:
    """A call for the first document, and for each further one a call over it and the answer before."""
    inputs, documents = _documents(runnable, value)
    others = _others(runnable, inputs)
    _expect(runnable.initial_llm_chain, _LLM)
    _expect(runnable.refine_llm_chain, _LLM)
    chain, steps = runnable.initial_llm_chain, list[Any]()
    earlier: dict[str, Any] = {}
    for index, page in enumerate(documents):
        text = page_text(planner.plan, page, runnable.document_prompt)
        fields = {runnable.document_variable_name: text, **earlier, **others}
        steps.append(_predict(planner, chain, fields, context.element(index)))
        chain, earlier = runnable.refine_llm_chain, {runnable.initial_response_name: steps[-1]}
    return _outputs(runnable, inputs, steps[-1], context, steps)


def _predict(planner: Planner, chain: Any, inputs: Inputs, context: StepContext) -> Any:
    """The parsed answer of an `LLMChain`, as its `predict` gives it."""
    if chain.memory is not None:
        raise BreakError("has a memory, which planning does not read")
    missing = [name for name in chain.prompt.input_variables if name not in inputs]
    if missing:
        raise BreakError(f"misses the input {', '.join(missing)}")
    chosen = {name: inputs[name] for name in chain.prompt.input_variables}
    kwargs = {"stop": inputs.get("stop"), **chain.llm_kwargs}
    prompt = planner.step(chain.prompt, chosen, context.at("prompt"))
    answer = planner.step(chain.llm, prompt, context.at("llm", kwargs=kwargs))
    return planner.step(chain.output_parser, answer, context.at("output_parser"))


def _stuffed(
    planner: Planner, chain: Any, documents: Sequence[Page], others: Inputs, context: StepContext
) -> Any:
    _expect(chain, _STUFF)
    _expect(chain.llm_chain, _LLM)
    text: Text = joined_pages(
        planner.plan, documents, chain.document_prompt, chain.document_separator
    )
    inputs = {**others, chain.document_variable_name: text}
    return _predict(planner, chain.llm_chain, inputs, context.at("stuff"))


def _inputs(chain: Any, value: Any) -> dict[str, Any]:
    """The chain's inputs, as `Chain.prep_inputs` makes them."""
    if chain.memory is not None:
        raise BreakError("has a memory, which planning does not read")
    if is_dict(value):
        return dict(value)
    if isinstance(value, dict) or len(chain.input_keys) != 1:
        raise BreakError("gets something that is not a dict")
    return {chain.input_keys[0]: value}


def _documents(chain: Any, value: Any) -> tuple[dict[str, Any], list[Page]]:
    inputs = _inputs(chain, value)
    documents = pages(inputs.get(chain.input_key))
    if not documents:
        raise BreakError("gets no documents")
    return inputs, documents


def _others(chain: Any, inputs: Inputs) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if name != chain.input_key}


def _outputs(
    chain: Any, inputs: Inputs, text: Any, context: StepContext, steps: Sequence[Any] = ()
) -> dict[str, Any]:
    """The chain's outputs, as `Chain.prep_outputs` makes them."""
    outputs = {chain.output_key: text}
    if getattr(chain, "return_intermediate_steps", False):
        outputs["intermediate_steps"] = list(steps)
    return outputs if context.kwargs.get("return_only_outputs") else {**inputs, **outputs}


def _expect(chain: Any, name: str) -> None:
    kind = exact_type(chain)
    if f"{kind.__module__}.{kind.__qualname__}" != name:
        raise BreakError(f"has a {kind.__name__} inside")
