"""`python -m parrot_backend` is the `parrot` command."""

import sys

from parrot_backend.cli import main

sys.exit(main())
