"""HTTP: the native routes, OpenAI's, and operations. Translates; decides nothing."""
