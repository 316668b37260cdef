"""From a model's files to weights in memory, checked and, where asked, quantized."""
