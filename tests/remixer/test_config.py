"""The configuration carries the paper's constants, and refuses what cannot be meant."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from reasonembed.config import load_toml, override
from reasonembed.errors import ConfigError
from reasonembed.llm.chat import Sampling
from reasonembed.remixer.config import SynthesisConfig


def test_the_defaults_are_those_of_the_paper_and_its_release():
    config = SynthesisConfig()
    assert (config.select.min_chars, config.select.max_chars, config.select.max_documents) == (
        200,
        5000,
        10_000,
    )
    assert list(config.generate.lengths.values()) == [1, 2, 3, 3, 2, 1]
    assert list(config.generate.education.values()) == [1, 2, 2]
    assert (config.generate.sampling.temperature, config.generate.sampling.top_p) == (1.0, 0.6)
    assert config.mine.top_k == 100
    assert config.annotate.sampling == Sampling(temperature=0.7, top_p=0.95, top_k=40, max_tokens=2048, thinking=False)
    assert config.assemble.positive_grade == 3


def test_a_table_keeps_the_defaults_of_the_keys_it_does_not_name(tmp_path: Path):
    path = tmp_path / "run.toml"
    path.write_text('seed = 7\n[annotate]\ntemperature = 0.0\nthinking = "default"\ntop_k = 0\n')
    config = load_toml(path, SynthesisConfig)
    assert config.seed == 7
    assert config.annotate.sampling == Sampling(temperature=0.0, top_p=0.95, max_tokens=2048)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[anotate]\n", 'unknown key "anotate"; did you mean "annotate"?'),
        ("[mine]\ntop_n = 3\n", r'line 2: unknown key "top_n" in \[mine\]; did you mean "top_k"?'),
        ("[mine]\nretriever = 'dense'\n", "needs a model"),
        ("[mine]\nmodel = 'x'\n", "uses none"),
        ("[mine]\nnear_copy = 0.9\n", "at most 0.8, which is the rule"),
        ("[mine]\nretriever = 'pooled'\npool = ['bm25']\n", "needs two or more, all different"),
        ("[mine]\nretriever = 'pooled'\npool = ['bm25', 'bm25']\n", "needs two or more, all different"),
        ("[mine]\nretriever = 'pooled'\nmodel = 'm'\npool = ['bm25', 'bm25q']\n", "or name it in pool"),
        ("[mine]\npool = ['bm25', 'bm25q']\n", 'choose "pooled"'),
        ("[corpus]\nchunk_chars = 100\n", "chunk_overlap is 200"),
        ("[mine]\nretriever = 'tfidf'\n", "Invalid enum value 'tfidf'"),
        ("[select]\nmin_chars = 9000\n", "min_chars is 9000 and max_chars 5000"),
        ("[generate]\ntemperature = 3\n", "temperature is 3"),
        ("[generate.lengths]\nshort = -1\n", "none below 0"),
        ("[assemble]\npositive_grade = 6\n", "between 2 and 5"),
        ("holdout = 1.0\n", "at least 0 and below 1"),
        ("limit = -1\n", "limit is -1"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, said: str):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
        load_toml(path, SynthesisConfig)


def test_flags_override_single_keys():
    config = override(SynthesisConfig(), {"annotate.temperature": 0.0, "limit": 20, "mine.top_k": None})
    assert (config.annotate.temperature, config.annotate.top_p, config.limit) == (0.0, 0.95, 20)
    assert config.mine == SynthesisConfig().mine


def test_the_whole_config_survives_being_written_and_read():
    config = SynthesisConfig(seed=3)
    assert msgspec.convert(msgspec.to_builtins(config), SynthesisConfig) == config
