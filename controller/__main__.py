"""`python -m controller`: the operator process."""

from controller.app import main

raise SystemExit(main())
