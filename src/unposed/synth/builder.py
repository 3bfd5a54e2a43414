"""Collects primitives for a number of scenes of one kind at once; every random number comes from one CPU generator."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unposed.geometry.rotations import matrix_from_axis_angle, matrix_from_quaternion
from unposed.synth.relief import WAVES
from unposed.synth.textures import Textures
from unposed.synth.worlds import BOXES, CYLINDERS, ELLIPSOIDS, SURFACE, Worlds

Range = tuple[float, float]


_SLOTS = {"box": BOXES, "ellipsoid": ELLIPSOIDS, "cylinder": CYLINDERS, "terrain": 1}


@dataclass(frozen=True)
class Recess:
    """A grid of recesses on the side faces of a box: windows, shelves, panels. Ranges in metres, ``fill`` a share."""

    u: Range
    """Period along the face."""
    v: Range
    """Period down the face."""
    fill: Range
    """Share of the period that is open."""
    depth: Range
    probability: float = 1.0


@dataclass(frozen=True, eq=False)
class Material:
    """How the random surface of a primitive is drawn. Primitives that share a ``Material`` object look the same."""

    rate: Range = (0.3, 1.5)
    """Repeats of a tile per metre."""
    photo: float = 0.3
    """Probability of a photo instead of a tile."""
    stretch: float = 0.0
    """Probability that a photo covers each face once."""
    detail: float = 0.5
    """Largest share of the second texture."""
    specular: float = 0.35
    """Probability of a highlight."""
    recess: Recess | None = None


_PLAIN = Material()


class WorldBuilder:
    """Builds ``count`` scenes side by side: every call adds one primitive to each of them.

    Values are tensors ``(count, ...)``. ``where`` says in which scenes the primitive exists.
    """

    def __init__(self, count: int, generator: torch.Generator, textures: Textures) -> None:
        self.count = count
        self._generator = generator
        self._textures = textures
        self._parts: dict[str, list[dict[str, Tensor]]] = {kind: [] for kind in _SLOTS}
        self._materials: dict[str, list[Material]] = {kind: [] for kind in _SLOTS}
        self._instances = 0
        self._settings: dict[str, Tensor] = {}

    def uniform(self, low: float, high: float, *shape: int) -> Float[Tensor, "count *shape"]:
        """Uniform random numbers."""
        return low + (high - low) * torch.rand(self.count, *shape, generator=self._generator)

    def log_uniform(self, low: float, high: float, *shape: int) -> Float[Tensor, "count *shape"]:
        """Numbers whose logarithm is uniform."""
        return self.uniform(math.log(low), math.log(high), *shape).exp()

    def chance(self, probability: float) -> Bool[Tensor, "count"]:
        """True with a probability, scene by scene."""
        return torch.rand(self.count, generator=self._generator) < probability

    def yaw(self, low: float = -math.pi, high: float = math.pi) -> Float[Tensor, "count 3 3"]:
        """Random rotations about the vertical."""
        angle = self.uniform(low, high)
        return matrix_from_axis_angle(torch.stack([torch.zeros_like(angle), angle, torch.zeros_like(angle)], -1))

    def rotation(self) -> Float[Tensor, "count 3 3"]:
        """Rotations uniform over all orientations."""
        return matrix_from_quaternion(torch.randn(self.count, 4, generator=self._generator))

    def point(self, x: Range, y: Range, z: Range) -> Float[Tensor, "count 3"]:
        """Points uniform in a box."""
        return torch.stack([self.uniform(*x), self.uniform(*y), self.uniform(*z)], -1)

    def new_instance(self) -> int:
        """Number of a new object, for primitives that belong together."""
        self._instances += 1
        return self._instances

    def box(self, centre: Tensor, half: Tensor, material: Material, **options: Tensor | int | bool) -> None:
        """Add a box; ``options`` as in ``_add``."""
        self._add("box", centre, half, material, **options)  # type: ignore[arg-type]

    def ellipsoid(self, centre: Tensor, half: Tensor, material: Material, **options: Tensor | int) -> None:
        """Add an ellipsoid."""
        self._add("ellipsoid", centre, half, material, **options)  # type: ignore[arg-type]

    def cylinder(self, centre: Tensor, half: Tensor, material: Material, **options: Tensor | int) -> None:
        """Add a cylinder about its y axis; half-sizes: radius x, half height, radius z."""
        self._add("cylinder", centre, half, material, **options)  # type: ignore[arg-type]

    def terrain(self, wavelength: Range, steepness: Range, material: Material) -> Tensor:
        """Add rolling ground about y = 0: waves of a range of lengths (metres), heights in proportion; returns them."""
        length, turn = self.log_uniform(*wavelength, WAVES), self.uniform(-math.pi, math.pi, WAVES)
        number = 2 * math.pi / length
        amplitude = self.uniform(*steepness, 1) * self.uniform(0.3, 1, WAVES) / number / WAVES**0.5
        waves = torch.stack([number * turn.cos(), number * turn.sin(), self.uniform(0, 6.3, WAVES), amplitude], -1)
        self._settings["waves"] = waves
        self._add("terrain", torch.zeros(self.count, 3), torch.ones(self.count, 3), material)
        return waves

    def lights(self, room: Bool[Tensor, "count"], corner: Float[Tensor, "count 3"]) -> None:
        """A lamp within +-``corner`` (above y = 0) where ``room``, else a sun; an ambient light; a sky."""
        up = self.uniform(0.25, 1.5)
        sun = torch.stack([self.uniform(-1, 1), -up, self.uniform(-1, 1)], -1)
        sun = sun / sun.norm(dim=-1, keepdim=True)
        spread = torch.stack([self.uniform(-0.7, 0.7), self.uniform(-0.95, -0.7), self.uniform(-0.7, 0.7)], -1)
        lamp = torch.cat([spread * corner, torch.ones(self.count, 1)], -1)
        tone = self.uniform(0.85, 1.1, 3)
        power = torch.where(room, self.uniform(0.3, 0.9), self.uniform(0.3, 0.9))
        first = self._textures.tiles + self._textures.photos
        sky = first + (self.uniform(0, 1) * self._textures.skies).floor()
        self._settings["light"] = torch.where(room[:, None], lamp, torch.cat([sun, torch.zeros(self.count, 1)], -1))
        self._settings["light_colour"] = power[:, None] * tone
        self._settings["ambient"] = self.uniform(0.35, 0.75, 1) * (2 - tone)
        self._settings["sky"] = torch.stack([sky, self.uniform(-math.pi, math.pi), self.uniform(0.7, 1.1)], -1)

    def cameras(self, eye: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor], near: float) -> None:
        """Where cameras stand and look, as (lower, upper) corners ``(count, 3)``; ``near`` in metres."""
        self._settings["eye"] = torch.stack(eye, 1)
        self._settings["target"] = torch.stack(target, 1)
        self._settings["near"] = torch.full((self.count,), near)

    def build(self, moving: bool) -> Worlds:
        """The finished scenes; with ``moving``, some of the movable primitives get a velocity and a spin."""
        parts, materials = [], []
        for kind, slots in _SLOTS.items():
            made = self._parts[kind]
            assert len(made) <= slots, f"{len(made)} primitives of kind {kind}: there are {slots} slots"
            parts += made + [self._nothing()] * (slots - len(made))
            materials += self._materials[kind] + [_PLAIN] * (slots - len(made))
        stacked = {name: torch.stack([part[name] for part in parts], 1) for name in parts[0]}
        movable = stacked.pop("movable") & stacked["active"]
        extent = (self._settings["target"][:, 1] - self._settings["target"][:, 0]).norm(dim=-1)[:, None, None]
        shape = (*movable.shape, 3)
        self._settings.setdefault("waves", torch.zeros(self.count, WAVES, 4))
        moves = (torch.rand(movable.shape, generator=self._generator) < 0.3) & movable & moving
        heading = torch.randn(shape, generator=self._generator) * torch.tensor([0.05, 0.01, 0.05]) * extent
        spin = torch.randn(shape, generator=self._generator) * torch.tensor([0.03, 0.25, 0.03])
        surface = self._surfaces(materials)
        motion = {"velocity": heading * moves[..., None], "spin": spin * moves[..., None]}
        return Worlds(**stacked, surface=surface, **motion, **self._settings)

    def _surfaces(self, materials: Sequence[Material]) -> Float[Tensor, "count slots columns"]:
        """``Worlds.surface``: all surfaces drawn at once, one per different material."""
        unique = list(dict.fromkeys(materials))
        m, t = len(unique), self._textures

        def given(name: str) -> Tensor:
            return torch.tensor([getattr(material, name) for material in unique])

        def within(low_high: Tensor, log: bool = False) -> Tensor:
            low, high = (low_high.log() if log else low_high).unbind(-1)
            value = low + (high - low) * self.uniform(0, 1, m)
            return value.exp() if log else value

        def some(probability: Tensor | float) -> Tensor:
            return self.uniform(0, 1, m) < probability

        tile, photo, other, back = self.uniform(0, 1, m, 4).unbind(-1)
        tile, other = (tile * t.tiles).floor(), (other * t.tiles).floor()
        photo, back = (t.tiles + (photo * t.photos).floor(), t.tiles + (back * t.photos).floor())
        is_photo = some(given("photo"))
        turn = torch.where(is_photo, 0, self.uniform(-math.pi, math.pi, m) * some(0.5))
        scale = within(given("rate"), log=True) * torch.where(is_photo, 0.5, 1.0)
        red, green, blue = (self.uniform(0.7, 1.15, m, 1) * self.uniform(0.85, 1.15, m, 3)).unbind(-1)
        shift_u, shift_v = self.uniform(0, 1, m, 2).unbind(-1)
        columns = {
            "texture": torch.where(is_photo, photo, tile),
            "detail": torch.where(some(0.5), back, other),
            "mix": self.uniform(0, 1, m) * given("detail") * some(0.7),
            "scale": scale,
            "detail_scale": scale * self.uniform(0.1, 0.45, m),
            "cos": turn.cos(),
            "sin": turn.sin(),
            "shift_u": shift_u,
            "shift_v": shift_v,
            "stretch": is_photo & some(given("stretch")),
            "mirror": is_photo,
            "red": red,
            "green": green,
            "blue": blue,
            "specular": self.uniform(0.02, 0.3, m) * some(given("specular")),
            "gloss": self.log_uniform(6, 90, m),
            "back": back,
            "back_tone": self.uniform(0.25, 1, m),
        }
        recess = [material.recess or Recess((1, 1), (1, 1), (0.5, 0.5), (0, 0)) for material in unique]
        period_u, period_v = within(torch.tensor([r.u for r in recess])), within(torch.tensor([r.v for r in recess]))
        fill = torch.tensor([r.fill for r in recess])
        fill_u, fill_v = within(fill), within(fill)
        room = 0.45 * torch.minimum(period_u * (1 - fill_u), period_v * (1 - fill_v))
        niche = torch.minimum(within(torch.tensor([r.depth for r in recess])), room)
        niche = niche * some(torch.tensor([r.probability for r in recess]))
        columns |= {"period_u": period_u, "period_v": period_v, "fill_u": fill_u, "fill_v": fill_v, "niche": niche}
        surfaces = torch.stack([columns[name].to(torch.float32) for name in SURFACE], -1)
        return surfaces[:, [unique.index(material) for material in materials]]

    def _nothing(self) -> dict[str, Tensor]:
        n = self.count
        return {
            "rotation": torch.eye(3).expand(n, 3, 3),
            "centre": torch.zeros(n, 3),
            "half": torch.ones(n, 3),
            "active": torch.zeros(n, dtype=torch.bool),
            "shell": torch.zeros(n, dtype=torch.bool),
            "instance": torch.zeros(n, dtype=torch.int32),
            "movable": torch.zeros(n, dtype=torch.bool),
        }

    def _add(
        self,
        kind: str,
        centre: Tensor,
        half: Tensor,
        material: Material,
        *,
        rotation: Tensor | None = None,
        where: Tensor | None = None,
        instance: int | None = None,
        shell: bool = False,
        movable: bool = False,
    ) -> None:
        flag = torch.ones(self.count, dtype=torch.bool)
        part = self._nothing() | {
            "centre": centre,
            "half": half,
            "active": flag if where is None else where,
            "shell": flag & shell,
            "instance": torch.full((self.count,), instance or self.new_instance(), dtype=torch.int32),
            "movable": flag & movable,
        }
        if rotation is not None:
            part["rotation"] = rotation
        self._parts[kind].append(part)
        self._materials[kind].append(material)
