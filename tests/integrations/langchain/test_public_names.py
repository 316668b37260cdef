"""What `parrot_integrations.langchain` offers by name, and that nothing that it mentions lacks."""

import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any, get_args, get_type_hints

import pytest

from parrot_integrations import langchain

NAMES = """
    Barrier
    ChatParrot CompiledRunnable GraphView JoinTexts Objective ParrotAuthenticationError ParrotClient
    ParrotConnectionError ParrotContextOverflowError ParrotError ParrotInvalidRequestError ParrotLLM
    ParrotNotFoundError ParrotOverloadedError ParrotPermissionDeniedError ParrotQuotaError
    ParrotServerError ParrotSession ParrotTimeoutError Plan PlannedSession SessionEvent SessionView
    compile join_texts barrier
    parrot_session semantic_transform task_group transforms
"""


def test_the_names() -> None:
    assert sorted(NAMES.split()) == sorted(langchain.__all__)
    assert set(langchain.__all__) <= set(dir(langchain))


def signatures(public: Any) -> Iterator[Any]:
    """A function, or the public methods and properties of a class; none of an instance."""
    if inspect.isfunction(public):
        yield inspect.unwrap(public)
    for name, member in inspect.getmembers(public) if inspect.isclass(public) else ():
        function = member.fget if isinstance(member, property) else inspect.unwrap(member)
        ours = str(getattr(function, "__module__", "")).startswith("parrot_")
        if ours and inspect.isroutine(function) and not name.startswith("_"):
            yield getattr(function, "__func__", function)


def classes(hint: Any) -> Iterator[type]:
    if inspect.isclass(hint):
        yield hint
    for argument in get_args(hint):
        yield from classes(argument)
        for each in argument if isinstance(argument, list) else ():
            yield from classes(each)


# What these have to do with is for who looks further inside.
INNER = {"ParrotClient", "Plan"}


@pytest.mark.parametrize("name", sorted(set(langchain.__all__) - INNER))
def test_what_signatures_mention_is_public_too(name: str) -> None:
    modules = [each for each in vars(langchain).values() if isinstance(each, ModuleType)]
    public = {getattr(langchain, each) for each in langchain.__all__ if each != "Objective"}
    private_name_of_langchain = {"_ChatModelBinding": object}
    for function in signatures(getattr(langchain, name)):
        hints = get_type_hints(function, localns=private_name_of_langchain)
        for mentioned in {each for hint in hints.values() for each in classes(hint)}:
            if mentioned.__module__.startswith("parrot_"):
                of_module = any(vars(m).get(mentioned.__name__) is mentioned for m in modules)
                assert mentioned in public or of_module, f"{mentioned} in {function.__qualname__}"


def test_compile_is_the_function_and_its_module_has_another_name() -> None:
    assert inspect.isfunction(langchain.compile)
    module = importlib.import_module(langchain.compile.__module__)
    assert module.compile is langchain.compile
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("parrot_integrations.langchain.compile")
    assert inspect.isfunction(langchain.compile)
