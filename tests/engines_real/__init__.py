"""The engines that people have, run for real: vLLM, and llama.cpp's server."""
