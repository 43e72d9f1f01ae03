"""The pool server: AI accounts shared by a few friends, behind one address."""

__version__ = "0.1.0"
