"""What a reconstruction leaves in its folder, and the summary that goes with it."""

import shutil
from pathlib import Path

from unposed.scene import Scene


def write_outputs(scene: Scene, out: Path) -> None:
    """The scene and the files other programs read; further components in ``component_2/`` and so on.

    Writes scene.json, maps.safetensors, scene.ply, scene.glb, colmap/, transforms.json and preview.png, and removes the
    cache of pairs that let an interrupted run continue.

    Raises:
        UserError: the folder cannot be written.
    """
    scene.save(out)
    for part, folder in [(scene, out), *((s, out / f"component_{k}") for k, s in enumerate(scene.others, start=2))]:
        for name in ("scene.ply", "scene.glb", "colmap", "transforms.json", "preview.png"):
            part.export(folder / name)
    shutil.rmtree(out / "pairs", ignore_errors=True)


def summary(scene: Scene, out: Path) -> dict[str, object]:
    """Facts of a reconstruction, for a person or a script."""
    registered = sum(len(s.views) for s in (scene, *scene.others))
    facts: dict[str, object] = {
        "photos": registered + len(scene.unregistered),
        "registered": len(scene.views),
        "skipped": len(scene.provenance.get("skipped", [])),
        "components": [len(s.views) for s in (scene, *scene.others)],
        "unregistered": list(scene.unregistered),
        "model": scene.model,
        "scale": "metric" if scene.metric else "up to scale",
        "sparse_points": 0 if scene.tracks is None else len(scene.tracks.points),
        "dense_points": len(scene.points().positions),
        "seconds": scene.provenance.get("seconds", {}),
        "results": str(out),
        "look_at_it": f"unposed view {out}",
    }
    return facts
