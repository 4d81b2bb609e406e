"""Flags of the environment beside a command's own; settings that are misspelled."""

from configs import common
from dex_jax import runs


def test_flags_of_the_environment_come_before_the_commands_own():
    more, own = ["--config.seed=1"], ["--workdir=a", "--config.seed=2"]
    for config in (["--config=a.py"], ["--config", "a.py"], ["-config", "a.py"]):
        expected = [*config, *more, *own]
        assert runs.add_flags([*config, *own], more) == expected
        assert runs.add_flags([*own, *config], more) == expected
        assert runs.add_flags([own[0], *config, own[1]], more) == expected
        # A file in the environment serves a command without one.
        assert runs.add_flags(own, [*more, *config]) == expected
        other = ["--config", "b.py"]
        assert runs.add_flags([*config, *own], [*other, *more]) == expected
        assert runs.add_flags([*own, *config], []) == [*config, *own]
    assert runs.add_flags(["--config.seed=2"], more) == [*more, "--config.seed=2"]
    assert runs.add_flags(["--config"], more) == ["--config", *more]


def test_a_misspelled_setting_is_named_with_what_is_like_it():
    config = common.get_config()
    near = runs.near_settings("learning_rat", config)
    assert near[0] == "config.optimizer.learning_rate"
    assert runs.near_settings("zzzz", config) == []
