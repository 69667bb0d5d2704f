"""The analyses of the paper: lexical overlap and its kin."""
