"""Who waits for a backend is told why: by a bar on terminals and in notebooks, else in the log."""

import logging
import os
import sys
import time
import warnings
from dataclasses import replace
from typing import Any

from parrot_backend.resident.records import Record

logger = logging.getLogger("parrot_integrations.client.managed")

_BAR_SECONDS = 1.0
_DRAW_SECONDS = 0.2
_LOG_SECONDS = 2.0
_LOG_AGAIN_SECONDS = 30.0
_KNOWN = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]"
_UNKNOWN = "{desc} [{elapsed}]"


class Telling:
    """The story of one wait, told from when it takes a second; to be closed at its end."""

    def __init__(self) -> None:
        now = time.monotonic()
        self._next_line, self._next_draw = now + _LOG_SECONDS, now + _BAR_SECONDS
        self._bar: Any = None
        self._has_bar = _is_terminal() or _is_notebook()

    def tell(self, record: Record, stage: str | None = None) -> None:
        """What the backend says of itself now; another stage, where we know better."""
        now = time.monotonic()
        if stage is not None or record.ready:
            # One that was ready and can't be reached is on its way out.
            record = replace(record, stage=stage or "ending", total=0)
        if not self._has_bar:
            if now >= self._next_line:
                self._next_line = now + _LOG_AGAIN_SECONDS
                _log(record)
        elif now >= self._next_draw:
            self._next_draw = now + _DRAW_SECONDS
            self._draw(record)

    def close(self) -> None:
        """It is up, or never will be: the bar goes."""
        if self._bar is not None:
            self._bar.close()

    def _draw(self, record: Record) -> None:
        text = f"Parrot: {record.name}, {record.stage}"
        form = _KNOWN if record.total else _UNKNOWN
        if self._bar is None:
            self._bar = _new_bar(desc=text, total=record.total, bar_format=form)
        bar = self._bar
        if bar.desc.removesuffix(": ") != text:
            bar.set_description_str(text, refresh=False)
            bar.bar_format = form
            bar.reset(total=record.total or None)
        bar.n = record.done
        bar.refresh()


def _log(record: Record) -> None:
    """A warning, for it is meant to be seen where nobody has set up any logging."""
    far = f" ({100 * record.done // record.total} %)" if record.total else ""
    told = record.name, record.stage, far, record.log
    logger.warning("waiting for the backend with %s: %s%s; its log: %s", *told)


def _is_terminal() -> bool:
    """Whether errors go to one on which a bar is drawn: tqdm draws none where there is no width."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (AttributeError, ValueError, OSError):  # it is none, is closed, or there are no errors
        return False


def _is_notebook() -> bool:
    shell = sys.modules.get("IPython")
    running = shell and shell.get_ipython()
    return bool(running and "IPKernelApp" in running.config)


def _new_bar(**arguments: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a notebook without widgets has a bar of text
        from tqdm.auto import tqdm

    return tqdm(unit_scale=True, leave=False, **arguments)
