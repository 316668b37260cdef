"""What vLLM writes, read line by line: into our log, and for what it said last of its end."""

import logging
import re
from collections import deque

logger = logging.getLogger(__name__)

_KEPT = 400

# As in "(EngineCore pid=7) ERROR 11-27 18:10:28 [core.py:1] ValueError: no".
_LINE = re.compile(
    r"(?:\(\w+[^)]*\)\s*)?"
    r"(?:(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL)\s+\d\d-\d\d \d\d:\d\d:\d\d \[[^]]*\]\s*)?"
    r"(?P<said>.*)"
)
_ERROR = re.compile(r"\s*(?:[\w.]+\.)?\w*(?:Error|Exception|Interrupt): .+|.*\berror: .+")
# It tells that there was an error, and not which.
_SECOND_HAND = re.compile(r"Engine core initialization failed|EngineDeadError|SystemExit")


class LogLines:
    """Takes the lines of one process.

    What it tells of its normal life is for who looks closely: `DEBUG` in our log. Warnings and errors
    are what they are there, but for those of its start, of which who starts it is told in the end.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._lowest = logging.CRITICAL
        self._kept: deque[str] = deque(maxlen=_KEPT)

    def take(self, line: str) -> None:
        """One line, without its end."""
        match = _LINE.fullmatch(line)
        if match is None or not (said := match["said"].rstrip()):
            return
        self._kept.append(said)
        level = logging.getLevelNamesMapping().get(match["level"] or "DEBUG", logging.DEBUG)
        logger.log(level if level >= self._lowest else logging.DEBUG, "%s: %s", self._prefix, said)

    def tell(self) -> None:
        """From now on warnings and errors are told as such: it has started."""
        self._lowest = logging.WARNING

    @property
    def last(self) -> str:
        """What it said last."""
        return self._kept[-1] if self._kept else ""

    @property
    def last_error(self) -> str:
        """The last line that tells an error of its own; else what it said last."""
        errors = [said for said in list(self._kept) if _ERROR.fullmatch(said)]
        causes = [said for said in errors if not _SECOND_HAND.search(said)]
        return (causes or errors or [self.last])[-1].strip()
