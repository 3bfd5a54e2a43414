"""What ``unposed train`` can be told: the recipe of a name with a user's options, and how long it runs."""

from collections.abc import Callable
from pathlib import Path

from unposed.errors import UserError
from unposed.train.budget import Budget, Clock, Steps
from unposed.train.distributed import Processes
from unposed.train.log import Record
from unposed.train.loop import Cadence, Summary, train
from unposed.train.recipe import Recipe
from unposed.train.stage_options import StageOptions

_LARGE_CHECKPOINT_SECONDS = 600.0
"""Weights, their average and two moments of 570 million parameters are 9 GB."""


def train_command(
    recipe: str,
    minutes: float | None,
    out: Path,
    resume: Path | None = None,
    textures: Path | None = None,
    device: str = "auto",
    photos: Path | None = None,
    side: int | None = None,
    scenes: int | None = None,
    tiny: bool = False,
    begin: float = 0.0,
    steps: int | None = None,
    published: StageOptions | None = None,
    tensorboard: bool = False,
    on_record: Callable[[Record], None] | None = None,
) -> Summary:
    """Train one of the recipes ``mini``, ``dust3r`` and ``composed``; see ``train``.

    ``steps``: so many steps, in place of ``minutes``. ``textures``: folder of tile_*, photo_* and pano_* images for the
    procedural scenes. ``photos``: train a pair network on one's own photos instead (``unposed.train.posed``).
    ``side``: one size of square images, a multiple of 16, in place of the recipe's curriculum. ``scenes``: scenes (or
    pairs of photos) per step. ``tiny``: a small network for trying things out on a CPU. ``published``: a stage of
    DUSt3R's training on data sets, which needs neither minutes nor steps.

    Raises:
        UserError: an unknown recipe, an option that the recipe does not have, and what ``train`` raises.
    """
    processes = Processes(device)
    cadence, own_steps, compiled = Cadence(), None, None
    if published is not None and (published.stage is not None or published.data is not None):
        if recipe != "dust3r" or textures or photos or side or scenes or tiny:
            raise UserError("--stage and --data are for the recipe dust3r, without options of procedural scenes.")
        made, cadence, own_steps = _stage(published, processes)
        compiled = False  # portrait and landscape photos share batches in ever new numbers: ever new graphs
    else:
        made = _recipe(recipe, textures, photos, side, scenes, tiny, processes.world)
    return train(
        made,
        _budget(minutes, steps, own_steps),
        out,
        resume=resume,
        begin=begin,
        processes=processes,
        compiled=compiled,
        cadence=cadence,
        tensorboard=tensorboard,
        on_record=on_record,
    )


def _stage(options: StageOptions, processes: Processes) -> tuple[Recipe, Cadence, int]:
    """A stage of DUSt3R's training, validated after every epoch, and the steps of its epochs."""
    from unposed.train.dust3r_recipe import dust3r_stage

    recipe = dust3r_stage(options, processes)
    return recipe, Cadence(checkpoint_seconds=_LARGE_CHECKPOINT_SECONDS, validations=recipe.epochs), recipe.steps


def _budget(minutes: float | None, steps: int | None, own_steps: int | None) -> Budget:
    """By the clock or by steps, as the user says; else the recipe's own number of steps."""
    if minutes is None and steps is None:
        steps = own_steps
    if (minutes is None) == (steps is None):
        raise UserError("a run ends by the clock or by its steps: give --minutes or --steps.")
    if minutes is not None and minutes <= 0:
        raise UserError("the training time must be more than 0 minutes: give --minutes.")
    if steps is not None and steps <= 0:
        raise UserError("the number of steps must be more than 0: give --steps.")
    return Clock(minutes) if minutes is not None else Steps(steps or 0)


def _recipe(
    name: str,
    textures: Path | None,
    photos: Path | None,
    side: int | None,
    scenes: int | None,
    tiny: bool,
    world: int,
) -> Recipe:
    """The recipe of a name with a user's options."""
    from unposed.train import composed_recipe, recipes  # networks and scenes: only when they are trained

    if side is not None and (side < 32 or side % 16):
        raise UserError("--side must be a multiple of 16, at least 32.")
    if name == "mini":
        return recipes.mini_recipe(textures, side, scenes, photos, tiny, world)
    if tiny or name not in ("composed", "dust3r"):
        raise UserError(f"there is no {'tiny ' * tiny}recipe {name}: use mini (also --tiny), composed or dust3r.")
    if name == "dust3r":
        return recipes.dust3r_recipe(textures, side, scenes, photos, world)
    if textures is None or photos is not None or scenes is not None:
        raise UserError("the composed recipe needs --textures, and takes neither --photos nor --scenes.")
    config = composed_recipe.ComposedConfig() if side is None else composed_recipe.ComposedConfig(side=side)
    return composed_recipe.ComposedRecipe(textures, config)
