"""`python -m autoprivacy`: one entry to everything that is run by hand."""

import sys

from autoprivacy.cli.main import main

sys.exit(main())
