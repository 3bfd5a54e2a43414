"""Pair predictions on disk: how exact they are, what is reused, and that nothing a kill or damage leaves is trusted."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unposed.errors import UserError
from unposed.io.pairs_cache import PairCache, run_fingerprint
from unposed.io.photos import ImageRule, find_photos
from unposed.io.pointmap_codec import decode_pointmap, encode_pointmap
from unposed.views import Matches, PairPrediction

SIZE = (12, 16)


def prediction(seed: int = 0, descriptors: bool = False, matches: bool = False) -> PairPrediction:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    def points() -> torch.Tensor:
        return (random(*SIZE, 3) - torch.tensor([0.5, 0.5, 0.0])) * 10 ** (3 * random(*SIZE, 1))

    found = Matches(random(7, 2) * 16, random(7, 2) * 16, random(7)) if matches else None
    unit = [torch.nn.functional.normalize(random(*SIZE, 24) - 0.5, dim=-1) if descriptors else None for _ in range(2)]
    confidence = [1 + 1000 * random(*SIZE) ** 8 for _ in range(2)]
    return PairPrediction(points(), points(), *confidence, *unit, found)


def filled(directory: Path, pairs: list[tuple[int, int]], fingerprint: str = "run") -> PairCache:
    cache = PairCache.open(directory, fingerprint)
    for pair in pairs:
        cache.put(pair, prediction(pair[0] * 10 + pair[1]))
    return cache


def assert_close(stored: PairPrediction, given: PairPrediction) -> None:
    for side in "ij":
        points, expected = getattr(stored, f"points_{side}"), getattr(given, f"points_{side}")
        assert points.dtype == torch.float32
        assert ((points - expected).norm(dim=-1) / expected.norm(dim=-1)).max() < 1.5e-4
        torch.testing.assert_close(
            getattr(stored, f"confidence_{side}"), getattr(given, f"confidence_{side}"), rtol=5e-4, atol=0
        )


class TestCodec:
    @pytest.mark.parametrize("span", [1.0, 700.0, 1e5])
    def test_as_exact_as_it_says(self, span):
        torch.manual_seed(0)
        directions = torch.nn.functional.normalize(torch.randn(200, 300, 3, dtype=torch.float64), dim=-1)
        distances = 3.0 * span ** torch.rand(200, 300, 1, dtype=torch.float64)
        points = directions * distances
        decoded = decode_pointmap(encode_pointmap(points)).double()
        turned = (torch.nn.functional.normalize(decoded, dim=-1) - directions).norm(dim=-1)
        assert turned.max() < 7e-5
        stretched = (decoded.norm(dim=-1, keepdim=True) / distances - 1).abs()
        assert stretched.max() < np.log(span) / 131066 + 2e-6

    def test_projections_move_by_a_thirtieth_of_a_pixel(self):
        torch.manual_seed(0)
        pixels = (torch.rand(5000, 2) - 0.5) * torch.tensor([512.0, 384.0])
        points = torch.cat([pixels / 500, torch.ones(5000, 1)], -1) * (1 + 50 * torch.rand(5000, 1))
        decoded = decode_pointmap(encode_pointmap(points))
        assert (decoded[:, :2] / decoded[:, 2:] * 500 - pixels).abs().max() < 1 / 25

    def test_special_points(self):
        points = torch.tensor(
            [[0, 0, 0], [0, 0, -2], [0, -3, 0], [np.nan, 0, 1], [0, np.inf, 1], [1e-30, 0, 0], [1e30, 1e30, 0]]
        )
        decoded = decode_pointmap(encode_pointmap(points))
        assert decoded[0].tolist() == [0, 0, 0]
        assert decoded[[3, 4]].isnan().all()
        scale = points.abs().amax(-1, keepdim=True)[
            [1, 2, 5, 6]
        ]  # a factor of 1e60 between the nearest and the farthest
        assert ((decoded - points)[[1, 2, 5, 6]] / scale).norm(dim=-1).max() < 2e-3

    @given(st.lists(st.tuples(*[st.floats(width=32)] * 3), min_size=0, max_size=20))
    @settings(max_examples=200, deadline=None)
    def test_any_points_come_back(self, values):
        points = torch.tensor(values, dtype=torch.float32).reshape(-1, 3)
        decoded = decode_pointmap(encode_pointmap(points))
        assert decoded.shape == points.shape
        assert decoded[~points.isfinite().all(-1)].isnan().all()
        assert (decoded[(points == 0).all(-1)] == 0).all()


class TestEntries:
    def test_a_prediction_comes_back(self, tmp_path):
        given = prediction(3, descriptors=True, matches=True)
        cache = PairCache.open(tmp_path / "cache", "run")
        cache.put((0, 1), given)
        stored = cache[0, 1]
        assert_close(stored, given)
        assert stored.descriptors_i is None
        assert stored.matches is not None
        for field in dataclasses.fields(Matches):
            assert torch.equal(getattr(stored.matches, field.name), getattr(given.matches, field.name))

    def test_descriptors_on_demand(self, tmp_path):
        given = prediction(3, descriptors=True)
        cache = PairCache.open(tmp_path / "cache", "run", keep_descriptors=True)
        cache.put((0, 1), given)
        torch.testing.assert_close(cache[0, 1].descriptors_j, given.descriptors_j, rtol=5e-4, atol=1e-6)
        assert not PairCache.open(tmp_path / "cache", "run")

    def test_confidence_beyond_half_precision_stays_finite(self, tmp_path):
        given = dataclasses.replace(prediction(), confidence_i=torch.full(SIZE, 1e9))
        cache = PairCache.open(tmp_path / "cache", "run")
        cache.put((0, 1), given)
        assert (cache[0, 1].confidence_i == 65504).all()

    def test_it_is_a_mapping(self, tmp_path):
        cache = filled(tmp_path / "cache", [(2, 0), (0, 1), (100_000, 3)])
        assert list(cache) == [(0, 1), (2, 0), (100_000, 3)]
        assert len(cache) == 3
        assert (0, 1) in cache
        assert (1, 0) not in cache
        assert cache.missing([(1, 0), (0, 1), (0, 2)]) == [(1, 0), (0, 2)]
        with pytest.raises(KeyError):
            cache[1, 0]
        assert {pair for pair, value in cache.items() if value.points_i.shape == (*SIZE, 3)} == set(cache)


class TestRuns:
    def test_the_same_run_goes_on(self, tmp_path):
        filled(tmp_path / "cache", [(0, 1), (1, 0)])
        again = PairCache.open(str(tmp_path / "cache"), "run")
        assert again.missing([(0, 1), (1, 0), (0, 2)]) == [(0, 2)]
        assert_close(again[1, 0], prediction(10))

    def test_another_run_starts_anew(self, tmp_path):
        filled(tmp_path / "cache", [(0, 1)], "run")
        assert len(PairCache.open(tmp_path / "cache", "other")) == 0
        assert len(PairCache.open(tmp_path / "cache", "run")) == 0
        assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["run.json"]

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99}', "\0" * 50])
    def test_a_damaged_run_file_starts_anew(self, tmp_path, text):
        filled(tmp_path / "cache", [(0, 1)])
        (tmp_path / "cache" / "run.json").write_text(text)
        assert len(PairCache.open(tmp_path / "cache", "run")) == 0

    def test_other_people_s_folders_are_left_alone(self, tmp_path):
        (tmp_path / "1.jpg").write_text("x")
        for place in (tmp_path, tmp_path / "1.jpg"):
            with pytest.raises(UserError, match="choose a"):
                PairCache.open(place, "run")
        assert (tmp_path / "1.jpg").read_text() == "x"

    def test_the_fingerprint_names_what_predictions_depend_on(self, tmp_path):
        for k in range(2):
            noise = np.random.default_rng(k).integers(0, 256, (80, 80, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / f"{k}.png")
        photos = find_photos(tmp_path).photos
        prints = [
            run_fingerprint("mini", ImageRule(), photos),
            run_fingerprint("mast3r", ImageRule(), photos),
            run_fingerprint("mini", ImageRule(224), photos),
            run_fingerprint("mini", ImageRule(), photos[::-1]),
            run_fingerprint("mini", ImageRule(), photos[:1]),
        ]
        assert len(set(prints)) == len(prints)
        assert run_fingerprint("mini", ImageRule(), find_photos(tmp_path).photos) == prints[0]


class TestDamage:
    def test_cut_and_changed_entries_are_missing(self, tmp_path):
        directory = tmp_path / "cache"
        pairs = [(0, k) for k in range(1, 41)]
        filled(directory, pairs)
        rng = np.random.default_rng(0)
        for k, path in enumerate(sorted(directory.glob("*.safetensors"))[:-1]):
            data = bytearray(path.read_bytes())
            if k % 3 == 0:
                data = data[: rng.integers(0, len(data))]
            else:
                data[rng.integers(0, len(data) if k % 3 == 1 else 300)] ^= 1 << rng.integers(0, 8)
            path.write_bytes(data)
        again = PairCache.open(directory, "run")
        assert (0, 40) in again
        for pair in again:  # a flipped bit in the header's padding or names may be harmless: then the values are right
            assert_close(again[pair], prediction(pair[1]))
        assert len(again) < 10
        for pair in again.missing(pairs):
            again.put(pair, prediction(pair[1]))
        assert len(PairCache.open(directory, "run")) == 40

    def test_damage_during_the_run_is_a_user_error(self, tmp_path):
        cache = filled(tmp_path / "cache", [(0, 1)])
        (tmp_path / "cache" / "00000_00001.safetensors").write_bytes(b"")
        with pytest.raises(UserError, match="run again"):
            cache[0, 1]

    @pytest.mark.parametrize("calls", range(1, 12))
    def test_killed_at_any_moment(self, tmp_path, calls):
        """A process that replaces an older run is killed at its n-th change of the disk; then the run is resumed."""
        directory = tmp_path / "cache"
        filled(directory, [(0, k) for k in (5, 6, 7)], "older run")
        pairs = [(0, k) for k in range(1, 9)]
        predictions = {pair: prediction(pair[1]) for pair in pairs}
        child = os.fork()
        if child == 0:
            _die_at(calls)
            cache = PairCache.open(directory, "run")
            for pair in pairs:
                cache.put(pair, predictions[pair])
            os._exit(0)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        run = json.loads((directory / "run.json").read_text())
        cache = PairCache.open(directory, "run")
        if run["fingerprint"] == "older run":
            assert len(cache) == 0
        for pair in cache:
            assert_close(cache[pair], predictions[pair])
        for pair in cache.missing(pairs):
            cache.put(pair, predictions[pair])
        assert list(PairCache.open(directory, "run")) == pairs


def _die_at(call: int) -> None:
    """Kill this process at its ``call``-th rename, sync or removal."""
    done = 0

    def deadly(function):
        def wrapped(*arguments, **options):
            nonlocal done
            done += 1
            if done == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return wrapped

    os.replace, os.fsync, Path.unlink = deadly(os.replace), deadly(os.fsync), deadly(Path.unlink)
