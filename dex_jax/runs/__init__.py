"""A run and its folder: the only subpackage that reads the fields of a config."""

from dex_jax._checks import missing_extra, plain_text

try:
    from dex_jax.runs._build import (
        build_step,
        build_training,
        keep_compiled_programs,
        load_data,
        load_scored_data,
        load_training_data,
        pretrained_file,
    )
    from dex_jax.runs._checkpoints import (
        BEST,
        LAST,
        CheckpointError,
        Checkpoints,
        checksum,
    )
    from dex_jax.runs._flags import add_flags, near_settings
    from dex_jax.runs._folder import (
        CLASSES,
        CONFIG,
        RunError,
        check_config,
        load_config,
        lock,
        newest_run,
        save_classes,
        save_config,
    )
    from dex_jax.runs._job import (
        NO_BEST,
        Job,
        best_of,
        build_job,
        estimate,
        farewell,
        record_step,
    )
    from dex_jax.runs._journal import TRAIN, VALIDATION, Journal, clock
    from dex_jax.runs._load import Run, load_run
    from dex_jax.runs._memory import freed_memory_kept, keep_step_memory
    from dex_jax.runs._protocols import (
        PROTOCOLS,
        check_scorable,
        load_protocols,
        save_protocols,
    )
    from dex_jax.runs._settings import Config, check_settings, setting_names
    from dex_jax.runs._signals import stop_requests
except ModuleNotFoundError as error:
    raise missing_extra(error, "train") from None

__all__ = [
    "BEST",
    "CLASSES",
    "CONFIG",
    "LAST",
    "NO_BEST",
    "PROTOCOLS",
    "TRAIN",
    "VALIDATION",
    "CheckpointError",
    "Checkpoints",
    "Config",
    "Job",
    "Journal",
    "Run",
    "RunError",
    "add_flags",
    "best_of",
    "build_job",
    "build_step",
    "build_training",
    "check_config",
    "check_scorable",
    "check_settings",
    "checksum",
    "clock",
    "estimate",
    "farewell",
    "freed_memory_kept",
    "keep_compiled_programs",
    "keep_step_memory",
    "load_config",
    "load_data",
    "load_protocols",
    "load_run",
    "load_scored_data",
    "load_training_data",
    "lock",
    "near_settings",
    "newest_run",
    "plain_text",
    "pretrained_file",
    "record_step",
    "save_classes",
    "save_config",
    "save_protocols",
    "setting_names",
    "stop_requests",
]
