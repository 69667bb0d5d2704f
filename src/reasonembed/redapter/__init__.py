"""Redapter: contrastive training that weighs each sample by its reasoning intensity (PAPER.md section 2)."""
