"""The one door to language models: HTTP endpoints, recordings and scripts, behind a journal."""
