"""The persona router: reads a message, chooses the persona, lets it answer."""

import os

# The reader's products are so small that a second thread costs more than it gains, and takes another request's core.
# NumPy's library reads this once, when it is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
