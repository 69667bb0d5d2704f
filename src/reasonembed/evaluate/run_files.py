"""Rankings and judgments from files, whatever their format: TREC, JSON search results, BEIR's tab separated qrels."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from reasonembed.beir import QRELS_HEADER, read_tsv_qrels
from reasonembed.corpora import Corpus
from reasonembed.errors import InputError
from reasonembed.evaluate.search_results import read_search_results
from reasonembed.files import open_binary, read_lines
from reasonembed.records import Qrels, Run
from reasonembed.search.systems import Excluded, Queries, RunSystem, Setting, System
from reasonembed.trec import read_trec_qrels, read_trec_run

logger = logging.getLogger(__name__)

RUN_SUFFIXES = (".json", ".trec", ".trec.gz")
"""Files that are read from a folder of runs; the name of a TREC run is its domain's."""


def read_run(path: Path | str) -> Run:
    """The run in a file of TREC's six columns or of JSON search results; see their readers for what is refused."""
    path = Path(path)
    return read_search_results(path).run() if _is_json(path) else read_trec_run(path)


def read_qrels(path: Path | str) -> Qrels:
    """The qrels in a file of TREC's four columns, or of BEIR's three with their header."""
    path = Path(path)
    first = next((line for _, line in read_lines(path)), b"")
    if not first:
        raise InputError(f"{path} is empty. Give qrels: query 0 document grade, or BEIR's tab separated file.")
    if first.split(b"\t")[0] == QRELS_HEADER[0].encode():
        return read_tsv_qrels(path)
    return read_trec_qrels(path)


def open_run(path: Path | str) -> System:
    """A system that ranks as a file says, or as a folder of files does, one a domain.

    A TREC file serves every domain; JSON search results serve the one that they name. Raises InputError for a folder
    without runs, or with two for one domain.
    """
    path = Path(path)
    if path.is_dir():
        return DomainRuns(_runs_in(path), name=path.resolve().name)
    if _is_json(path):
        results = read_search_results(path)
        return DomainRuns({results.dataset_name: results.run()}, name=path.stem)
    return RunSystem(read_trec_run(path), name=path.stem)


def _runs_in(folder: Path) -> dict[str, Run]:
    runs: dict[str, Run] = {}
    for path in sorted(folder.iterdir()):
        suffix = next((suffix for suffix in RUN_SUFFIXES if path.name.endswith(suffix)), "")
        if not suffix or not path.is_file():
            continue
        if suffix == ".json":
            results = read_search_results(path)
            domain, run = results.dataset_name, results.run()
        else:
            domain, run = path.name.removesuffix(suffix), read_trec_run(path)
        if domain in runs:
            raise InputError(f'{path}: a second run for the domain "{domain}". Keep one of the two.')
        runs[domain] = run
    if not runs:
        raise InputError(f"{folder} holds no run. Put DOMAIN.trec or JSON search results there, one file a domain.")
    return runs


class DomainRuns:
    """Rankings made elsewhere, each for one domain, so that query ids may repeat from domain to domain."""

    def __init__(self, runs: Mapping[str, Run], *, name: str) -> None:
        self.runs, self.name = dict(runs), name

    def index(self, corpus: Corpus) -> DomainRunsIndex:
        return DomainRunsIndex(self.runs, corpus, self.name)

    def setting(self, domain: str) -> Setting:
        return Setting(model=self.name, search="as in the run files")


class DomainRunsIndex:
    """The rankings of the domains that share one corpus."""

    def __init__(self, runs: Mapping[str, Run], corpus: Corpus, name: str) -> None:
        self._runs, self._corpus, self._name = runs, corpus, name

    def search(self, queries: Queries, *, domain: str = "", k: int = 100, excluded: Excluded | None = None) -> Run:
        """Raises InputError if there is no run for the domain, or none for any of its queries."""
        if domain not in self._runs:
            raise InputError(
                f'{self._name} has no run for the domain "{domain}", only for {", ".join(self._runs)}. Add it, or '
                f"judge on those alone with --domains."
            )
        run = self._runs[domain]
        if queries and run.keys().isdisjoint(queries):
            raise InputError(
                f"the run of {self._name} for {domain} and its queries have no id in common: {next(iter(run), 'none')} "
                f"against {next(iter(queries))}. Is it the run of another benchmark?"
            )
        index = RunSystem(run, name=self._name).index(self._corpus)
        return index.search(queries, domain=domain, k=k, excluded=excluded)


def _is_json(path: Path) -> bool:
    with open_binary(path) as handle:
        return handle.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
