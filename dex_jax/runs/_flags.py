"""The command line of a training: flags from the environment, names of settings."""

import difflib

from dex_jax.runs._settings import Config, setting_names


def add_flags(own: list[str], more: list[str]) -> list[str]:
    """Puts `--config FILE` first, then more flags, then the command's own, which win.

    Settings are known only behind their file; of two files the command's own counts.
    """
    config, own = _take_config(own)
    other, more = _take_config(more)
    return [*(config or other), *more, *own]


def _take_config(words: list[str]) -> tuple[list[str], list[str]]:
    """Splits flags into those of the config's file and the others."""
    for place, word in enumerate(words):
        name, separator, _ = word.lstrip("-").partition("=")
        if word.startswith("-") and name == "config":
            end = place + 1 if separator else place + 2
            return words[place:end], [*words[:place], *words[end:]]
    return [], words


def near_settings(name: str, config: Config) -> list[str]:
    """Settings of a config whose last word is like `name`, the likest first.

    Example:
        >>> from ml_collections import ConfigDict
        >>> near_settings("lr_rate", ConfigDict({"optimizer": {"l_rate": 1.0}}))
        ['config.optimizer.l_rate']
    """
    leaves = {known.rpartition(".")[2]: known for known in setting_names(config)}
    return [leaves[word] for word in difflib.get_close_matches(name, leaves)]
