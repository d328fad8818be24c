"""Random numbers: those of the published generator, and none twice."""

import pytest
import torch
from druse_diffusion import RandomStreams
from druse_diffusion.random import philox


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_known_answers_of_philox(counter, key, expected):
    """The vectors of Random123 1.09 (tests/kat_vectors, philox4x32 with 10 rounds)."""
    assert philox(torch.tensor(counter), torch.tensor(key)).tolist() == expected


def test_seeds_below_two_to_the_32_have_the_numbers_that_shipped_examples_were_drawn_with():
    """Key: seed and crystal; counter: draw, atom, block."""
    streams = RandomStreams(7, torch.tensor([3, 2**31 + 5]))
    streams.crystal_uniform(1)
    drawn = streams.atom_uniform(torch.tensor([2, 1]), 6)
    for row, (crystal, atom) in enumerate([(3, 0), (3, 1), (2**31 + 5, 0)]):
        words = [philox(torch.tensor([1, atom, block, 0]), torch.tensor([7, crystal])) for block in (0, 1)]
        assert torch.allclose(drawn[row], (torch.cat(words)[:6].double() / 2**32).float(), atol=1e-7)


def test_no_two_seeds_or_crystals_share_a_stream():
    """Differences in any of the 32-bit words of seed and crystal, also where exclusive or would hide them."""
    words = [0, 1, 2, 3, 2**8, 2**24, 2**31, 2**32 - 1]
    seeds = [low + (high << 32) for low in words[:4] for high in words]
    crystals = torch.tensor([low + (high << 32) for low in words for high in (0, 1, 2, 2**31 - 1)])
    streams = [RandomStreams(seed, crystals) for seed in seeds]
    drawn = torch.cat([s.atom_uniform(torch.full_like(crystals, 2), 8) for s in streams])
    assert len(torch.unique(drawn[:, :4].reshape(-1, 4), dim=0)) == 2 * len(seeds) * len(crystals)
    assert len(torch.unique(drawn.reshape(-1, 4), dim=0)) == 4 * len(seeds) * len(crystals)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_out_of_range_are_refused(seed):
    with pytest.raises(ValueError, match="between 0 and"):
        RandomStreams(seed, range(2))


def test_a_draw_has_not_more_blocks_than_the_counter_can_tell_apart():
    with pytest.raises(ValueError, match="1024"):
        RandomStreams(0, range(2)).crystal_uniform(1025)
