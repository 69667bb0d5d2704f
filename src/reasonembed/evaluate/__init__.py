"""Judging: metrics, protocol, intervals and paired tests, reports."""
