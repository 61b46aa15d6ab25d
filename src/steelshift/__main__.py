"""`python -m steelshift`."""

import sys

from steelshift.cli import main

sys.exit(main())
