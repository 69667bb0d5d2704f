"""The constants of the paper's section 3, to the letter: released checkpoints were trained with them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from reasonembed.domains import Domain, domain_names, load_domain
from reasonembed.domains.write import COMMENTS, write_domain
from reasonembed.errors import ConfigError, InputError

TABLE = """
biology | Given a Biology post, retrieve relevant passages that help answer the post. | biology post | passage
earth_science | Given an Earth Science post, retrieve relevant passages that help answer the post. | earth science post | passage
economics | Given an Economics post, retrieve relevant passages that help answer the post. | economics post | passage
psychology | Given a Psychology post, retrieve relevant passages that help answer the post. | psychology post | passage
robotics | Given a Robotics post, retrieve relevant passages that help answer the post. | robotics post | passage
stackoverflow | Given a Stack Overflow post, retrieve relevant passages that help answer the post. | Stack Overflow post | passage
sustainable_living | Given a Sustainable Living post, retrieve relevant passages that help answer the post. | sustainable living post | passage
leetcode | Given a Coding problem, retrieve relevant examples that help answer the problem. | LeetCode problem | coding problem solution
pony | Given a Pony question, retrieve relevant passages that help answer the question. | Pony coding instruction | Pony documentation passage
aops | Given a Math problem, retrieve relevant examples that help answer the problem. | math problem | math problem solution
theoremqa_questions | Given a Math problem, retrieve relevant examples that help answer the problem. | math problem | math problem solution
theoremqa_theorems | Given a Math problem, retrieve relevant theorems that help answer the problem. | math problem | math-related passage
r2med_biology | Given a Biology post, retrieve relevant passages that help answer the post. | biology post | passage
r2med_bioinformatics | Given a Bioinformatics post, retrieve relevant passages that help answer the post. | bioinformatics post | passage
r2med_medical_sciences | Given a Medical Science post, retrieve relevant passages that help answer the post. | medical science post | passage
r2med_medxpertqa_exam | Given a Medical Exam, retrieve relevant passages that help answer the exam. | medical exam question | passage
r2med_medqa_diag | Given a Medical Exam, retrieve relevant passages that help answer the exam. | medical exam question | passage
r2med_pmc_treatment | Given a Clinical Case, retrieve relevant passages that help answer the case. | clinical case | passage
r2med_pmc_clinical | Given a Clinical Case, retrieve similar cases that help diagnose the case. | clinical case | similar case
r2med_iiyi_clinical | Given a Clinical Case, retrieve similar cases that help diagnose the case. | clinical case | similar case
general | Given this reasoning-intensive query, find relevant documents that could help answer the question. | question | passage
"""  # noqa: E501
ROWS = [tuple(cell.strip() for cell in line.split("|")) for line in TABLE.strip().splitlines()]

MINE = """name = "mine"
instruction = "Find it."
query_kind = "question"
document_kind = "passage"
relevance = "it helps."
generation = "a question."
"""


@pytest.mark.parametrize(("name", "instruction", "query_kind", "document_kind"), ROWS, ids=[row[0] for row in ROWS])
def test_each_domain_has_the_papers_constants(name: str, instruction: str, query_kind: str, document_kind: str) -> None:
    domain = load_domain(name)
    assert (domain.name, domain.instruction) == (name, instruction)
    assert (domain.query_kind, domain.document_kind) == (query_kind, document_kind)
    assert domain.language == "en"


@pytest.mark.parametrize("name", [row[0] for row in ROWS])
def test_a_global_batch_holds_1024_passages(name: str) -> None:
    group, batch = {"leetcode": (2, 64), "pony": (64, 2)}.get(name, (16, 8))
    domain = load_domain(name)
    assert (domain.group_size, domain.batch_size) == (group, batch)
    assert domain.global_queries == 8 * batch
    assert domain.group_size * domain.global_queries == 1024


def test_the_shipped_domains_stand_in_the_order_of_bright_and_r2med() -> None:
    assert domain_names() == [row[0] for row in ROWS]


def test_a_users_own_domain_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINE + 'language = "de"\n')
    for given in (path, str(path)):
        domain = load_domain(given)
        assert (domain.name, domain.language, domain.group_size) == ("mine", "de", 16)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            ("relevance", "relevence"),
            r'mine\.toml, line 5: unknown key "relevence"; did you mean "relevance"\?',
        ),
        (('"Find it."', "5"), r'mine\.toml, line 2: "instruction": Expected `str`, got `int`'),
        (('"Find it."', '" "'), r'"instruction" is empty'),
        (('"mine"', '"../mine"'), r"\"name\" is '\.\./mine'; use lower-case letters"),
        (('"mine"', '"' + "m" * 65 + '"'), r'"name" is'),
        (('query_kind = "question"\n', ""), r"missing required field `query_kind`"),
        (
            ('"it helps."', '"it helps."\nlanguage = "xx"'),
            r"\"language\" is 'xx', for which there is no analyser",
        ),
        (('"it helps."', '"it helps."\ngroup_size = 1'), r'"group_size" is 1; it must be at least 2'),
        (('"it helps."', '"it helps."\nglobal_queries = 0'), r'"global_queries" is 0; it must be at least 1'),
        (('"it helps."', '"it helps.'), r"mine\.toml: not valid TOML: .*line 5"),
    ],
)
def test_a_mistake_in_a_domain_file_is_named_with_the_cure(tmp_path: Path, change: tuple[str, str], found: str) -> None:
    path = tmp_path / "mine.toml"
    assert change[0] in MINE
    path.write_text(MINE.replace(*change))
    with pytest.raises(ConfigError, match=found) as error:
        load_domain(path)
    assert "mine.toml" in str(error.value)


def test_an_unknown_domain_is_refused_with_the_nearest_known_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'unknown domain "biologie"; did you mean "biology"\? Known: biology'):
        load_domain("biologie")
    with pytest.raises(InputError, match="there is no file"):
        load_domain(tmp_path / "mine.toml")
    for hostile in ("../pocket", "/etc/passwd", ""):
        with pytest.raises(ConfigError, match="unknown domain"):
            load_domain(hostile)


def test_a_new_domains_file_is_read_back_and_says_what_each_key_is_for(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    domain = Domain("mine", 'Find "it"\\.', "question", "page", "it # helps.", "a question,\nlong.", "de", 8, 32)
    write_domain(path, domain)
    assert load_domain(path) == domain
    lines = path.read_text().splitlines()
    keys = [field.name for field in msgspec.structs.fields(Domain)]
    assert sorted(COMMENTS) == sorted(keys)
    for key in keys:
        (place,) = [number for number, line in enumerate(lines) if line.startswith(f"{key} = ")]
        assert lines[place - 1] == f"# {COMMENTS[key]}"


def test_a_domains_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    with pytest.raises(InputError, match="exists already"):
        write_domain(path, load_domain("general"))
    with pytest.raises(InputError, match=r"does not end in \.toml"):
        write_domain(tmp_path / "mine", load_domain("general"))
    assert path.read_text() == MINE
