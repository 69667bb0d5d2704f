"""ReMixer: training data from a corpus, one file per stage (PAPER.md section 1)."""
