"""An endpoint on a `vllm serve` that is started, watched over and replaced from here."""
