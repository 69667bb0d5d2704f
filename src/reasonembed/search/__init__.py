"""Ranking: BM25 (bag-of-words and query-side), exact dense search, fusion."""
