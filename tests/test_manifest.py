"""A stage leaves rows, dropped rows and a manifest; a finished one never runs twice."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import pytest

from reasonembed.errors import DamageError, ReasonEmbedError, StageChanged, StorageError
from reasonembed.manifest import (
    Calls,
    Manifest,
    StageRun,
    delete_stage,
    read_dropped,
    read_manifest,
    read_rows,
    run_stage,
)
from reasonembed.records import Document, Dropped


def rows(counts: Counter[str]) -> Iterator[object]:
    counts["seen"] += 3
    yield Document("1", "one")
    yield Dropped("2", "too_short", "3 characters")
    yield Document("3", "three")


def stage(folder: Path, produce=rows, **changes: object) -> StageRun:
    work = StageRun(
        folder=folder / "select",
        stage="select",
        domain="biology",
        inputs={"corpus": "aa"},
        config={"select": {"min_chars": 200}, "seed": 0},
        settings={"concurrency": 8},
        produce=produce,
        calls=lambda: Calls(asked=2, prompt_tokens=10),
    )
    return msgspec.structs.replace(work, **changes)


def refuse_to_run(_: Counter[str]) -> Iterable[object]:
    raise AssertionError("the stage ran again")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_stage_leaves_rows_dropped_rows_and_a_manifest_with_its_counts(tmp_path: Path):
    result = run_stage(stage(tmp_path))
    folder = tmp_path / "select"
    assert sorted(path.name for path in folder.iterdir()) == [
        "dropped.jsonl",
        "manifest.json",
        "rows.jsonl.zst",
    ]
    assert list(read_rows(folder, Document)) == [Document("1", "one"), Document("3", "three")]
    assert list(read_dropped(folder)) == [Dropped("2", "too_short", "3 characters")]
    manifest = read_manifest(folder)
    assert manifest == result.manifest
    assert manifest is not None
    assert (manifest.rows_in, manifest.rows_out, manifest.dropped) == (3, 2, {"too_short": 1})
    assert (manifest.counts, manifest.calls.asked, manifest.settings) == ({"seen": 3}, 2, {"concurrency": 8})
    assert manifest.outputs.keys() == {"rows.jsonl.zst", "dropped.jsonl"}
    assert result.fresh


def test_a_finished_stage_is_not_run_again_and_no_file_changes(tmp_path: Path):
    first = run_stage(stage(tmp_path))
    before = files(tmp_path / "select")
    again = run_stage(stage(tmp_path, refuse_to_run, settings={"concurrency": 512}))
    assert not again.fresh
    assert again.manifest == first.manifest
    assert files(tmp_path / "select") == before


def test_equal_rows_give_equal_bytes(tmp_path: Path):
    run_stage(stage(tmp_path / "a"))
    run_stage(stage(tmp_path / "b"))
    for name in ("rows.jsonl.zst", "dropped.jsonl"):
        assert (tmp_path / "a/select" / name).read_bytes() == (tmp_path / "b/select" / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"inputs": {"corpus": "bb"}}, "another input: corpus was 'aa' and is 'bb' now"),
        ({"inputs": {"corpus": "aa", "sources": "cc"}}, "another input: sources was absent and is 'cc' now"),
        ({"inputs": {}}, "another input: corpus was 'aa' and is absent now"),
        (
            {"config": {"select": {"min_chars": 100}, "seed": 0}},
            r"another key: select.min_chars was 200 and is 100 now",
        ),
        ({"config": {"select": {"min_chars": 200}, "seed": 1}}, "another key: seed was 0 and is 1 now"),
    ],
)
def test_a_changed_input_or_key_is_named_with_its_values_and_the_cure(tmp_path: Path, changes, named: str):
    run_stage(stage(tmp_path))
    before = files(tmp_path / "select")
    with pytest.raises(StageChanged, match=named) as caught:
        run_stage(stage(tmp_path, refuse_to_run, **changes))
    assert "--restart-from select" in str(caught.value)
    assert caught.value.exit_code == 2
    assert files(tmp_path / "select") == before


@pytest.mark.parametrize("name", ["rows.jsonl.zst", "dropped.jsonl"])
def test_a_missing_or_altered_output_is_named(tmp_path: Path, name: str):
    run_stage(stage(tmp_path))
    path = tmp_path / "select" / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DamageError, match=rf"{name} is not what was written.*--restart-from select"):
        run_stage(stage(tmp_path, refuse_to_run))
    path.unlink()
    with pytest.raises(DamageError, match=rf"{name} is missing"):
        run_stage(stage(tmp_path, refuse_to_run))


def test_a_torn_manifest_is_damage_at_whatever_byte_it_is_cut(tmp_path: Path):
    run_stage(stage(tmp_path))
    path = tmp_path / "select/manifest.json"
    content = path.read_bytes()
    for length in range(0, len(content.rstrip()), 7):
        path.write_bytes(content[:length])
        with pytest.raises(DamageError, match=r"manifest\.json is damaged"):
            run_stage(stage(tmp_path, refuse_to_run))


def test_a_bit_flipped_in_a_manifest_is_damage_and_one_without_a_checksum_is_read(tmp_path: Path):
    """Or it changes nothing, as in the name of the checksum itself."""
    manifest = run_stage(stage(tmp_path)).manifest
    path = tmp_path / "select/manifest.json"
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 7]) + content[place + 1 :])
        with contextlib.suppress(DamageError):
            assert read_manifest(path.parent) == manifest, place
    path.write_bytes(content.replace(b'"rows_out": 2', b'"rows_out": 3'))
    with pytest.raises(DamageError, match=r"manifest\.json is damaged \(it is not what was written.*--restart-from"):
        read_manifest(path.parent)
    older = json.loads(content)
    del older["checksum"]
    path.write_text(json.dumps(older))
    assert not run_stage(stage(tmp_path, refuse_to_run)).fresh


def test_a_stage_that_fails_half_way_leaves_nothing_that_looks_whole(tmp_path: Path):
    def failing(_: Counter[str]) -> Iterator[object]:
        yield Document("1", "one")
        raise ReasonEmbedError("no more")

    with pytest.raises(ReasonEmbedError, match="no more"):
        run_stage(stage(tmp_path, failing))
    assert list((tmp_path / "select").iterdir()) == []
    assert run_stage(stage(tmp_path)).fresh


def test_what_a_stage_cannot_read_does_not_pass_for_a_full_disk(tmp_path: Path):
    def failing(_: Counter[str]) -> Iterator[object]:
        yield Document("1", "one")
        raise OSError("the network share is gone")

    with pytest.raises(ReasonEmbedError, match="the stage select of biology could not go on") as caught:
        run_stage(stage(tmp_path, failing))
    assert not isinstance(caught.value, StorageError)


def test_leftovers_of_a_killed_process_are_cleared_away(tmp_path: Path):
    folder = tmp_path / "select"
    (folder / ".tmp-beir").mkdir(parents=True)
    (folder / ".tmp-abc").write_bytes(b"half a row")
    run_stage(stage(tmp_path))
    assert not list(folder.glob(".tmp-*"))


def test_further_files_are_part_of_the_receipt(tmp_path: Path):
    def finish() -> list[str]:
        (tmp_path / "select/extra.txt").write_text("more")
        return ["extra.txt"]

    assert "extra.txt" in run_stage(stage(tmp_path, finish=finish)).manifest.outputs
    (tmp_path / "select/extra.txt").write_text("less")
    with pytest.raises(DamageError, match=r"extra\.txt is not what was written"):
        run_stage(stage(tmp_path, finish=finish))


def test_a_deleted_stage_runs_again(tmp_path: Path):
    run_stage(stage(tmp_path))
    delete_stage(tmp_path / "select")
    delete_stage(tmp_path / "select")  # twice does no harm
    assert run_stage(stage(tmp_path)).fresh


def test_a_manifest_of_the_first_version_still_reads():
    old = (
        b'{"stage":"select","domain":"biology","version":"0.1.0","inputs":{"corpus":"aa"},"config":{"seed":0},'
        b'"settings":{},"rows_in":3,"rows_out":2,"dropped":{"too_short":1},"counts":{},"calls":{"asked":0,'
        b'"from_journal":0,"failures":0,"prompt_tokens":0,"completion_tokens":0},"seconds":0.1,'
        b'"outputs":{"rows.jsonl.zst":"ab","dropped.jsonl":"cd"}}'
    )
    assert msgspec.json.decode(old, type=Manifest).rows_out == 2
