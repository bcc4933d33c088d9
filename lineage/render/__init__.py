"""How a trace is shown: a tree in the terminal, a flowchart, a page."""
