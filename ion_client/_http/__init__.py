"""ION over HTTP."""
