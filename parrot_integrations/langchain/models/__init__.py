"""The model classes: `ChatParrot` and `ParrotLLM`, and how LangChain's types go over the wire."""
