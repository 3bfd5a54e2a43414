"""`unposed view`."""

from pathlib import Path

from tyro.conf import Positional

from unposed.cli.app import COMMON, CommonOptions, app
from unposed.tasks.progress import reporter_for


@app.command
def view(scene: Positional[Path], port: int = 8080, browser: bool = True, common: CommonOptions = COMMON) -> None:
    """Look at a scene in the browser: points, cameras with their photos, depth, downloads.

    Args:
        scene: Folder that `unposed reconstruct` wrote.
        port: Port on this machine.
        browser: Open a browser window.
        common: Options of every verb.
    """
    from unposed.scene import Scene
    from unposed.viewer import view_scene

    server = view_scene(Scene.load(scene), port=port, open_browser=browser)
    reporter_for(common.quiet).say(f"http://localhost:{server.get_port()} - Ctrl-C ends")
    server.sleep_forever()
