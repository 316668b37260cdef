"""From logits to text: sampling, grammars, probabilities, and when text may be told."""
