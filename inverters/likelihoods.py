"""The likelihoods of one pixel: a 256-way softmax, or a mixture of discretised logistics."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveInt
from torch import Tensor

TINY = 1e-30  # of which 1 - exp(-w) is w to the last bit, and 1 / w is a float32


class Likelihood(ABC):
    """p(pixel | parameters), over the channels of one pixel together. All arithmetic is in float32 or wider.

    Attributes:
        step: The values are 0, step, 2 step, ... below 256.
    """

    step = 1

    @abstractmethod
    def num_parameters(self, channels: int) -> int:
        """P, the parameters that a pixel of this many channels takes. ValueError if it cannot model them."""

    @abstractmethod
    def num_uniforms(self, channels: int) -> int:
        """U, the uniform random numbers that one draw of a pixel takes."""

    @abstractmethod
    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """log p of every pixel of uint8 x [B, C, H, W] under params [B, P, H, W]: [B, H, W] nats."""

    @abstractmethod
    def noise(self, uniforms: Tensor) -> Tensor:
        """The noise that `sample` takes, from uniforms in (0, 1): both [B, U, H, W]."""

    @abstractmethod
    def sample(self, params: Tensor, noise: Tensor, channels: int) -> Tensor:
        """Draw uint8 [B, C, H, W] on the 8-bit grid, from params [B, P, H, W] and noise [B, U, H, W]."""

    @abstractmethod
    def level_probs(self, params: Tensor, before: Tensor, channels: int) -> Tensor:
        """p of every level of the next channel of one pixel, given those before it.

        Their product over channels is the p of `log_prob`, in float64.

        Args:
            params: [B, P].
            before: The values of the channels before it, uint8 [B, c].
            channels: C.

        Returns:
            float64 [B, L].
        """


def _wide(params: Tensor) -> Tensor:
    """float32 at least: in bfloat16 level 255 rounds away."""
    return params if params.dtype == torch.float64 else params.float()


class Categorical(Likelihood):
    """A softmax over the values of a one-channel pixel (van den Oord et al. 2016).

    Args:
        num_levels: L. The values are 0, s, 2s, ... with s = 256 / L; any other value has probability zero.
    """

    def __init__(self, num_levels: int = 256) -> None:
        if num_levels < 2 or 256 % num_levels:
            raise ValueError(f"num_levels {num_levels} does not divide 256; use 2, 4, 8, ... or 256")
        self.num_levels = num_levels
        self.step = 256 // num_levels

    def num_parameters(self, channels: int) -> int:
        if channels != 1:
            raise ValueError(f"Categorical models one channel, not {channels}; use LogisticMixture")
        return self.num_levels

    def num_uniforms(self, channels: int) -> int:
        return 1

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        params, level = _wide(params), x[:, 0].long()
        index = level // self.step
        if torch.is_grad_enabled():
            log_prob = -F.cross_entropy(params, index, reduction="none")
        else:
            # What is reported. cross_entropy adds exponentials to the largest, which is 1, in float32: where a pixel is
            # nearly certain the others round away, and log p of a digit comes out 3e-4 to 6e-4 nats too high.
            top, at = params.max(dim=1, keepdim=True)
            others = (params - top).exp().scatter(1, at, 0).sum(dim=1)
            log_prob = (params.gather(1, index[:, None]) - top)[:, 0] - others.log1p()
        return torch.where(level % self.step == 0, log_prob, -torch.inf)

    def noise(self, uniforms: Tensor) -> Tensor:
        return uniforms.double()

    def sample(self, params: Tensor, noise: Tensor, channels: int) -> Tensor:
        """The first level whose cumulative probability exceeds the noise.

        Probabilities are counted in units of 2^-40, so that their sums are exact, in whatever order a GPU adds them.
        The noise is a share of their total and has 24 bits: no level is drawn that has none, and none beyond the last.
        """
        mass = (_wide(params).movedim(1, -1).softmax(dim=-1) * 2.0**40).cumsum(dim=-1, dtype=torch.long)  # [B, H, W, L]
        below = (mass[..., -1:] * noise.movedim(1, -1)).long()  # [B, H, W, 1]
        level = torch.searchsorted(mass, below, right=True)
        return (level * self.step).to(torch.uint8).movedim(-1, 1)

    def level_probs(self, params: Tensor, before: Tensor, channels: int) -> Tensor:
        return params.double().softmax(dim=1)


class LogisticMixture(Likelihood):
    """A mixture of discretised logistics (Salimans et al. 2017, eq. 1-3), channels coupled linearly.

    The mean of a channel is shifted by multiples, in (-1, 1), of the true values of the channels before it (red,
    green, blue). Values lie on [-1, 1]. A pixel's parameters are, K of each: mixture logits; then for each channel
    means; for each channel log-scales; for each pair of channels (green on red, blue on red, blue on green)
    coefficients before their tanh.

    Args:
        num_components: K.
        log_scale_floor: The smallest log-scale. At -7 no interior value can exceed p = 0.973.

    Raises:
        ValueError: The smallest log-scale is not between -40, where float32 ends, and 5, where a logistic is flat.
    """

    def __init__(self, num_components: PositiveInt = 10, log_scale_floor: float = -7.0) -> None:
        if not -40 <= log_scale_floor <= 5:
            raise ValueError(
                f"log_scale_floor is {log_scale_floor:g}; give -40 to 5, the log of a share of half the range"
            )
        self.num_components = num_components
        self.log_scale_floor = log_scale_floor

    def num_parameters(self, channels: int) -> int:
        return self.num_components * (1 + 2 * channels + channels * (channels - 1) // 2)

    def num_uniforms(self, channels: int) -> int:
        return self.num_components + channels

    def _split(self, params: Tensor, channels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mixture logits [B, K, H, W]; means and log-scales [B, C, K, H, W]; coefficients [B, pairs, K, H, W].

        Of all components, or of so many as there are in params.
        """
        pairs = channels * (channels - 1) // 2
        params = _wide(params).unflatten(1, (1 + 2 * channels + pairs, -1))  # [B, groups, K, H, W]
        logits, means, log_scales, coefficients = params.split((1, channels, channels, pairs), dim=1)
        return logits[:, 0], means, log_scales.clamp(min=self.log_scale_floor), coefficients.tanh()

    @staticmethod
    def _mean(channel: int, means: Tensor, coefficients: Tensor, value: Sequence[Tensor]) -> Tensor:
        """The mean of one channel given the values of those before it, [B, K, H, W]."""
        mean = means[:, channel]
        first = channel * (channel - 1) // 2
        for i in range(channel):
            mean = mean + coefficients[:, first + i] * value[i]
        return mean

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        channels, level = x.shape[1], x[:, :, None]  # [B, C, 1, H, W]
        logits, means, log_scales, coefficients = self._split(params, channels)
        value = level.to(means.dtype) / 127.5 - 1
        means = torch.stack([self._mean(c, means, coefficients, value.unbind(1)) for c in range(channels)], dim=1)
        of_channels = self._log_prob_of_components(level, value - means, log_scales)  # [B, C, K, H, W]
        log_prob = logits.log_softmax(dim=1) + of_channels.sum(dim=1)  # [B, K, H, W]
        return log_prob.logsumexp(dim=1)

    @staticmethod
    def _log_prob_of_components(level: Tensor, centred: Tensor, log_scales: Tensor) -> Tensor:
        """log p of levels under each component, from its value less the mean and the log-scale, all [..., K, H, W]."""
        inverse_scale = torch.exp(-log_scales)
        upper = (centred + 1 / 255) * inverse_scale
        lower = (centred - 1 / 255) * inverse_scale
        width = 2 / 255 * inverse_scale  # upper - lower, without cancellation
        # log(sigma(u) - sigma(l)) = log sigma(u) + log sigma(-l) + log(1 - exp(l - u)): exact, no clamp. The last is
        # log(u - l) where that is tiny: it underflows at log-scales of 86 and more. All branches are finite, or
        # torch.where would give NaN gradients.
        log_upper = F.logsigmoid(upper)
        log_lower = F.logsigmoid(-lower)
        log_width = torch.where(
            width > TINY, torch.log(-torch.expm1(-width.clamp(min=TINY))), math.log(2 / 255) - log_scales
        )
        interior = log_upper + log_lower + log_width
        return torch.where(level == 0, log_upper, torch.where(level == 255, log_lower, interior))

    def noise(self, uniforms: Tensor) -> Tensor:
        first, second = uniforms.split((self.num_components, uniforms.shape[1] - self.num_components), dim=1)
        gumbel = -torch.log(-torch.log(first))  # argmax(logits + gumbel) is a draw from softmax(logits)
        return torch.cat((gumbel, torch.logit(second)), dim=1)

    def sample(self, params: Tensor, noise: Tensor, channels: int) -> Tensor:
        gumbel, logistic = noise.split((self.num_components, channels), dim=1)
        groups = _wide(params).unflatten(1, (-1, self.num_components))  # [B, groups, K, H, W]
        chosen = (groups[:, 0] + gumbel).argmax(dim=1)[:, None, None]
        of_chosen = groups.gather(2, chosen.expand(-1, groups.shape[1], -1, -1, -1))  # [B, groups, 1, H, W]
        _, means, log_scales, coefficients = self._split(of_chosen[:, :, 0], channels)
        # Beyond 80, infinity times 0 could be drawn.
        deviations = log_scales.clamp(max=80).exp() * logistic[:, :, None]  # [B, C, 1, H, W], as the means
        levels: list[Tensor] = []
        value: list[Tensor] = []
        for c in range(channels):
            drawn = self._mean(c, means, coefficients, value) + deviations[:, c]
            # A level's cell is half a level to each side; the tails belong to 0 and 255.
            level = ((drawn + 1) * 127.5).round().clamp(0, 255)
            levels.append(level)
            value.append(level / 127.5 - 1)
        return torch.cat(levels, dim=1).to(torch.uint8)

    def level_probs(self, params: Tensor, before: Tensor, channels: int) -> Tensor:
        channel = before.shape[1]
        logits, means, log_scales, coefficients = self._split(params.double()[:, :, None, None], channels)
        level = before[:, :, None, None, None]  # [B, c, 1, 1, 1]
        value = (level.double() / 127.5 - 1).unbind(1)
        for c in range(channel):  # which tell the component
            centred = value[c] - self._mean(c, means, coefficients, value)
            logits = logits + self._log_prob_of_components(level[:, c], centred, log_scales[:, c])
        mean = self._mean(channel, means, coefficients, value)[:, :, 0]  # [B, K, 1]
        inner = (torch.arange(255, device=params.device).double() + 0.5) / 127.5 - 1  # between two levels
        below = torch.sigmoid((inner - mean) * torch.exp(-log_scales[:, channel, :, 0]))  # [B, K, 255]
        below = (logits[:, :, :, 0].softmax(dim=1) * below).sum(dim=1)
        return F.pad(F.pad(below, (1, 0)), (0, 1), value=1.0).diff().clamp(min=0)  # rounding
