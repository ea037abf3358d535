"""What a number on the command line or in a config may be, where a wrong one would be noticed late or not at all."""

from typing import Any

from callbacks.distances import NUM_SHOWN

# The least that a key may be, by how it ends; the longest that fits decides.
AT_LEAST = {
    "batch_size": 1, "eval_batch_size": 1, "sample_batch_size": 1, "num_workers": 0, "num_filters": 1, "num_layers": 1,
    "num_train": 1, "num_test": 1, "num_agreement": 1, "num_images": 1, "num_draws": 1, "num_samples": 1,
    "num_queries": 1, "num_candidates": NUM_SHOWN, "sample_grid.num_images": 0, "sample_grid.every_n_steps": 1,
    "patience": 1, "trainer.log_every_n_steps": 1,
}  # fmt: skip
# What must be more than 0, for a verb to have something to do.
ABOVE_ZERO = {
    "fit": ("val_check_interval", "limit_train_batches", "limit_val_batches", "limit_test_batches"),
    "validate": ("limit_val_batches",), "test": ("limit_test_batches",), "predict": ("limit_predict_batches",),
}  # fmt: skip


def check_arguments(verb: str, settings: Any) -> None:
    """Raises ValueError, naming the key, its value and the remedy.

    Args:
        verb: As fit.
        settings: Its own, a jsonargparse Namespace.
    """
    for key, value in settings.items():
        ends = [end for end in AT_LEAST if f".{key}".endswith(f".{end}")]
        if ends and isinstance(value, int) and value < (least := AT_LEAST[max(ends, key=len)]):
            raise ValueError(f"{key} is {value}; give at least {least}")
    trainer = settings.trainer
    for key in ABOVE_ZERO.get(verb, ()):
        value = trainer[key]
        if value is not None and value <= 0:
            raise ValueError(f"trainer.{key} is {value:g}, so that there would be nothing to do; give more than 0")
    if verb != "fit":
        return
    if trainer.max_steps == 0 or trainer.max_epochs == 0 or (trainer.max_steps < 0 and (trainer.max_epochs or -1) < 0):
        raise ValueError(
            f"trainer.max_steps is {trainer.max_steps}; give the number of steps after which to end at the latest"
        )
    if trainer.accumulate_grad_batches != 1:
        raise ValueError(
            f"trainer.accumulate_grad_batches is {trainer.accumulate_grad_batches}; data.batch_size is the whole batch "
            f"of a step: give its size there"
        )
