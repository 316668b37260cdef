"""What a generation may ask for of the model and the memory that are there."""

from parrot_backend.engines.base import GenerationRequest, Sampling
from parrot_backend.engines.torch_engine.errors import KVMemoryError
from parrot_backend.wire.errors import ContextLengthError, InvalidRequestError


def check_request(
    request: GenerationRequest,
    *,
    model: str,
    context_length: int,
    vocabulary: int,
    capacity: int,
) -> None:
    """Refuse what can never succeed.

    Args:
        request: what is asked for.
        model: its name.
        context_length: tokens that it reads, prompt and answer together.
        vocabulary: its tokens are 0 up to, without, this.
        capacity: tokens that the KV memory has room for.

    Raises:
        InvalidRequestError: the prompt is empty or a parameter is out of its range.
        ContextLengthError: the prompt leaves no room for one token.
        KVMemoryError: the prompt alone is longer than the KV memory, or its tenant's share of it.
    """
    prompt = request.prompt
    if not prompt:
        raise InvalidRequestError("the prompt is empty", param="prompt")
    if min(prompt) < 0 or max(prompt) >= vocabulary:
        raise InvalidRequestError(f"token ids must be from 0 to {vocabulary - 1}", param="prompt")
    if request.draft and not 0 <= min(request.draft) <= max(request.draft) < vocabulary:
        raise InvalidRequestError(f"token ids must be from 0 to {vocabulary - 1}", param="draft")
    if len(prompt) >= context_length:
        raise ContextLengthError(
            f"the prompt has {len(prompt)} tokens; {model!r} has a context of "
            f"{context_length}, answer included: shorten the prompt"
        )
    if len(prompt) > (room := int(capacity * request.kv_share)):
        raise KVMemoryError(
            f"the prompt has {len(prompt)} tokens and the engine has KV memory for {room} of a "
            "tenant's: shorten the prompt, or give the engine more (--kv-memory)"
        )
    _check_sampling(request.sampling, vocabulary)


def _check_sampling(sampling: Sampling, vocabulary: int) -> None:
    if sampling.max_tokens is not None and sampling.max_tokens < 1:
        raise InvalidRequestError(
            f"max_tokens is {sampling.max_tokens}: ask for at least 1", param="max_tokens"
        )
    unknown = [token for token in sampling.logit_bias if not 0 <= token < vocabulary]
    if unknown:
        raise InvalidRequestError(
            f"logit_bias names token {unknown[0]}; this model's token ids are from 0 to "
            f"{vocabulary - 1}",
            param="logit_bias",
        )
    if "" in sampling.stop:
        raise InvalidRequestError("a stop string is empty", param="stop")
