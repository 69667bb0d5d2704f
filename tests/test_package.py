"""The package as a whole: light to import, public names that exist, a direction of imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import reasonembed

SOURCE = Path(reasonembed.__file__).parent
HEAVY = {"torch", "transformers", "sentence_transformers", "peft", "accelerate", "matplotlib", "faiss", "bm25s"}
LAYERS = {
    name: level
    for level, names in enumerate(
        (
            ["errors", "records", "texts"],
            ["files", "data_files", "config", "progress", "processes"],
            ["corpora", "corpus_files", "chunks", "domains", "pocket", "manifest", "workspace", "beir", "doctor"],
            ["llm", "encoder", "search", "trec"],
            ["remixer", "redapter", "evaluate", "analyze"],
            ["workflow"],
            ["cli"],
            ["__main__"],
        )
    )
    for name in names
}


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_importing_the_package_or_its_command_line_loads_nothing_heavy() -> None:
    for module in ("reasonembed", "reasonembed.cli.main", "reasonembed.llm.door", "reasonembed.remixer.pipeline"):
        loaded = run_python(f"import sys, {module}; print(*(name.split('.')[0] for name in sys.modules))").split()
        assert not HEAVY.intersection(loaded), module


def test_every_public_name_can_be_had_and_all_is_the_list_of_them() -> None:
    assert sorted(reasonembed.__all__) == sorted(["__version__", *reasonembed._HOME])
    for name in reasonembed.__all__:
        assert getattr(reasonembed, name) is not None
    assert dir(reasonembed) == reasonembed.__all__


def test_no_public_name_hides_behind_a_folder_of_the_same_name() -> None:
    assert not set(reasonembed.__all__).intersection(path.name for path in SOURCE.iterdir() if path.is_dir())


def test_imports_point_one_way() -> None:
    wrong = []
    for path in SOURCE.rglob("*.py"):
        part = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if part in ("__init__",):
            continue
        for imported in _imports(path):
            if LAYERS[imported] > LAYERS[part]:
                wrong.append(f"{path.relative_to(SOURCE)} imports {imported}")
    assert not wrong


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            parts = name.split(".")
            if parts[0] == "reasonembed" and len(parts) > 1:
                found.add(parts[1])
    return found


def test_nothing_in_the_package_unpickles_or_evaluates() -> None:
    """Law 8, S2: no pickle, no eval, no exec, no allow_pickle, no torch.load."""
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
                assert not {"pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal"}.intersection(names), path
            if isinstance(node, ast.Call):
                assert not (isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec")), path
                assert not any(keyword.arg == "allow_pickle" and _is_true(keyword.value) for keyword in node.keywords)
                if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
                    assert (node.func.value.id, node.func.attr) != ("torch", "load"), path


def test_whoever_expects_broken_json_expects_it_nested_without_end_too() -> None:
    """S6: msgspec's decoder raises RecursionError on that, which is no DecodeError."""
    expecting = 0
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if "DecodeError" in (caught := _caught(node)):
                expecting += 1
                assert "RecursionError" in caught, f"{path}: {caught}"
    assert expecting > 5, "the names are still spelled so"


def _caught(node: ast.AST) -> list[str]:
    """The names of the exceptions that an `except` catches; those of several are in a tuple."""
    if not isinstance(node, ast.ExceptHandler) or node.type is None:
        return []
    kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    return [kind.attr if isinstance(kind, ast.Attribute) else getattr(kind, "id", "") for kind in kinds]


def _is_true(value: ast.expr) -> bool:
    return not (isinstance(value, ast.Constant) and value.value is False)
