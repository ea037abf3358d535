"""Worlds of known information, on which other estimators can be tried: x, h, log p(x | h) and I(x; h) from Python."""

import typing

if typing.TYPE_CHECKING:
    from commands.worlds import World


def world(name: str, layer: str | None = None, **arguments: typing.Any) -> "World":
    """A world of known information, as its config world_NAME has it: its data, its network and its layer.

    No trainer is begun and nothing is trained. All draws are functions of (split, seed, position).

        world = inverters.worlds.world("pairs", information=20)
        x, h, log_prob, information = world.draw(1000, seed=0)
        x, h, log_prob, information = world.draw(1000, seed=0, split="test")   # to test an estimator

    Args:
        name: One of `names()`, as "pairs" or "digit_channel".
        layer: Another layer of its network than the config's, as "vector" of pairs.
        arguments: Of its data, as `information` of pairs and `bits` of digit_channel; otherwise the config's.

    Returns:
        What draws: `draw` gives x uint8 [N, 1, H, W], h [N, ...], log p(x | h) float64 [N] nats and I(x; h) nats;
        `information` and `entropy`, H(x), are there without a draw.

    Raises:
        ValueError: There is no such world, layer or argument.
    """
    from commands.worlds import load_world  # upwards, as `inverters.load`: only there are configs known

    return load_world(name, layer, arguments)


def names() -> list[str]:
    """Of all worlds; the negative control, whose h is that of another image in its test only, is none."""
    from commands.worlds import world_names

    return world_names()
