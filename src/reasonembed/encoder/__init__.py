"""Texts to vectors: loading, pooling, token-budget batches, LoRA."""
