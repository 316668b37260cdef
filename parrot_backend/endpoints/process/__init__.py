"""An endpoint in a process of its own, watched over from this one."""
