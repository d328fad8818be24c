"""Published reference files, written here with LMDB itself, and what must not be read."""

import collections
import gzip
import os
import pickle
import struct
from typing import Any

import lmdb
import numpy as np
import pytest
from druse_energetics.built_reference import build_reference
from druse_energetics.lmdb_file import LmdbFile
from druse_energetics.published_reference import PublishedReference, load_plain


def entry(name, symbols, energy, *, terms=(), occupancy=1):
    return {
        "@class": "ComputedStructureEntry",
        "energy": energy,
        "correction": sum(value for _, value in terms),
        "energy_adjustments": [{"name": name, "value": value} for name, value in terms],
        "composition": collections.defaultdict(float, collections.Counter(symbols)),  # as old versions wrote it
        "entry_id": name,
        "parameters": {"run_type": "GGA"},
        "data": {"material_id": name},
        "structure": {
            "lattice": {"matrix": [[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 4.0]], "pbc": (True, True, True)},
            "sites": [
                {"species": [{"element": s, "occu": occupancy}], "abc": [i / len(symbols), 0.1 * i, 0.0]}
                for i, s in enumerate(symbols)
            ],
        },
    }


OXIDE = ("MP2020 anion correction (oxide)", -0.687)
ENTRIES = {
    "Mg.Mg.0": entry("mp-1", ["Mg"], -1.6),
    "O.O2.0": entry("mp-2", ["O", "O"], -9.9),
    "Mg-O.MgO.0": entry("mp-3", ["Mg", "O"], -12.0, terms=[OXIDE]),
    "Mg-O.MgO.1": entry("mp-4", ["Mg", "O"], -11.0, terms=[("TRI110PBE", -1.2)]),
    "Mg-O.MgO.2": entry("mp-5", ["Mg", "O"], -11.5),
    "Mg-O.MgO.3": entry("mp-6", ["Mg", "O"], float("nan")),
    "Mg-O.MgO.4": entry("mp-7", ["Mg", "O"], -11.0, occupancy=0.5),
}


def values(entries=None, name="MP2020correction"):
    entries = ENTRIES if entries is None else entries
    content: dict[str, Any] = {"name": name, "chemical_systems": sorted({key.split(".")[0] for key in entries})}
    for stem in {key.rsplit(".", 1)[0] for key in entries}:
        system, formula = stem.split(".")
        content.setdefault(f"{system}.reduced_formulas", []).append(formula)
        content[f"{stem}.length"] = sum(key.rsplit(".", 1)[0] == stem for key in entries)
    return {key: pickle.dumps(value) for key, value in (content | entries).items()}


def write_lmdb(path, content):
    with lmdb.open(str(path), subdir=False, lock=False, map_size=1 << 26) as env, env.begin(write=True) as writing:
        for key, value in content.items():
            writing.put(key.encode(), value)
    return path


def write_published(folder, content=None, name="reference.gz"):
    data = write_lmdb(folder / "data.mdb", values() if content is None else content)
    (folder / name).write_bytes(gzip.compress(data.read_bytes()))
    data.unlink()
    return folder / name


@pytest.mark.parametrize("count", [0, 1, 5000])
def test_every_pair_that_lmdb_wrote(tmp_path, count):
    rng = np.random.default_rng(count)
    pairs = {f"key-{i}-{'x' * int(rng.integers(1, 200))}": rng.bytes(int(rng.integers(0, 9000))) for i in range(count)}
    with LmdbFile(write_lmdb(tmp_path / "many.mdb", pairs)) as found:
        assert len(found) == count
        assert list(found.items()) == sorted((key.encode(), value) for key, value in pairs.items())


def test_damaged_databases_are_refused_and_never_crash(tmp_path):
    data = write_lmdb(tmp_path / "a.mdb", {f"k{i}": bytes(3000) for i in range(50)}).read_bytes()
    broken = tmp_path / "broken.mdb"
    rng = np.random.default_rng(0)
    refused = 0
    for trial in range(200):
        changed = bytearray(data[: rng.integers(0, len(data))] if trial % 2 else data)
        for position in rng.integers(0, max(len(changed), 1), 30):
            if len(changed):
                changed[position] ^= int(rng.integers(1, 256))
        broken.write_bytes(changed)
        try:
            with LmdbFile(broken) as file:
                list(file.items())
        except ValueError:
            refused += 1
    assert refused >= 100  # each that was cut off
    page = struct.unpack_from("<I", data, 40)[0]
    assert page in (4096, 16384)
    for position, words in ((16, "no LMDB file"), (40, "no size of a page")):
        changed = bytearray(data)
        changed[position] ^= 0xFF
        broken.write_bytes(changed)
        with pytest.raises(ValueError, match=words):
            LmdbFile(broken)


def test_entries_and_their_statuses(tmp_path):
    with PublishedReference(write_published(tmp_path)) as reference:
        assert reference.name == "MP2020correction"
        found = {e.id: e for e in reference.entries("MP2020")}
    assert {name: e.status for name, e in found.items()} == {
        "mp-1": "kept",
        "mp-2": "kept",
        "mp-3": "kept",
        "mp-4": "incompatible",
        "mp-5": "incompatible",
        "mp-6": "no_energy",
        "mp-7": "disordered",
    }
    assert "TRI110PBE" in found["mp-4"].message
    oxide = found["mp-3"]
    assert (oxide.energy, oxide.correction) == (-12.0, -0.687)
    assert oxide.crystal is not None
    assert oxide.crystal.atomic_numbers.tolist() == [12, 8]
    assert oxide.crystal.frac_coords[1] == pytest.approx([0.5, 0.1, 0.0])
    assert oxide.crystal.lattice == pytest.approx(4 * np.eye(3))


