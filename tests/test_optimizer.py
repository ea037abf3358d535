"""Muon and the cooldown against torch's own, a singular value decomposition and formulas."""

import copy

import pytest
import torch
from torch import nn

from inverters import Inverter, MSEDecoder, PixelCNN
from inverters.optimizer import AdamAndMuon, Cooldown, orthogonal
from runtime.optimizer_state import Configured


@pytest.mark.parametrize("shape", [(8, 30), (30, 8), (16, 16)])
def test_orthogonal_keeps_singular_vectors_and_levels_values(shape):
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape, dtype=torch.float64)
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    values = u.mT @ orthogonal(matrices) @ vh.mT  # diagonal, if the vectors are the same
    diagonal = values.diagonal(dim1=1, dim2=2)
    assert (values - torch.diag_embed(diagonal)).abs().max() < 1e-10
    assert diagonal.min() > 0.5
    assert diagonal.max() < 1.3
    assert torch.equal(orthogonal(torch.zeros(1, *shape)), torch.zeros(1, *shape))


def test_singular_values_far_below_the_norm_grow_by_a_factor_and_are_not_levelled():
    torch.manual_seed(0)
    u, v = (torch.linalg.qr(torch.randn(n, 40, dtype=torch.float64)).Q for n in (40, 60))
    values = 10.0 ** -torch.linspace(0, 6, 40, dtype=torch.float64)  # geometric
    values /= values.norm()
    found = (u.T @ orthogonal((u * values @ v.T)[None])[0] @ v).diagonal()
    large = values > 2e-3
    assert 0.65 < found[large].min() < found[large].max() < 1.25
    assert found[values < 5e-4].max() < 0.25
    assert (found / values).max() < 3.4445**5
    torch.testing.assert_close(found[-9:], 3.4445**5 * values[-9:], rtol=1e-3, atol=0)


def steps_of(optimizer, weights, num_steps=4, seed=1):
    """The weights after each step with random gradients."""
    generator, after = torch.Generator().manual_seed(seed), []
    for _ in range(num_steps):
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator).to(weight.dtype)
        optimizer.step()
        after.append([weight.detach().clone() for weight in weights])
    return after


def test_the_direction_of_a_step_is_that_of_torchs_muon():
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(12, 5, 2, 3))
    theirs = nn.Parameter(ours.detach().flatten(1).clone())
    mine = AdamAndMuon([nn.Parameter(torch.zeros(1))], [(ours, 1.0)], share=1e-3, lr=0.0)
    other = torch.optim.Muon([theirs], lr=1e-3, weight_decay=0.0, momentum=0.95, nesterov=True)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        gradient = torch.randn(12, 30, generator=generator)
        ours.grad, theirs.grad = gradient.view(12, 5, 2, 3).clone(), gradient.clone()
        before = ours.detach().flatten(1).clone(), theirs.detach().clone()
        mine.step()
        other.step()
        moves = ours.detach().flatten(1) - before[0], theirs.detach() - before[1]
        # What ours does to keep the norm is along the weight.
        moves = [move - (move * before[0]).sum() / before[0].square().sum() * before[0] for move in moves]
        assert torch.cosine_similarity(moves[0].flatten(), moves[1].flatten(), dim=0) > 0.999  # theirs is in bfloat16


def test_a_step_is_an_angle_of_each_ones_part_and_keeps_the_norm():
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(6, 4, 2, 2) * 10.0**k) for k in range(-3, 3)]
    before = [weight.detach().clone() for weight in weights]
    parts = [1.0, 0.5, 1.0, 0.25, 0.25, 1.0]
    turned = zip(weights, parts, strict=True)
    optimizer = AdamAndMuon([nn.Parameter(torch.zeros(1))], turned, share=0.02, lr=0.1)
    (after,) = steps_of(optimizer, weights, num_steps=1)
    for old, new, part in zip(before, after, parts, strict=True):
        assert new.norm() == pytest.approx(old.norm().item(), rel=1e-5)
        assert (new - old).norm() / old.norm() == pytest.approx(0.02 * part, rel=0.1)


def test_the_rest_moves_as_adam_alone_moves_it():
    torch.manual_seed(0)
    rest, filters = nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(4, 3, 2, 2))
    alone = nn.Parameter(rest.detach().clone())
    both = AdamAndMuon([rest], [(filters, 1.0)], share=0.02, lr=0.1, betas=(0.9, 0.99), fused=True)
    adam = torch.optim.Adam([alone], lr=0.1, betas=(0.9, 0.99), fused=True)
    generator = torch.Generator().manual_seed(2)
    for _ in range(3):
        rest.grad, filters.grad = torch.randn(5, generator=generator), torch.randn(4, 3, 2, 2)
        alone.grad = rest.grad.clone()
        both.step()
        adam.step()
        assert torch.equal(rest, alone)


def test_a_filter_without_a_gradient_stays():
    weight = nn.Parameter(torch.randn(4, 3, 2, 2))
    optimizer = AdamAndMuon([nn.Parameter(torch.zeros(1))], [(weight, 1.0)], share=0.02, lr=0.1)
    before = weight.detach().clone()
    optimizer.step()
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert torch.allclose(weight, before, rtol=1e-6, atol=0)


