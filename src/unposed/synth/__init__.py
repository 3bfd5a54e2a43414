"""Procedural scenes with perfect ground truth: ray-cast primitives, photo or procedural textures, random cameras."""

from unposed.synth.augment import augment
from unposed.synth.render import RenderedViews, render_scenes
from unposed.synth.textures import Textures, load_textures, procedural_textures
from unposed.synth.truth import covisibility, optical_flow, scene_flow, world_points

__all__ = [
    "RenderedViews",
    "Textures",
    "augment",
    "covisibility",
    "load_textures",
    "optical_flow",
    "procedural_textures",
    "render_scenes",
    "scene_flow",
    "world_points",
]
