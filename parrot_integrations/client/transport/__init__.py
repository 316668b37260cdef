"""How operations reach the backend: connections, attempts, timeouts, and what came back."""
