"""A plan told: as text, HTML, JSON or a flowchart, before it runs and beside what came of it."""
