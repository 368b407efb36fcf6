"""Methods by name: the settings each has, and how it is made from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supernet.errors import InvalidArchError, InvalidConfigError
from supernet.spaces.arch import find_arch
from supernet.training.methods.fine_tuning import FineTuning, FineTuningSettings
from supernet.training.methods.netaug import NetAug, NetAugSettings
from supernet.training.methods.progressive_shrinking import ProgressiveShrinking, ProgressiveShrinkingSettings
from supernet.training.methods.pss_net import PssNet, PssNetSettings
from supernet.training.methods.rss import RandomSubnetSampling, RssSettings
from supernet.training.methods.us_nets import UsNets, UsNetsSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from supernet.spaces.arch import Arch
    from supernet.spaces.costs import AdditiveCost
    from supernet.spaces.space import SearchSpace
    from supernet.training.config import TrainConfig
    from supernet.training.method import Method

SETTINGS: dict[str, type[Any]] = {
    "rss": RssSettings,
    "progressive_shrinking": ProgressiveShrinkingSettings,
    "us_nets": UsNetsSettings,
    "pss_net": PssNetSettings,
    "netaug": NetAugSettings,
    "fine_tuning": FineTuningSettings,
}


def build_method(
    config: TrainConfig, space: SearchSpace, *, resources: Mapping[str, AdditiveCost] | None = None
) -> Method:
    """The method a config names.

    Args:
        config: Of the run.
        space: With the number of classes in use.
        resources: Costs that PSS-Net's pools are measured by; MACs by default.

    Raises:
        InvalidConfigError: The settings do not fit the space or the length of the run.
    """
    return _BUILDERS[config.method](config, space, resources or {})


def read_target(space: SearchSpace, target: str) -> Arch:
    """The arch a method of one network is to train.

    Args:
        space: That it belongs to.
        target: `smallest`, `largest`, or the JSON file of an arch or of a search's answer.

    Raises:
        InvalidConfigError: It is none of these.
    """
    try:
        return find_arch(space, target)
    except InvalidArchError as error:
        raise InvalidConfigError(f"'target': {error}") from error


_BUILDERS: dict[str, Callable[[TrainConfig, SearchSpace, Mapping[str, AdditiveCost]], Method]] = {
    "rss": lambda config, space, _: RandomSubnetSampling(space, config.epochs, config.settings),
    "progressive_shrinking": lambda config, space, _: ProgressiveShrinking(space, config.epochs, config.settings),
    "us_nets": lambda config, space, _: UsNets(space, config.epochs, config.settings),
    "pss_net": lambda config, space, resources: PssNet(
        space, config.epochs, config.settings, resources=resources, seed=config.seed
    ),
    "netaug": lambda config, space, _: NetAug(
        space, read_target(space, config.settings.target), config.epochs, config.settings
    ),
    "fine_tuning": lambda config, space, _: FineTuning(
        space, read_target(space, config.settings.target), config.epochs, config.settings
    ),
}