def test_filters_of_a_density_are_turned_and_all_else_is_adams():
    inverter = Inverter(None, (1, 8, 8), 10, density=small, muon=0.02)
    adam, muon = inverter.optimizer().param_groups
    everything = dict(inverter.density.named_parameters())
    turned = {name for name, p in everything.items() if any(p is q for q in muon["params"])}
    assert len(adam["params"]) + len(muon["params"]) == len(everything)
    assert turned == {
        name for name in everything if name.endswith("original1") and not name.startswith(("first", "head"))
    }


@pytest.mark.parametrize(
    ("context_shape", "layers", "slower"), [((5,), 1, (1, 3)), ((5,), 2, (1, 3, 5)), ((5, 2, 2), 1, ())]
)
def test_what_vectors_go_through_takes_less_of_the_share(context_shape, layers, slower):
    density = PixelCNN((1, 8, 8), context_shape, num_filters=4, num_layers=1, decoder_filters=2, decoder_layers=layers)
    slower = [f"decoder_of_h.start.{position}" for position in slower]
    names = {id(p): name for name, p in density.named_parameters()}
    parts = {names[id(p)].removesuffix(".parametrizations.weight.original1"): part for p, part in density.directions()}
    assert {part for name, part in parts.items() if name not in slower} == {1.0}
    assert {name for name, part in parts.items() if part < 1} == set(slower)


def small(image_shape, context_shape):
    return PixelCNN(image_shape, context_shape, num_filters=4, num_layers=1)


def test_the_cooldown_is_its_formula():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=3.0)
    scheduler, found = Cooldown(optimizer, 0.9, cooldown=0.5, num_steps=8), []
    for _ in range(9):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert found == pytest.approx([3 * 0.9**t * min(1, (8 - t) / 4) for t in range(9)])


def after(scheduler, num_steps):
    for _ in range(num_steps):
        scheduler.optimizer.step()
        scheduler.step()
    return scheduler


def course(lr=4.0, gamma=0.9, cooldown=0.5, num_steps=8):
    return Cooldown(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr), gamma, cooldown, num_steps)


def test_without_a_cooldown_it_is_torchs_exponential_decay_to_the_last_bit():
    theirs = torch.optim.lr_scheduler.ExponentialLR(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=4.0), 0.9)
    assert after(course(cooldown=0, num_steps=0), 7).get_last_lr() == after(theirs, 7).get_last_lr()


@pytest.mark.parametrize(
    ("saved", "wanted", "said"),
    [
        ({"cooldown": 0.0, "num_steps": 0}, {}, ["cooldown 0.5, not 0.0"]),
        ({}, {"cooldown": 0.0, "num_steps": 0}, ["cooldown 0.0, not 0.5"]),
        ({}, {"num_steps": 16}, ["max_steps 16, not 8"]),
        ({}, {}, []),
    ],
)
def test_a_resumed_run_has_the_course_that_is_asked_for_from_its_first_step(saved, wanted, said):
    old, new = after(course(**saved), 6), course(**wanted)
    resumed = Configured(new.optimizer, [new])
    new.optimizer.load_state_dict(old.optimizer.state_dict())
    state = old.state_dict()
    if saved:  # as version 0.8 left it
        del state["cooldown"], state["num_steps"]
    new.load_state_dict(state)
    assert resumed.apply() == said
    expected = after(course(**wanted), 6).optimizer.param_groups[0]["lr"]
    assert new.optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-12)


def test_a_generator_without_filters_is_refused():
    with pytest.raises(ValueError, match=r"a MSEDecoder has no filters that Muon can turn; give --model.muon null"):
        Inverter("conv1", (1, 28, 28), 10, density=MSEDecoder, muon=0.02)


def test_a_copy_goes_on_as_the_optimiser_does():
    """What a checkpoint keeps of it is all that it has."""
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(4, 3, 2, 2))]
    optimizer = AdamAndMuon(weights[:1], [(weight, 0.5) for weight in weights[1:]], share=0.02, lr=0.1)
    steps_of(optimizer, weights, num_steps=2)
    copies = copy.deepcopy(weights)
    resumed = AdamAndMuon(copies[:1], [(weight, 0.5) for weight in copies[1:]], share=0.02, lr=0.1)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    others, copied = copy.deepcopy((weights, optimizer))
    expected = steps_of(optimizer, weights)
    for found in (steps_of(resumed, copies), steps_of(copied, others)):
        for ours, theirs in zip(expected, found, strict=True):
            assert all(map(torch.equal, ours, theirs))


def test_a_gradient_scaler_leaves_out_a_step_with_infinite_gradients_as_a_whole():
    weights = [nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(4, 3, 2, 2))]
    optimizer = AdamAndMuon(weights[:1], [(weight, 1.0) for weight in weights[1:]], share=0.02, lr=0.1, fused=True)
    before, scaler = copy.deepcopy(weights), torch.amp.GradScaler("cpu")
    scaler.scale(weights[0].sum() + (weights[1] * torch.inf).sum()).backward()
    scaler.step(optimizer)
    assert all(map(torch.equal, weights, before))
