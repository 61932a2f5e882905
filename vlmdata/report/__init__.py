"""`vlmdata report`: what a run decided, as a page that people look at."""
