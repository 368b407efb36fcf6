"""TrainConfig: settings from TOML, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from supernet.errors import InvalidConfigError
from supernet.spaces.presets import find_space
from supernet.training.config import TrainConfig, load_config
from supernet.training.methods.registry import SETTINGS, build_method


def load(tmp_path: Path, text: str | bytes) -> TrainConfig:
    path = tmp_path / "run.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_config(path)


def test_settings_are_read_and_the_rest_have_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, 'space = "cifar_mbv3"\nepochs = 3\nlearning_rate = 1\n')
    assert (config.space, config.epochs, config.learning_rate) == ("cifar_mbv3", 3, 1)
    assert config == TrainConfig("cifar_mbv3", epochs=3, learning_rate=1.0)
    assert config.to_dict()["rss"] == {"steps_per_subnet": 1, "subnets_per_step": 1, "level": "block"}
    assert TrainConfig.from_dict(config.to_dict()) == config


def test_every_method_has_an_example_that_can_be_read() -> None:
    folder = Path(__file__).parents[4] / "examples" / "train"
    assert {path.stem for path in folder.glob("*.toml")} == set(SETTINGS)
    for path in folder.glob("*.toml"):
        config = load_config(path)
        assert config.method == path.stem
        build_method(config, find_space(config.space))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("lr = 0.1", r"Unknown keys \['lr'\]; allowed are .* and the table \[rss\]"),
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
        ('method = "ps"', r"'method' must be one of \['rss', 'progressive_shrinking', .*, got 'ps'"),
        ("method = 1", "'method' must be one of .*, got 1"),
        ("method = []", "'method' must be one of"),
        ("[optimizer]\nmomentum = 0.9", r"Unknown keys \['optimizer'\]"),
        ("[us_nets]\nwidth_min = 0.5", r"Unknown keys \['us_nets'\]"),
        ("rss = 3", "'rss' must be a table"),
        ("[rss]\nlevels = 3", r"Unknown keys \['levels'\] in \[rss\]; allowed are"),
        ('[rss]\nlevel = "layer"', "'rss.level' must be one of"),
        ("[rss]\nsubnets_per_step = 1.5", "'rss.subnets_per_step' must be a int"),
        ("[rss]\nsubnets_per_step = 0", "at least 1"),
        ("accumulate = 0", "'accumulate' must be from 1"),
        ('precision = "fp8"', "'precision' must be one of"),
        ("ema = 1.0", "'ema' must be from 0"),
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
    with pytest.raises(InvalidConfigError, match="key 'space' is needed"):
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('method = "us_nets"\n[us_nets]\nwidths = 0.5', "'us_nets.widths' must be a list of float"),
        ('method = "us_nets"\n[us_nets]\nwidths = [1.0, 0.5]', "must ascend to 1"),
        ('method = "us_nets"\n[us_nets]\nsubnets_per_step = 1', "at least 2"),
        ('method = "us_nets"\n[us_nets]\ndistil = 1', "'us_nets.distil' must be a bool"),
        ('method = "pss_net"\n[pss_net]\nexplore = [1.0]', "at the beginning and at the end"),
        ('method = "pss_net"\n[pss_net]\nbins = 2', "'pss_net.bins' must be from 3"),
        ('method = "netaug"\n[netaug]\nalpha = -1', "'netaug.alpha' must be from 0"),
        (
            'method = "progressive_shrinking"\n[progressive_shrinking]\nkd_ratio = -1',
            "'progressive_shrinking.kd_ratio'",
        ),
    ],
)
def test_wrong_settings_of_a_method_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        load(tmp_path, f'space = "cifar_mbv3"\n{text}\n')


def test_settings_of_every_method_survive_the_way_through_json(tmp_path: Path) -> None:
    for method in SETTINGS:
        config = load(tmp_path, f'space = "cifar_mbv3"\nmethod = "{method}"\n')
        assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
