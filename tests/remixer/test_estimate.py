"""What a plan costs before anyone pays: prompts as the stages make them, prices by hand."""

from __future__ import annotations

import random

import pytest

from reasonembed.domains import load_domain
from reasonembed.llm.chat import Reply, Request, Usage
from reasonembed.llm.prices import Price, Prices
from reasonembed.llm.scripted import plausible_reply
from reasonembed.llm.spending import Spending
from reasonembed.remixer.config import MineConfig, SelectConfig, SynthesisConfig
from reasonembed.remixer.estimate import Costing, sample_prompts, stage_cost
from reasonembed.remixer.job import make_job
from reasonembed.remixer.pipeline import plan, synthesize
from reasonembed.workspace import Workspace

BIOLOGY = load_domain("biology")
PRICES = Prices(models={"scripted": Price(input=10.0, output=100.0)})
WORDS = ("salts", "water", "slugs", "genes", "cells", "leafs", "roots", "barks", "stems", "seeds", "moths", "lungs")
TEXTS = {f"d{n}": " ".join(random.Random(n).choices(WORDS, k=60)) for n in range(12)}


@pytest.fixture
def job(corpus_of, door_to, tmp_path):
    config = SynthesisConfig(select=SelectConfig(min_chars=50), mine=MineConfig(top_k=4))
    door = door_to(plausible_reply)
    return make_job(corpus_of(TEXTS), BIOLOGY, Workspace(tmp_path / "run"), generator=door, config=config)


@pytest.mark.parametrize("stage", ["select", "generate", "reason", "annotate"])
def test_the_sampled_prompts_are_those_that_the_stage_will_send(job, stage: str):
    sampled = sample_prompts(job, stage)
    assert {request.custom_id.partition(":")[0] for request in sampled} == {stage}
    assert job.generator.backend.asked == []
    sent: dict[str, Request] = {}

    def noting(request: Request) -> str:
        sent[request.custom_id] = request
        return plausible_reply(request)

    job.generator.backend.script = noting
    synthesize(job.corpus, BIOLOGY, job.workspace, generator=job.generator, config=job.config)
    now = sample_prompts(job, stage)
    assert len(now) >= 6
    assert all(sent[request.custom_id].messages == request.messages for request in now)
    if stage in ("select", "generate"):  # these need no earlier reply
        assert all(sent[one.custom_id].messages == one.messages for one in sampled if one.custom_id in sent)


def test_tokens_are_a_quarter_of_the_characters_unless_the_tokenizer_is_at_hand(job):
    prompts = sample_prompts(job, "generate")
    chars = sum(len(request.messages[0].content) for request in prompts) / len(prompts)
    guessed = stage_cost(job, "generate", 1000, Costing(prices=PRICES))
    assert guessed.prompt_tokens == pytest.approx(chars / 4 * 1000, rel=0.01) and not guessed.counted
    counted = stage_cost(job, "generate", 1000, Costing(prices=PRICES, tokenizers={"scripted": lambda _: 7}))
    assert counted.prompt_tokens == 7000 and counted.counted
    assert counted.cost == pytest.approx((7000 * 10 + 221_000 * 100) / 1e6)


def test_answers_are_as_long_as_those_of_that_model_and_stage_in_the_journal(job):
    spending = (
        Spending("scripted", "reason", 10, 0, 5000),
        Spending("scripted", "generate", 10, 0, 70),
        Spending("another", "reason", 10, 0, 9),
    )
    cost = stage_cost(job, "reason", 3, Costing(prices=PRICES, spending=spending))
    assert (cost.completion_tokens, cost.answers_seen) == (1500, 10)


def test_a_model_without_a_price_has_tokens_and_no_cost(job):
    cost = stage_cost(job, "annotate", 10, Costing(prices=Prices()))
    assert cost.cost is None and cost.prompt_tokens > 0


def test_the_plan_of_a_run_matches_what_the_run_then_spends(corpus_of, door_to, tmp_path):
    """The scripted model tells tokens by the same rule, so that only what stages drop may differ."""

    def telling(request: Request) -> Reply:
        text = plausible_reply(request)
        return Reply(request.custom_id, text, Usage(round(len(request.messages[0].content) / 4), 50))

    corpus, door, workspace = corpus_of(TEXTS), door_to(telling), Workspace(tmp_path / "run")
    config = SynthesisConfig(select=SelectConfig(domain_check=False, min_chars=50), mine=MineConfig(top_k=4))
    arguments = {"generator": door, "config": config}
    synthesize(corpus, BIOLOGY, workspace, stop_after="mine", **arguments)
    spending = door.journal.spending()
    costing = Costing(prices=PRICES, spending=(*spending, Spending("scripted", "annotate", 1, 0, 50)))
    planned = {one.stage: one.cost for one in plan(corpus, BIOLOGY, workspace, costing=costing, **arguments)}
    assert planned["generate"] is None  # done
    report = synthesize(corpus, BIOLOGY, workspace, **arguments)
    calls = next(result.manifest.calls for result in report.stages if result.stage == "annotate")
    assert planned["annotate"].completion_tokens == calls.completion_tokens
    assert planned["annotate"].prompt_tokens == pytest.approx(calls.prompt_tokens, rel=0.03)


def test_a_plan_over_a_changed_corpus_still_has_its_cost(corpus_of, door_to, tmp_path):
    config = SynthesisConfig(select=SelectConfig(domain_check=False, min_chars=50), mine=MineConfig(top_k=4))
    door, workspace = door_to(plausible_reply), Workspace(tmp_path / "run")
    synthesize(corpus_of(TEXTS), BIOLOGY, workspace, generator=door, config=config)
    other = corpus_of({f"new{key}": text for key, text in TEXTS.items()})
    plans = plan(other, BIOLOGY, workspace, generator=door, config=config, costing=Costing(prices=PRICES))
    assert plans[0].state == "changed"
    assert all(one.cost is not None for one in plans if one.calls)
