"""Suites that are written for our own engine, on vLLM: what a client sees is the same."""

from tests.api.test_real_tools import *  # noqa: F403
from tests.api.test_structured import *  # noqa: F403
