"""What a number on the command line or in a config may be, where a wrong one would be noticed late or not at all."""

from typing import Any

# The least that a key may be, by how it ends; the longest that fits decides.
AT_LEAST = {
    "batch_size": 1, "eval_batch_size": 1, "sample_batch_size": 1, "num_workers": 0, "num_filters": 1, "num_layers": 1,
    "num_train": 1, "num_test": 1, "num_agreement": 1, "num_images": 1, "num_draws": 1, "num_samples": 1,
    "num_queries": 1, "num_candidates": 1, "sample_grid.num_images": 0, "sample_grid.every_n_steps": 1, "patience": 1,
    "trainer.log_every_n_steps": 1,
}  # fmt: skip
ABOVE_ZERO = (
    "trainer.val_check_interval", "trainer.limit_train_batches", "trainer.limit_val_batches",
    "trainer.limit_test_batches", "trainer.limit_predict_batches",
)  # fmt: skip


def check_arguments(settings: Any) -> None:
    """Raises ValueError, naming the key, its value and the remedy.

    Args:
        settings: Of a verb, a jsonargparse Namespace.
    """
    for key, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        ends = [end for end in AT_LEAST if f".{key}".endswith(f".{end}")]
        least = AT_LEAST[max(ends, key=len)] if ends else None
        if least is not None and value < least:
            raise ValueError(f"{key} is {value}; give at least {least}")
        if key in ABOVE_ZERO and value <= 0:
            raise ValueError(f"{key} is {value:g}, so that there would be nothing to do; give more than 0")
    trainer = settings.trainer
    if trainer.max_steps == 0 or trainer.max_epochs == 0 or (trainer.max_steps < 0 and (trainer.max_epochs or -1) < 0):
        raise ValueError(f"trainer.max_steps is {trainer.max_steps}; give the number of steps after which to end")
    if trainer.accumulate_grad_batches != 1:
        raise ValueError(
            f"trainer.accumulate_grad_batches is {trainer.accumulate_grad_batches}; data.batch_size is the whole batch "
            f"of a step: give its size there"
        )
