"""Where text comes from: one module a corpus source, all yielding `Document`s."""
