"""How a model of the hub's comes to this disk: into the hub's own cache, and no more than is needed.

What is whole there is used without asking the hub, until it is pulled again. A hub that can't be
reached is told within seconds.
"""

import fnmatch
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from parrot_backend.engines import stages
from parrot_backend.engines.store.folders import FULL, StoreUnusableError, bytes_in, lacking
from parrot_backend.engines.store.hub import HubName, cached, place_of
from parrot_backend.engines.store.quants import choose, models_among, parts_of
from parrot_backend.engines.store.wheel import ModelDownloadError
from parrot_backend.wire.errors import InvalidRequestError, NotFoundError, ParrotError

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 3.0
_LOOK_SECONDS = 0.2

# All but weights, which are many files in forms that nobody loads: of these the first form is fetched.
_SMALL = ("*.json", "*.jinja", "*.model", "*.txt")
_WEIGHTS = ("model*.safetensors", "*.safetensors", "pytorch_model*.bin")

_T = TypeVar("_T")


def fetched(name: HubName) -> Path:
    """A folder or GGUF file in the hub's cache, fetched unless it is there.

    Raises:
        NotFoundError: the hub has no such model, or the repository no such GGUF file.
        InvalidRequestError: the repository holds no model that is whole.
        ModelDownloadError: the hub can't be reached, or the download failed.
        StoreUnusableError: there is no room for it.
    """
    return cached(name) or pulled(name)


def pulled(name: HubName) -> Path:
    """The same as `fetched`, but as the hub has it now."""
    files = _files_of(name.repository)
    gguf, wanted = _wanted(name, files)
    size = sum(files[file] for file in wanted)
    logger.info("fetching %s (%d MB, once)", name, size // 10**6)
    folder = _downloaded(name.repository, wanted, size)
    return folder / gguf if gguf else folder


def _files_of(repository: str) -> dict[str, int]:
    """The files of a repository with their sizes, as the hub tells them at once or not at all."""
    from huggingface_hub import HfApi, constants

    named = os.environ.get("HF_HUB_ETAG_TIMEOUT")
    seconds = float(constants.HF_HUB_ETAG_TIMEOUT) if named else ANSWER_SECONDS
    try:
        told = _within(
            seconds,
            lambda: HfApi().model_info(repository, files_metadata=True, timeout=seconds),
        )
    except TimeoutError:
        raise _unreachable(repository, f"no answer within {seconds:.0f} s") from None
    except Exception as error:
        raise _problem(repository, error) from error
    return {file.rfilename: file.size or 0 for file in told.siblings or ()}


def _within(seconds: float, ask: Callable[[], _T]) -> _T:
    """What `ask` gives. A client's own timeout is for each address of a host, and for no look-up.

    Raises:
        TimeoutError: it takes longer.
    """
    answer: Future[_T] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True, name="asking the hub").start()
    return answer.result(timeout=seconds)


def _wanted(name: HubName, files: Mapping[str, int]) -> tuple[str | None, list[str]]:
    """The GGUF file that is meant, if it is one, and all that has to be fetched, weights last."""
    outside = [file for file in files if "/" not in file]
    forms = (fnmatch.filter(outside, form) for form in _WEIGHTS)
    weights = next(filter(None, forms), [])
    where = f"'{name.repository}' on the hub"
    if name.quant is None and weights and "config.json" in outside:
        if missing := lacking(outside):
            raise InvalidRequestError(
                f"{where} is no whole model, it lacks {', '.join(missing)}: choose another",
                code="not_a_model",
            )
        small = {file for form in _SMALL for file in fnmatch.filter(outside, form)}
        return None, [*sorted(small), *weights]
    if not models_among(list(files)):
        raise InvalidRequestError(
            f"{where} holds no model that can be run: neither a config.json with weights nor GGUF "
            "files",
            code="not_a_model",
        )
    file = choose(list(files), name.quant, where)
    if (parts := parts_of(file)) > 1:
        raise InvalidRequestError(
            f"{file} of {where} is one of {parts} parts: join them with llama.cpp's gguf-split --merge "
            "and name that file, or choose another quantization",
            code="not_a_model",
        )
    return file, [file]


def _downloaded(repository: str, files: Sequence[str], size: int) -> Path:
    """The folder that has these files in it; a folder with weights has the rest too."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    is_small = [any(fnmatch.fnmatch(file, form) for form in _SMALL) for file in files]
    small = [file for file, yes in zip(files, is_small, strict=True) if yes]
    try:
        with _told(place_of(repository) / "blobs", size):
            if small:
                snapshot_download(repository, allow_patterns=small)
            return Path(snapshot_download(repository, allow_patterns=list(files))).resolve()
    except Exception as error:
        raise _problem(repository, error) from error


@contextmanager
def _told(folder: Path, size: int) -> Iterator[None]:
    """While the block runs, how much has come to a folder is told as the stage of a start."""
    stages.begin("downloading", size)
    before, over = bytes_in(folder), threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_SECONDS):
            stages.advance(min(size, bytes_in(folder) - before))

    looking = threading.Thread(target=look, daemon=True, name="looking at a download")
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()


def _unreachable(repository: str, reason: str) -> ModelDownloadError:
    from huggingface_hub import constants

    return ModelDownloadError(
        f"can't fetch '{repository}': the hub at {constants.ENDPOINT} can't be reached ({reason}). "
        "Check the network, HF_ENDPOINT and proxies (HF_HUB_ETAG_TIMEOUT=30 waits longer), or name "
        "a model that is on this disk: parrot models list"
    )


def _problem(repository: str, error: Exception) -> ParrotError:
    """What went wrong, and what to do."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    log_in = "log in with `hf auth login`, or set HF_TOKEN"
    if isinstance(error, OSError) and (error.errno in FULL or error.filename):
        return StoreUnusableError(
            f"'{repository}' can't be kept at {constants.HF_HUB_CACHE} ({error.strerror}): make room "
            "there, or name another folder in HF_HUB_CACHE"
        )
    if isinstance(error, GatedRepoError):
        page = f"{constants.ENDPOINT}/{repository}"
        return InvalidRequestError(
            f"'{repository}' is gated: ask for access at {page} and {log_in}"
        )
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        return NotFoundError(
            f"the hub has no model '{repository}': check its name; if it is private, {log_in}",
            code="model_not_found",
        )
    if isinstance(error, OfflineModeIsEnabled):
        return ModelDownloadError(
            f"'{repository}' is not whole on this disk, and HF_HUB_OFFLINE keeps from asking the hub"
        )
    if isinstance(error, HfHubHTTPError):
        return ModelDownloadError(f"can't fetch '{repository}': the hub says: {line}")
    return _unreachable(repository, line)