def test_numbers_that_no_float_can_hold_are_statuses(tmp_path):
    wide = 10**400
    odd = {
        "Mg-O.MgO.0": entry("mp-3", ["Mg", "O"], wide),
        "Mg-O.MgO.1": entry("mp-4", ["Mg", "O"], -12.0) | {"correction": wide},
        "Mg-O.MgO.2": entry("mp-5", ["Mg", "O"], -12.0, terms=[(10**5000, -0.7)]),
        "Mg-O.MgO.3": entry("mp-6", ["Mg", "O"], -12.0) | {"data": {"material_id": 10**5000}, "energy": -wide},
        "Mg-O.MgO.4": entry("mp-7", ["Mg", "O"], -12.0, occupancy=wide),
    }
    built = build_reference([write_published(tmp_path, values(ENTRIES | odd))])
    assert dict(built.description.statuses) == {"kept": 2, "no_energy": 2, "incompatible": 2, "unreadable": 1}
    assert {entry.id: entry.status for entry in built.left} == {
        "mp-3": "no_energy",
        "mp-4": "incompatible",
        "mp-5": "incompatible",
        "mp-6": "no_energy",
        "mp-7": "unreadable",
    }


@pytest.mark.parametrize(
    "places",
    [b"r" + struct.pack("<I", 2**24), b"r" + struct.pack("<I", 2**32 - 1), b"p16777216\n", b"p" + b"9" * 50 + b"\n"],
)
@pytest.mark.parametrize(
    "before",
    [
        b"",
        b"\x80\x05\x95" + struct.pack("<Q", 90),
        b"X" + struct.pack("<I", 3) + b"abc0",
        b"Vtext\n0",
        b"\x8c\x02..0",
        b"ccollections\ndefaultdict\n0",
    ],
)
def test_places_in_memory_that_nothing_can_fill_are_refused(places, before):
    data = before + b"}" + places + b"."
    with pytest.raises(ValueError, match=r"asks for place \d+ of its memory, which is no plain data"):
        load_plain(data)


def test_what_looks_like_a_place_in_memory_is_text():
    vast = struct.pack("<I", 2**31).decode("latin1")
    value = {f"structure{i}": [f"r{vast}", "p99999999999\n", 1.5, -i] for i in range(400)}  # beyond BINPUT's 256
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert load_plain(pickle.dumps(value, protocol=protocol)) == value
    with pytest.raises(ValueError, match="plain data"):
        load_plain(b"}j" + struct.pack("<I", 2**31) + b".")


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("key", ["name", "Mg-O.MgO.0"])
def test_a_program_in_a_pickle_is_refused_and_never_run(tmp_path, key):
    witness = tmp_path / "witness"
    pickle.loads(pickle.dumps(Malicious(witness)))
    assert witness.exists()  # that is what would happen
    witness.unlink()
    path = write_published(tmp_path, values() | {key: pickle.dumps(Malicious(witness))})
    with (
        PublishedReference(path) as reference,
        pytest.raises(ValueError, match=r"asks for \w+\.system, which is no plain data: do not trust"),
    ):
        list(reference.entries(reference.name and "MP2020"))
    assert not witness.exists()


@pytest.mark.parametrize(
    "value",
    [b"bytes", {1.5}, {("a",): 1}, collections.OrderedDict(a=1), np.float64(1.0), dict, print, pytest.approx, 1j],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_plain_data(value):
    with pytest.raises(ValueError, match=r"plain data|no text"):
        load_plain(pickle.dumps([{"a": value}]))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_of_every_protocol(protocol):
    value = {"a": [1, 2.5, None, True, "ü", (1, 2)], "b": {"c": -(2**70)}}
    assert load_plain(pickle.dumps(value, protocol=protocol)) == value
    counted = load_plain(pickle.dumps(collections.defaultdict(float, a=1.0), protocol=protocol))
    assert type(counted) is dict
    assert counted == {"a": 1.0}


def test_cut_off_and_foreign_files(tmp_path):
    path = write_published(tmp_path)
    whole = path.read_bytes()
    for part, words in ((whole[: len(whole) // 2], "cut off"), (b"", "LMDB|cut off"), (b"no gzip", "no gzip file")):
        path.write_bytes(part)
        with pytest.raises(ValueError, match=words) as caught:
            PublishedReference(path)
        assert str(path) in str(caught.value)
    data = gzip.decompress(whole)
    path.write_bytes(gzip.compress(data[: len(data) // 2]))
    with pytest.raises(ValueError, match="bytes are there"):
        PublishedReference(path)
    lacking = values()
    del lacking["Mg-O.MgO.2"]
    with (
        PublishedReference(write_published(tmp_path, lacking)) as reference,
        pytest.raises(ValueError, match="6 of the 7"),
    ):
        list(reference.entries("MP2020"))
