"""`python -m lineage COMMAND`."""

from lineage.cli import main

main()
