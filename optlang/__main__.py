"""`python -m optlang`."""

from optlang.cli import main

raise SystemExit(main())
