"""Compiled blocks against eager ones; a program of its own, since Dynamo does not look through checked annotations."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch._dynamo.utils import counters

from geofm_model.models import (
    DecoderConfig,
    EncoderConfig,
    Errors,
    MaskedAutoencoder,
    MaskPlan,
    Patching,
    chosen,
    compile_blocks,
    hidden_errors,
)

GRID = (3, 4, 5)
CONFIG = EncoderConfig(width=48, depth=3, heads=3, patching=Patching(size=4))


def models() -> tuple[MaskedAutoencoder, MaskedAutoencoder]:
    """(eager, compiled) with the same weights, none of them 0."""
    torch.manual_seed(0)
    eager = MaskedAutoencoder(CONFIG, DecoderConfig(width=32, depth=2, heads=4))
    for parameter in eager.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    compiled = copy.deepcopy(eager)
    compile_blocks(compiled)
    return eager, compiled


def step(model: MaskedAutoencoder, vectors: Tensor, plan: MaskPlan) -> tuple[Tensor, Errors, dict[str, Tensor]]:
    """(predictions, errors, gradients)."""
    model.zero_grad()
    predicted = model(vectors, GRID, plan)
    target = chosen(vectors, plan.hidden)
    errors = hidden_errors(predicted, target, torch.ones_like(target, dtype=torch.bool))
    errors.mean().backward()
    return predicted.detach(), errors, {name: p.grad.clone() for name, p in model.named_parameters()}


def main() -> None:
    """Raises where they differ."""
    eager, compiled = models()
    order = torch.rand(2, 60).argsort(dim=1)
    plan = MaskPlan(seen=order[:, :15].sort(dim=1).values, hidden=order[:, 15:].sort(dim=1).values)
    vectors = torch.randn(2, 60, CONFIG.patching.numbers)
    # The seen patches in other places: a network that does not know places predicts the same.
    moved = vectors.scatter(
        1, plan.seen[..., None].expand(-1, -1, vectors.shape[2]), chosen(vectors, plan.seen.roll(1, dims=1))
    )
    results = []
    for inputs in (vectors, moved):
        (predicted, errors, gradients), (found, others, theirs) = (step(m, inputs, plan) for m in (eager, compiled))
        torch.testing.assert_close(found, predicted, rtol=1e-4, atol=5e-6)
        torch.testing.assert_close(others.mean(), errors.mean(), rtol=1e-6, atol=1e-7)
        for name, gradient in gradients.items():
            torch.testing.assert_close(theirs[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
        results.append(found)
    assert float((results[0] - results[1]).abs().max()) > 0.01
    assert float(results[0].std(dim=1).mean()) > 0.01  # hidden tokens differ by their places alone
    # Three blocks of the encoder are one program, two of the decoder another; nothing was left to the interpreter.
    assert counters["stats"]["unique_graphs"] == 3  # the last one of the decoder computes hidden tokens only
    assert not counters["graph_break"]
    assert set(compiled.state_dict()) == set(eager.state_dict())


if __name__ == "__main__":
    main()
