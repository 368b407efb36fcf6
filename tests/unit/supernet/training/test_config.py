"""TrainConfig: settings from TOML, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from supernet.errors import InvalidConfigError
from supernet.spaces.presets import find_space
from supernet.training.config import TrainConfig, load_config


def load(tmp_path: Path, text: str | bytes) -> TrainConfig:
    path = tmp_path / "run.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_config(path)


def test_settings_are_read_and_the_rest_have_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, 'space = "cifar_mbv3"\nepochs = 3\nlearning_rate = 1\n')
    assert (config.space, config.epochs, config.learning_rate) == ("cifar_mbv3", 3, 1)
    assert config == TrainConfig("cifar_mbv3", epochs=3, learning_rate=1.0)
    assert TrainConfig(**config.to_dict()) == config


def test_the_shipped_example_can_be_read() -> None:
    example = Path(__file__).parents[4] / "examples" / "train" / "rss.toml"
    assert load_config(example).method == "rss"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("lr = 0.1", r"unknown keys \['lr'\]; allowed are"),
        ("epochs = 2.0", "'epochs' must be a int, got 2.0"),
        ("epochs = true", "'epochs' must be a int, got True"),
        ('epochs = "3"', "'epochs' must be a int, got '3'"),
        ("epochs = [3]", "'epochs' must be a int"),
        ("learning_rate = true", "'learning_rate' must be a float, got True"),
        ('learning_rate = "fast"', "'learning_rate' must be a float"),
        ("learning_rate = nan", "'learning_rate' must be from 0 to 100, got nan"),
        ("learning_rate = inf", "'learning_rate' must be from 0 to 100, got inf"),
        ("learning_rate = -0.1", "'learning_rate' must be from 0"),
        ("learning_rate = 1" + "0" * 400, "'learning_rate' must be from 0"),
        ("epochs = 1" + "0" * 400, "'epochs' must be from 1"),
        ("epochs = 1" + "0" * 5000, "cannot be read as TOML"),
        ("epochs = 0", "'epochs' must be from 1"),
        ("batch_size = 1", "'batch_size' must be from 2"),
        ("warmup_epochs = 31", "'warmup_epochs' must be from 0 to 30"),
        ("warmup_epochs = 3\nlevel_epochs = 27.5", "'level_epochs' must be from 0 to 27, got 27.5"),
        ("momentum = 1.0", "'momentum' must be from"),
        ("weight_decay = -1e-4", "'weight_decay' must be from"),
        ("label_smoothing = 1.0", "'label_smoothing' must be from"),
        ("gradient_clip = 0", "'gradient_clip' must be from"),
        ("validation_images = 0", "'validation_images' must be from 1"),
        ("seed = -1", "'seed' must be from 0"),
        ('method = "ps"', r"'method' must be one of \['rss'\], got 'ps'"),
        ("method = 1", "'method' must be a str"),
        ("[optimizer]\nmomentum = 0.9", r"unknown keys \['optimizer'\]"),
        ("epochs = 3\nepochs = 4", "cannot be read as TOML"),
        ("epochs =", "cannot be read as TOML"),
    ],
)
def test_wrong_settings_are_refused_with_what_is_allowed(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        load(tmp_path, f'space = "cifar_mbv3"\n{line}\n')


def test_an_unknown_space_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidConfigError, match=r"'space': No search space 'mbv3'\. Name a file that ends .* or one of: cifar_mbv3"
    ):
        load(tmp_path, 'space = "mbv3"')
    with pytest.raises(InvalidConfigError, match="'space' must be a str"):
        load(tmp_path, "space = 3")
    with pytest.raises(InvalidConfigError, match="needs the key 'space'"):
        load(tmp_path, "epochs = 3")


def test_files_that_are_no_toml_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match=r"run\.toml' cannot be read as TOML"):
        load(tmp_path, b"\xff\xfe\x00")
    with pytest.raises(InvalidConfigError, match="nowhere"):
        load_config(tmp_path / "nowhere.toml")
    with pytest.raises(InvalidConfigError, match="cannot be read as TOML"):
        load_config(tmp_path)


def test_a_users_own_space_is_found_beside_the_config(tmp_path: Path) -> None:
    space = replace(find_space("cifar_mbv3"), name="mine", resolutions=(16,))
    (tmp_path / "mine.json").write_text(json.dumps(space.to_dict()), encoding="utf-8")
    (tmp_path / "train.toml").write_text('space = "mine.json"\n', encoding="utf-8")
    assert find_space(load_config(tmp_path / "train.toml").space) == space
