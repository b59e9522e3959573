"""`ion load`: many callers for a short while, and how they were served."""
