"""Collects primitives for a number of scenes of one kind at once; every random number comes from one CPU generator."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unposed.geometry.rotations import matrix_from_axis_angle, matrix_from_quaternion
from unposed.synth.relief import WAVES
from unposed.synth.textures import Textures
from unposed.synth.worlds import BOXES, CYLINDERS, ELLIPSOIDS, SURFACE, Worlds

Range = tuple[float, float]


class WorldBuilder:
    """Builds ``count`` scenes side by side: every call adds one primitive to each of them.

    Values are tensors ``(count, ...)``. ``where`` says in which scenes the primitive exists.
    """

    def __init__(self, count: int, generator: torch.Generator, textures: Textures) -> None:
        self.count = count
        self._generator = generator
        self._textures = textures
        self._parts: dict[str, list[dict[str, Tensor]]] = {"box": [], "ellipsoid": [], "cylinder": [], "terrain": []}
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

    def surface(
        self,
        rate: Range = (0.3, 1.5),
        photo: float = 0.3,
        stretch: float = 0.0,
        detail: float = 0.5,
        specular: float = 0.35,
    ) -> dict[str, Tensor]:
        """A random surface: columns of ``SURFACE``.

        Args:
            rate: Repeats per metre.
            photo: Probability of a photo instead of a tile.
            stretch: Probability that a photo covers each face once.
            detail: Largest share of the second texture.
            specular: Probability of a highlight.
        """
        zero, t = torch.zeros(self.count), self._textures
        is_photo, fits = self.chance(photo), self.chance(stretch)
        turn = torch.where(is_photo, zero, self.uniform(-math.pi, math.pi) * self.chance(0.5))
        scale = self.log_uniform(*rate) * torch.where(is_photo, 0.5, 1.0)
        tone = self.uniform(0.6, 1.1, 1) * self.uniform(0.85, 1.15, 3)
        columns = {
            "texture": torch.where(is_photo, self._photo(), self._tile()),
            "detail": torch.where(self.chance(0.5), self._photo(), self._tile()),
            "mix": self.uniform(0, detail) * self.chance(0.7),
            "scale": scale,
            "detail_scale": scale * self.uniform(0.1, 0.45),
            "cos": turn.cos(),
            "sin": turn.sin(),
            "shift_u": self.uniform(0, 1),
            "shift_v": self.uniform(0, 1),
            "stretch": (is_photo & fits).float(),
            "mirror": is_photo.float(),
            "red": tone[:, 0],
            "green": tone[:, 1],
            "blue": tone[:, 2],
            "specular": self.uniform(0.02, 0.3) * self.chance(specular),
            "gloss": self.log_uniform(6, 90),
            "period_u": zero + 1,
            "period_v": zero + 1,
            "fill_u": zero + 0.5,
            "fill_v": zero + 0.5,
            "niche": zero,
            "back": self._photo() if t.photos else self._tile(),
            "back_tone": self.uniform(0.25, 1),
        }
        return {name: columns[name] for name in SURFACE}

    def recessed(
        self, surface: dict[str, Tensor], u: Range, v: Range, fill: Range, depth: Range, probability: float = 1.0
    ) -> dict[str, Tensor]:
        """The surface with a grid of recesses on side faces: windows, shelves, panels. Metres, except ``fill``."""
        period_u, period_v = self.uniform(*u), self.uniform(*v)
        fill_u, fill_v = self.uniform(*fill), self.uniform(*fill)
        room = 0.45 * torch.minimum(period_u * (1 - fill_u), period_v * (1 - fill_v))
        niche = torch.minimum(self.uniform(*depth), room) * self.chance(probability)
        carved = {"period_u": period_u, "period_v": period_v, "fill_u": fill_u, "fill_v": fill_v, "niche": niche}
        return surface | carved

    def box(self, centre: Tensor, half: Tensor, surface: dict[str, Tensor], **options: Tensor | int | bool) -> None:
        """Add a box; ``options`` as in ``_add``."""
        self._add("box", centre, half, surface, **options)  # type: ignore[arg-type]

    def ellipsoid(self, centre: Tensor, half: Tensor, surface: dict[str, Tensor], **options: Tensor | int) -> None:
        """Add an ellipsoid."""
        self._add("ellipsoid", centre, half, surface, **options)  # type: ignore[arg-type]

    def cylinder(self, centre: Tensor, half: Tensor, surface: dict[str, Tensor], **options: Tensor | int) -> None:
        """Add a cylinder about its y axis; half-sizes: radius x, half height, radius z."""
        self._add("cylinder", centre, half, surface, **options)  # type: ignore[arg-type]

    def terrain(self, wavelength: Range, steepness: Range, surface: dict[str, Tensor]) -> Tensor:
        """Add rolling ground about y = 0: waves of a range of lengths (metres), heights in proportion; returns them."""
        length, turn = self.log_uniform(*wavelength, WAVES), self.uniform(-math.pi, math.pi, WAVES)
        number = 2 * math.pi / length
        amplitude = self.uniform(*steepness, 1) * self.uniform(0.3, 1, WAVES) / number / WAVES**0.5
        waves = torch.stack([number * turn.cos(), number * turn.sin(), self.uniform(0, 6.3, WAVES), amplitude], -1)
        self._settings["waves"] = waves
        self._add("terrain", torch.zeros(self.count, 3), torch.ones(self.count, 3), surface)
        return waves

    def lights(self, room: Bool[Tensor, "count"], corner: Float[Tensor, "count 3"]) -> None:
        """A lamp within +-``corner`` (above y = 0) where ``room``, else a sun; an ambient light; a sky."""
        up = self.uniform(0.25, 1.5)
        sun = torch.stack([self.uniform(-1, 1), -up, self.uniform(-1, 1)], -1)
        sun = sun / sun.norm(dim=-1, keepdim=True)
        spread = torch.stack([self.uniform(-0.7, 0.7), self.uniform(-0.95, -0.7), self.uniform(-0.7, 0.7)], -1)
        lamp = torch.cat([spread * corner, torch.ones(self.count, 1)], -1)
        tone = self.uniform(0.85, 1.1, 3)
        power = torch.where(room, self.uniform(0.2, 0.7), self.uniform(0.2, 0.8))
        first = self._textures.tiles + self._textures.photos
        sky = first + (self.uniform(0, 1) * self._textures.skies).floor()
        self._settings["light"] = torch.where(room[:, None], lamp, torch.cat([sun, torch.zeros(self.count, 1)], -1))
        self._settings["light_colour"] = power[:, None] * tone
        self._settings["ambient"] = self.uniform(0.3, 0.65, 1) * (2 - tone)
        self._settings["sky"] = torch.stack([sky, self.uniform(-math.pi, math.pi), self.uniform(0.7, 1.1)], -1)

    def cameras(self, eye: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor], near: float) -> None:
        """Where cameras stand and look, as (lower, upper) corners ``(count, 3)``; ``near`` in metres."""
        self._settings["eye"] = torch.stack(eye, 1)
        self._settings["target"] = torch.stack(target, 1)
        self._settings["near"] = torch.full((self.count,), near)

    def build(self, moving: bool) -> Worlds:
        """The finished scenes; with ``moving``, some of the movable primitives get a velocity and a spin."""
        parts = []
        for kind, slots in (("box", BOXES), ("ellipsoid", ELLIPSOIDS), ("cylinder", CYLINDERS)):
            made = self._parts[kind]
            assert len(made) <= slots, f"{len(made)} primitives of kind {kind}: there are {slots} slots"
            parts += made + [self._nothing()] * (slots - len(made))
        parts += self._parts["terrain"] or [self._nothing()]
        stacked = {name: torch.stack([part[name] for part in parts], 1) for name in parts[0]}
        movable = stacked.pop("movable") & stacked["active"]
        extent = (self._settings["target"][:, 1] - self._settings["target"][:, 0]).norm(dim=-1)[:, None, None]
        shape = (*movable.shape, 3)
        self._settings.setdefault("waves", torch.zeros(self.count, WAVES, 4))
        moves = (torch.rand(movable.shape, generator=self._generator) < 0.3) & movable & moving
        heading = torch.randn(shape, generator=self._generator) * torch.tensor([0.05, 0.01, 0.05]) * extent
        spin = torch.randn(shape, generator=self._generator) * torch.tensor([0.03, 0.25, 0.03])
        return Worlds(**stacked, velocity=heading * moves[..., None], spin=spin * moves[..., None], **self._settings)

    def _tile(self) -> Tensor:
        return (self.uniform(0, 1) * self._textures.tiles).floor()

    def _photo(self) -> Tensor:
        return self._textures.tiles + (self.uniform(0, 1) * self._textures.photos).floor()

    def _nothing(self) -> dict[str, Tensor]:
        n = self.count
        return {
            "rotation": torch.eye(3).expand(n, 3, 3),
            "centre": torch.zeros(n, 3),
            "half": torch.ones(n, 3),
            "active": torch.zeros(n, dtype=torch.bool),
            "shell": torch.zeros(n, dtype=torch.bool),
            "instance": torch.zeros(n, dtype=torch.int32),
            "surface": torch.zeros(n, len(SURFACE)),
            "movable": torch.zeros(n, dtype=torch.bool),
        }

    def _add(
        self,
        kind: str,
        centre: Tensor,
        half: Tensor,
        surface: dict[str, Tensor],
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
            "surface": torch.stack([surface[name] for name in SURFACE], -1),
            "movable": flag & movable,
        }
        if rotation is not None:
            part["rotation"] = rotation
        self._parts[kind].append(part)
