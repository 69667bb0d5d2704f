from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from reasonembed.config import build, load_toml, overlay_toml, override
from reasonembed.errors import ConfigError, InputError


class Loss(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    temperature: float = 0.02
    kappa: float = 5.0

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature!r}; it must be above 0.")


class Training(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    seed: int = 0
    loss: Loss = Loss()


def written(folder: Path, text: str) -> Path:
    (folder / "run.toml").write_text(text)
    return folder / "run.toml"


def test_a_toml_file_becomes_a_config_with_its_defaults(tmp_path: Path) -> None:
    config = load_toml(written(tmp_path, "seed = 3\n[loss]\nkappa = 2.5\n"), Training)
    assert config == Training(seed=3, loss=Loss(temperature=0.02, kappa=2.5))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "sede = 3\n",
            r'run\.toml, line 1: unknown key "sede"; did you mean "seed"\? Known keys: seed, loss',
        ),
        (
            "seed = 3\n[loss]\ntemprature = 1.0\n",
            r'run\.toml, line 3: unknown key "temprature" in \[loss\]; did you mean',
        ),
        (
            "[loss]\n\ntemperature = 'hot'\n",
            r'run\.toml, line 3: "loss.temperature": Expected `float`, got `str`',
        ),
        ("[loss]\ntemperature = 0.0\n", r"run\.toml.*temperature is 0\.0; it must be above 0"),
        ("seed = 1\nseed = 2\n", r"run\.toml: not valid TOML: .*line 2"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_key(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(ConfigError, match=found):
        load_toml(written(tmp_path, text), Training)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        load_toml(tmp_path / "nowhere.toml", Training)
    (tmp_path / "latin.toml").write_bytes(b'name = "caf\xe9"')
    with pytest.raises(InputError, match=r"latin\.toml: not valid UTF-8 \(byte 11\)"):
        load_toml(tmp_path / "latin.toml", Training)


def test_flags_override_and_none_leaves_alone() -> None:
    config = Training(seed=3, loss=Loss(kappa=2.0))
    assert override(config, {"loss.temperature": 0.1, "seed": None}) == Training(3, Loss(0.1, 2.0))
    assert override(config, {}) == config


def test_a_file_over_a_config_replaces_its_keys_table_by_table(tmp_path: Path) -> None:
    config = Training(seed=3, loss=Loss(kappa=2.0))
    assert overlay_toml(written(tmp_path, "[loss]\ntemperature = 0.1\n"), config) == Training(3, Loss(0.1, 2.0))
    with pytest.raises(ConfigError, match=r'run\.toml, line 2: unknown key "kapa" in \[loss\]; did you mean "kappa"'):
        overlay_toml(written(tmp_path, "[loss]\nkapa = 1.0\n"), config)
    with pytest.raises(ConfigError, match=r"run\.toml.*temperature is 0\.0; it must be above 0"):
        overlay_toml(written(tmp_path, "loss = { temperature = 0.0 }\n"), config)


def test_an_overriding_value_is_checked_like_any_other() -> None:
    with pytest.raises(ConfigError, match=r"flags.*temperature is -1\.0; it must be above 0"):
        override(Training(), {"loss.temperature": -1.0})
    with pytest.raises(ConfigError, match=r'flags: "seed": Expected `int`, got `str`'):
        override(Training(), {"seed": "three"})
    with pytest.raises(ConfigError, match=r'where: unknown key "x"\. Known keys: seed, loss\.'):
        build(Training, {"x": 1}, where="where")
