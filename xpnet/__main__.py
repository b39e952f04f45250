"""`python -m xpnet` is `xpnet`."""

import sys

from xpnet.cli import main

sys.exit(main())
