"""The journal: what went in comes out, or an error names the place."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonembed.errors import DamageError, InputError, ReasonEmbedError, StorageError, WorkspaceBusy
from reasonembed.llm.chat import Failure, Message, Reply, Request, Sampling, Usage
from reasonembed.llm.journal import SCHEMA_VERSION, Journal
from reasonembed.llm.keys import reply_key

BASE = Request("generate:biology:d", (Message("system", "s"), Message("user", "u")), Sampling(), seed=1)


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def reply(number: int, text: str = "") -> Reply:
    return Reply(f"generate:biology:doc-{number}", text or f"answer {number} " * 9, Usage(number, 2), thinking="hm")


def fill(path: Path, count: int) -> dict[bytes, Reply]:
    replies = {key(number): reply(number) for number in range(count)}
    with Journal(path) as journal:
        journal.put_many(replies.items())
    return replies


def test_replies_come_back_as_they_were_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "journal.sqlite"
    failed = Reply("reason:x:1", "", Usage(5, 0), Failure("truncated", "…and then"), "much thinking")
    replies = fill(path, 3) | {key(9): failed}
    with Journal(path) as journal:
        journal.put_many([(key(9), failed)])
    with Journal(path) as journal:
        assert journal.get_many([*replies, key(77)]) == replies
        assert journal.get(key(77)) is None
        assert journal.contains_many([key(1), key(9), key(77)]) == {key(1): "", key(9): "truncated"}
        assert len(journal) == 4
        assert journal.failures() == {"truncated": 1}
        assert journal.tokens() == Usage(0 + 1 + 2 + 5, 6)


def test_more_keys_than_one_select_takes_are_found(tmp_path: Path) -> None:
    replies = fill(tmp_path / "j", 1300)
    with Journal(tmp_path / "j") as journal:
        assert journal.get_many(iter(replies)) == replies
        assert len(journal.contains_many(replies)) == 1300


def test_the_first_reply_under_a_key_stays(journal: Journal) -> None:
    journal.put_many([(key(1), reply(1, "first"))])
    journal.put_many([(key(1), reply(1, "second"))])
    found = journal.get(key(1))
    assert found is not None and found.text == "first"


@settings(max_examples=60, deadline=None)
@given(text=st.text(), thinking=st.text(max_size=20), custom_id=st.text(st.characters(), max_size=300))
def test_any_text_and_any_id_survive(text: str, thinking: str, custom_id: str) -> None:
    with Journal(":memory:") as journal:
        given_reply = Reply(custom_id, text, thinking=thinking)
        journal.put_many([(key(1), given_reply)])
        assert journal.get(key(1)) == given_reply


def test_an_id_from_a_file_name_that_is_no_utf8_survives(journal: Journal) -> None:
    odd = Reply("generate:x:caf\udce9.txt", "text")
    journal.put_many([(key(1), odd)])
    assert journal.get(key(1)) == odd


def test_a_group_is_committed_whole_or_not_at_all(journal: Journal) -> None:
    with pytest.raises(AttributeError):
        journal.put_many([(key(1), reply(1)), (key(2), None)])  # type: ignore[list-item]
    assert len(journal) == 0


@pytest.mark.parametrize(
    "other",
    [
        msgspec.structs.replace(BASE, messages=(Message("user", "u"),)),
        msgspec.structs.replace(BASE, messages=(Message("user", "s"), Message("user", "u"))),
        msgspec.structs.replace(BASE, sampling=Sampling(temperature=0.5)),
        msgspec.structs.replace(BASE, sampling=Sampling(max_tokens=2047)),
        msgspec.structs.replace(BASE, sampling=Sampling(top_k=40)),
        msgspec.structs.replace(BASE, sampling=Sampling(top_p=1.0)),
        msgspec.structs.replace(BASE, sampling=Sampling(thinking=False)),
        msgspec.structs.replace(BASE, seed=2),
        msgspec.structs.replace(BASE, sample_index=1),
    ],
)
def test_the_key_changes_with_all_that_decides_an_answer(other: Request) -> None:
    assert reply_key("m", other) != reply_key("m", BASE)
    assert reply_key("m2", BASE) != reply_key("m", BASE)


def test_the_custom_id_decides_for_recordings_and_scripts_only() -> None:
    other = msgspec.structs.replace(BASE, custom_id="generate:biology:e")
    assert reply_key("m", other) == reply_key("m", BASE)
    assert reply_key("m", other, with_custom_id=True) != reply_key("m", BASE, with_custom_id=True)


def test_the_key_is_the_same_in_every_release() -> None:
    """A journal that somebody paid for must stay readable: this value may never change."""
    request = msgspec.structs.replace(BASE, sampling=Sampling(temperature=1, top_p=0.6))
    assert reply_key("m", request).hex() == "00225eaba4c902667e8a3d97ec929db906d6ee7c635f5ae721e6bfa72d5483c0"


def from_sql(path: Path, name: str) -> Path:
    """A journal of an older release, kept as SQL."""
    with sqlite3.connect(path) as old:
        old.executescript((Path(__file__).parent / name).read_text())
    old.close()
    return path


KEPT = {
    key(1): Reply("generate:biology:d", "kept", Usage(12, 3), thinking="hm"),
    key(2): Reply("reason:biology:d", "", Usage(12, 0), Failure("refused", "I will not.")),
}


@pytest.mark.parametrize("name", ["journal_v1.sql", "journal_v2.sql"])
def test_a_journal_of_every_version_still_loads(tmp_path: Path, name: str) -> None:
    with Journal(from_sql(tmp_path / "j", name)) as journal:
        assert journal.get_many(KEPT) == KEPT


def test_a_journal_of_version_1_is_upgraded_in_place_and_loses_nothing(tmp_path: Path) -> None:
    path = from_sql(tmp_path / "j", "journal_v1.sql")
    with sqlite3.connect(path) as old:
        rows = old.execute("SELECT * FROM replies").fetchall()
    old.close()
    with Journal(path) as journal:
        journal.put_many([(key(3), reply(3)), (key(1), reply(1))], model="gpt")
    with Journal(path) as journal:
        assert journal.get_many([key(1), key(2), key(3)]) == KEPT | {key(3): reply(3)}
    with sqlite3.connect(path) as new:
        assert new.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert new.execute("SELECT * FROM replies WHERE number < 3").fetchall() == [(*row, None) for row in rows]
        assert new.execute("SELECT model FROM replies WHERE number > 2").fetchall() == [("gpt",)]
    new.close()


def test_an_upgrade_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = from_sql(tmp_path / "j", "journal_v1.sql")
    monkeypatch.setattr("reasonembed.llm.journal_schema.open_ledger", lambda connection: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Journal(path)
    monkeypatch.undo()
    with sqlite3.connect(path) as old:
        assert old.execute("PRAGMA user_version").fetchone() == (1,)
        assert len(old.execute("PRAGMA table_info(replies)").fetchall()) == 9
    old.close()
    with Journal(path) as journal:
        assert journal.get_many(KEPT) == KEPT


def test_damage_names_file_row_and_id(tmp_path: Path) -> None:
    path = tmp_path / "j"
    fill(path, 3)
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE replies SET completion_tokens = 3 WHERE number = 2")
    raw.close()
    with Journal(path) as journal:
        assert journal.get(key(0)) is not None
        with pytest.raises(DamageError, match=r"j, reply 2 \(.*generate:biology:doc-1.*checksum"):
            journal.get_many([key(0), key(1)])


@pytest.mark.parametrize("content", [b"{}" * 600, b"\x00" * 5000, b"hello"])
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match="no journal"):
        Journal(path)
    assert path.read_bytes() == content


def test_another_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE t (x)")
    other.close()
    content = path.read_bytes()
    with pytest.raises(InputError, match="no journal"):
        Journal(path)
    assert path.read_bytes() == content


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "j", 1)
    with sqlite3.connect(tmp_path / "j") as raw:
        raw.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    raw.close()
    with pytest.raises(InputError, match="newer"):
        Journal(tmp_path / "j")


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=str(tmp_path)):
        Journal(tmp_path)


def test_a_second_writer_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reasonembed.llm.journal._BUSY_TIMEOUT_S", 0.05)
    with Journal(tmp_path / "j") as journal, sqlite3.connect(tmp_path / "j", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(WorkspaceBusy, match="another process"):
            journal.put_many([(key(1), reply(1))])
        other.execute("ROLLBACK")
        journal.put_many([(key(1), reply(1))])
        assert len(journal) == 1
    other.close()


def test_a_full_disk_is_a_clear_error_and_loses_nothing(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.put_many([(key(1), reply(1))])
        journal._connection.execute("PRAGMA max_page_count = 1")
        big = [(key(n), reply(n, f"{n}" + "".join(map(chr, range(300, 3000))))) for n in range(2, 60)]
        with pytest.raises(StorageError, match="free some space"):
            journal.put_many(big)
        assert journal.get(key(1)) == reply(1)
        assert len(journal) == 1


def test_a_half_made_file_is_completed(tmp_path: Path) -> None:
    """Killed between SQLite's first write and ours."""
    with sqlite3.connect(tmp_path / "j") as raw:
        raw.execute("PRAGMA journal_mode = WAL")
    raw.close()
    fill(tmp_path / "j", 2)


def test_every_error_is_one_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "j"
    fill(path, 1)
    with sqlite3.connect(path) as raw:
        raw.execute("DROP TABLE replies")
    raw.close()
    with pytest.raises(ReasonEmbedError), Journal(path) as journal:
        journal.get(key(0))
