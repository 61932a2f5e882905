"""Comparisons with peers, and with ourselves run bare; each prints a ratio taken in one run on this machine."""
