"""Three training steps of the published network against those of the published code."""

import json
from pathlib import Path

import torch
from druse_crystal import CrystalBatch
from druse_diffusion import CrystalProcess
from druse_scores.gemnet.published import network_of
from safetensors import safe_open

DATA = Path(__file__).parent / "data" / "published_train_step.safetensors"
LIMIT = 1e-4  # recorded in float32
MOVES_LIMIT = 1e-3  # 3e-4 in all: float32 weights resolve it to 2e-4 or so, Adam no gradients below its epsilon, 1e-8


def test_three_training_steps(capsys):
    """Outputs and gradients of the first one, losses of each, and how far the weights have moved."""
    with safe_open(DATA, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, not a dictionary
        facts = json.loads(file.metadata()["facts"])
    states = part(tensors, "state_dict/")
    twice = {name.replace(".layers.", ".seq_energy."): v for name, v in states.items() if ".out_blocks." in name}
    network = network_of(twice | {name: v.clone() for name, v in states.items()}, max_neighbors=1000).train()
    batch, weights = part(tensors, "batch/"), dict(network.named_parameters())
    noisy = CrystalBatch(
        lattice=batch["noisy_cell"],
        frac_coords=batch["noisy_frac"],
        atomic_numbers=batch["noisy_z"],
        num_atoms=batch["num_atoms"],
    )
    process, t, n = CrystalProcess(), batch["t"], batch["num_atoms"]
    optimizer = torch.optim.Adam([w for w in weights.values() if w.requires_grad], lr=1e-4)
    errors = {}
    for step, truth in enumerate(facts["losses"]):
        optimizer.zero_grad()
        out = network(noisy, t)
        # the published target of coordinates is a truncated sum over images, which Druse does not train with
        square = (batch["target_pos"] - out.frac_coords).square().mean(-1)
        losses = {
            "pos": square.new_zeros(len(n)).index_add(0, noisy.crystal_index, square).mean(),
            "cell": process.lattice.loss(out.lattice, batch["cell"], noisy.lattice, t, n).mean(),
            "atomic_numbers": process.species.loss(out.species_logits, batch["z"], noisy.atomic_numbers, t, n).mean(),
        }
        losses["total"] = 0.1 * losses["pos"] + losses["cell"] + losses["atomic_numbers"]
        losses["total"].backward()
        off = max(abs(float(loss.detach()) / truth[name] - 1) for name, loss in losses.items())
        errors["losses"] = max(errors.get("losses", 0.0), off)
        if step == 0:
            outputs = {"pos": out.frac_coords, "cell": out.lattice, "logits": out.species_logits}
            errors["outputs"] = max(relative_error(outputs[k], v) for k, v in part(tensors, "out/").items())
            learning = {name: w.grad for name, w in weights.items() if w.grad is not None}
            errors["gradients"] = max(relative_error(learning[k], v) for k, v in part(tensors, "grad_step0/").items())
            assert learning.keys() == facts["gradient_norms"].keys()
            norms = facts["gradient_norms"].items()
            errors["norms of all gradients"] = max(abs(float(learning[k].norm()) / norm - 1) for k, norm in norms)
        torch.nn.utils.clip_grad_value_(network.parameters(), 0.5)
        optimizer.step()
    after = {name: value for name, value in part(tensors, "after3/").items() if name in weights}
    assert len(after) == 6
    moves = max(
        float((weights[name].detach() - value).norm() / (value - states[name]).norm()) for name, value in after.items()
    )
    with capsys.disabled():
        print("\nrelative error, training, float32: " + ", ".join(f"{k} {v:.1e}" for k, v in errors.items()))
        print(f"relative error, moves of the weights in three steps, in norm: {moves:.1e}")
    assert max(errors.values()) < LIMIT
    assert moves < MOVES_LIMIT


def part(tensors: dict[str, torch.Tensor], start: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.detach() - theirs).abs().max() / theirs.abs().max())
