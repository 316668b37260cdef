"""What `parrot_integrations.llama_index` offers by name."""

import pytest

from parrot_integrations import langchain, llama_index
from parrot_integrations.client import errors

NAMES = """
    Parrot ParrotAuthenticationError ParrotConnectionError ParrotContextOverflowError ParrotError
    ParrotInvalidRequestError ParrotNotFoundError ParrotOverloadedError ParrotPermissionDeniedError
    ParrotQuotaError ParrotServerError ParrotTimeoutError PlannedSession compile parrot_session
"""


def test_the_names() -> None:
    assert sorted(NAMES.split()) == sorted(llama_index.__all__)
    assert set(llama_index.__all__) <= set(dir(llama_index))


@pytest.mark.parametrize("name", [name for name in langchain.__all__ if name.endswith("Error")])
def test_errors_have_the_names_that_langchains_users_know(name: str) -> None:
    ours = getattr(llama_index, name)
    assert issubclass(getattr(langchain, name), ours)
    assert ours in vars(errors).values()
