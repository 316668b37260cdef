"""`parrot doctor`: looks at an engine or this installation, and says what is missing."""
