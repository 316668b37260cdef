"""Where keys and values lie: token slots, the radix tree over them, and their books."""
