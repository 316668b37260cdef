"""Who may come in: connections, hosts and origins, keys."""
