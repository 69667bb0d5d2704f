"""Collections to judge on, by one word or path."""

from __future__ import annotations

from pathlib import Path

from reasonembed.beir import Collection, is_beir, read_beir
from reasonembed.errors import InputError
from reasonembed.pocket import POCKET_DOMAINS, pocket_folder


def load_collections(path: Path | str, *, split: str = "test") -> dict[str, Collection]:
    """Domain -> collection: a BEIR folder, a folder of BEIR folders (one a domain), or the bundled `pocket`.

    A folder named `pocket` is reached as `./pocket`. Raises InputError if there is no BEIR folder, and for
    what `read_beir` refuses.
    """
    if str(path) == "pocket":
        return {domain: read_beir(pocket_folder(domain), split) for domain in POCKET_DOMAINS}
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f'there is no folder {folder}. Give a BEIR folder, a folder of such folders, or "pocket".')
    if is_beir(folder):
        return {folder.resolve().name: read_beir(folder, split)}
    inner = [child for child in sorted(folder.iterdir()) if child.is_dir() and is_beir(child)]
    if not inner:
        raise InputError(
            f"{folder} is no BEIR folder (corpus.jsonl, queries.jsonl, qrels/{split}.tsv) and holds none. "
            f'Give such a folder, a folder of them, or "pocket".'
        )
    return {child.name: read_beir(child, split) for child in inner}
