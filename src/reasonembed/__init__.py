"""A corpus and any language model in, a retriever that reasons out."""

__version__ = "0.1.0"
