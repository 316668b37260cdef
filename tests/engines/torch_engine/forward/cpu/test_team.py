"""Pieces of work go to whoever is there, each once, whatever becomes of the other threads."""

import subprocess
import sys
import threading

import numpy as np
import pytest
from numba import njit

from parrot_backend.engines.torch_engine.forward.cpu import team
from parrot_backend.engines.torch_engine.forward.cpu.phases import Work, pieces
from parrot_backend.engines.torch_engine.forward.cpu.team import together

PHASES, PIECES, GROUP = 200, 1000, 300


@njit(nogil=True)
def _count(counts: np.ndarray, mixed: np.ndarray, work: Work) -> None:
    """How often each piece was computed, and how much of the phase before was not to be seen."""
    for phase in range(PHASES):
        for first, stop in pieces(work, phase, PIECES, GROUP, 16):
            if first // GROUP != (stop - 1) // GROUP:
                mixed[phase] += 1
            for piece in range(first, stop):
                counts[phase, piece] += 1
                if phase and counts[phase - 1, PIECES - 1 - piece] != 1:
                    mixed[phase] += 1


def computed() -> np.ndarray:
    counts, mixed = np.zeros((PHASES, PIECES), np.int64), np.zeros(PHASES, np.int64)
    together(_count, PHASES, counts, mixed)
    assert not mixed.any()
    return counts


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_each_piece_is_computed_once_and_behind_all_of_the_phase_before(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    for _ in range(5):
        assert (computed() == 1).all()


def test_threads_that_never_come_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    over = threading.Event()
    pool = team._pool()
    held = [pool.submit(over.wait) for _ in range(pool._max_workers)]
    try:
        assert (computed() == 1).all()
    finally:
        over.set()
        for future in held:
            future.result()


AT_THE_END = """
import atexit
import numpy as np
from numba import njit
from parrot_backend.engines.torch_engine.forward.cpu.phases import pieces
from parrot_backend.engines.torch_engine.forward.cpu.team import together

@njit(nogil=True)
def fill(out, work):
    for first, stop in pieces(work, 0, out.size, out.size, 4):
        out[first:stop] = 1

def compute():
    out = np.zeros(100)
    together(fill, 1, out)
    print(int(out.sum()))

compute()
atexit.register(compute)
"""


def test_a_step_at_the_interpreters_end_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    command = [sys.executable, "-c", AT_THE_END]
    said = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    assert said.stdout == "100\n100\n"
