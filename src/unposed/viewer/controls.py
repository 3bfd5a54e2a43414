"""The viewer's panel: confidence, sizes, a view to look through, downloads."""

import io
import tempfile
import webbrowser
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import viser

from unposed.io.colmap import write_colmap
from unposed.scene import Scene
from unposed.viewer.content import STEP, depth_picture, display, thumbnail, wxyz
from unposed.views import Camera

UP = (0.0, 1.0, 0.0)
_NO_VIEW = "-"


def view_scene(
    scene: Scene, port: int = 8080, open_browser: bool = False, host: str = "127.0.0.1"
) -> viser.ViserServer:
    """Serve a scene to browsers and return at once; ``server.stop()`` ends it.

    Args:
        scene: with at least one view; other components are offered in a list.
        port: the next free one is taken if it is busy (``server.get_port()``).
        open_browser: open a window of the default browser.
        host: address to listen on; the default is reached from this machine only.
    """
    server = viser.ViserServer(host=host, port=port, label="unposed", verbose=False)
    server.gui.configure_theme(control_layout="collapsible", show_logo=False, show_share_button=False)
    server.scene.set_up_direction(UP)
    Panel(server, scene)
    if open_browser:
        webbrowser.open(f"http://localhost:{server.get_port()}")
    return server


class Panel:
    """The controls, and the component that they act on."""

    def __init__(self, server: viser.ViserServer, scene: Scene) -> None:
        self._server = server
        self._components = [part for part in (scene, *scene.others) if part.views]
        self._facts = server.gui.add_markdown("")
        labels = [f"{k}: {len(part.views)} photos" for k, part in enumerate(self._components, start=1)]
        self._component = server.gui.add_dropdown("Component", labels, visible=len(labels) > 1)
        self._display = display(server, self._components[0])
        self._add_points_controls()
        self._add_view_controls()
        self._add_downloads()
        self._component.on_update(lambda _: self._show(self._components[labels.index(self._component.value)]))
        server.on_client_connect(self._to_overview)
        self._entered()

    def _add_points_controls(self) -> None:
        gui = self._server.gui
        with gui.add_folder("Points"):
            self._hidden = gui.add_slider(
                "Hide lowest %", 0, 100 - STEP, STEP, 0, hint="Hides the points of lowest confidence."
            )
            self._point_size = gui.add_slider("Point size", 0.2, 5.0, 0.1, 1.0, hint="1: neighbouring pixels touch.")
        self._hidden.on_update(lambda _: self._update_points())
        self._point_size.on_update(lambda _: self._resize_points())

    def _add_view_controls(self) -> None:
        gui = self._server.gui
        with gui.add_folder("Cameras"):
            self._cameras = gui.add_checkbox("Show cameras", True)
            self._depth = gui.add_checkbox("Depth maps", False, hint="Depth in place of the photos; near is red.")
            self._camera_size = gui.add_slider("Camera size", 0.1, 4.0, 0.1, 1.0)
            self._view = gui.add_dropdown("View", (_NO_VIEW,), hint="Or click a camera to look through it.")
            self._picture = gui.add_image(np.zeros((1, 1, 3), np.uint8), visible=False)
            overview = gui.add_button("Overview")
        self._cameras.on_update(lambda _: self._mark())
        self._depth.on_update(lambda _: self._change_pictures())
        self._camera_size.on_update(lambda _: self._resize_cameras())
        self._view.on_update(lambda event: self._look_through(self._view.value, event.client))
        overview.on_click(lambda event: self._leave_view(event.client))

    def _add_downloads(self) -> None:
        gui = self._server.gui
        with gui.add_folder("Download"):
            for label, name, make in (
                ("Points and cameras (GLB)", "scene.glb", self._exported),
                ("Points (PLY)", "scene.ply", self._exported),
                ("COLMAP model (zip)", "colmap.zip", self._colmap_zip),
            ):
                gui.add_button(label).on_click(_sender(name, make))

    def _show(self, scene: Scene) -> None:
        """Replace the component in the 3D view."""
        self._display.remove()
        self._display = display(self._server, scene)
        self._entered()
        for client in self._server.get_clients().values():
            self._to_overview(client)

    def _entered(self) -> None:
        """Set the controls up for the component."""
        scene, frusta = self._display.scene, self._display.frusta
        self._base_point_size = self._display.clouds[0].point_size if self._display.clouds else 0.0
        self._base_camera_size = {name: frustum.scale for name, frustum in frusta.items()}
        self._view.options = (_NO_VIEW, *frusta)
        self._view.value = _NO_VIEW
        self._picture.visible = False
        for name, frustum in frusta.items():
            frustum.on_click(_picker(self._view_clicked, name))
        default = scene.default_min_confidence
        below = sum(threshold < default for threshold in self._display.thresholds)
        self._hidden.value = min(below * STEP, 100 - STEP)
        self._depth.value = False
        self._update_points()
        self._resize_points()
        self._resize_cameras()

    def _update_points(self) -> None:
        percent, shown = int(self._hidden.value), self._display
        shown.hide_least_confident(percent)
        scene = shown.scene
        units = "metres" if scene.metric else "up to scale"
        count = shown.count * (100 - percent) // 100
        self._facts.content = (
            f"**{len(scene.views)} photos**, {scene.model or 'unknown model'}, {units}\n\n"
            f"{count:,} points with confidence from {shown.threshold(percent):.2f}"
        )

    def _resize_points(self) -> None:
        for cloud in self._display.clouds:
            cloud.point_size = self._base_point_size * self._point_size.value

    def _resize_cameras(self) -> None:
        for name, frustum in self._display.frusta.items():
            frustum.scale = self._base_camera_size[name] * self._camera_size.value

    def _change_pictures(self) -> None:
        self._display.show_pictures(depth=self._depth.value)
        self._show_picture()

    def _show_picture(self) -> None:
        """The chosen view's photo or depth map in the panel."""
        name = self._view.value
        self._picture.visible = name != _NO_VIEW
        if name != _NO_VIEW:
            item = self._display.shown[name]
            self._picture.image = thumbnail(depth_picture(item) if self._depth.value else item.view.image.numpy())

    def _mark(self) -> None:
        name = self._view.value
        self._display.mark(None if name == _NO_VIEW else name, hidden=True)
        if not self._cameras.value:
            for frustum in self._display.frusta.values():
                frustum.visible = False

    def _view_clicked(self, name: str, client: viser.ClientHandle) -> None:
        self._view.value = name
        self._look_through(name, client)

    def _look_through(self, name: str, client: viser.ClientHandle | None) -> None:
        """Move a browser's camera into a view's, wide enough for the whole photo."""
        self._show_picture()
        self._mark()
        if name == _NO_VIEW or client is None:
            return
        item = self._display.shown[name]
        known = item.depth[item.depth > 0]
        _move(client, item.camera, pivot=float(known.median()) if len(known) else 1.0)

    def _leave_view(self, client: viser.ClientHandle | None) -> None:
        self._view.value = _NO_VIEW
        self._show_picture()
        self._mark()
        if client is not None:
            self._to_overview(client)

    def _to_overview(self, client: viser.ClientHandle) -> None:
        _move(client, self._display.overview, pivot=float(self._display.overview.centre.norm()))

    def _exported(self, name: str) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            self._display.scene.export(Path(folder) / name, self._display.threshold(int(self._hidden.value)))
            return (Path(folder) / name).read_bytes()

    def _colmap_zip(self, name: str) -> bytes:
        """The model alone: whoever reconstructed the photos has them."""
        scene, data = self._display.scene, io.BytesIO()
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
            write_colmap(Path(folder) / "0", scene.cameras, scene.tracks or scene.sparse_points())
            for file in sorted((Path(folder) / "0").iterdir()):
                archive.write(file, f"sparse/0/{file.name}")
        return data.getvalue()


def _move(client: viser.ClientHandle, camera: Camera, pivot: float) -> None:
    """Put a browser's camera at ours, wide enough for the whole picture; the mouse turns about a point at ``pivot``."""
    half_height = camera.height / 2 / float(camera.intrinsics[1, 1])
    half_width = camera.width / 2 / float(camera.intrinsics[0, 0])
    with client.atomic():
        client.camera.up_direction = UP
        client.camera.position = camera.centre.numpy()
        client.camera.look_at = (camera.centre + pivot * camera.world_from_camera[:3, 2]).numpy()
        client.camera.wxyz = wxyz(camera)
        client.camera.fov = 2 * float(np.arctan(max(half_height, half_width / client.camera.aspect)))


def _sender(name: str, make: Callable[[str], bytes]) -> Callable[[viser.GuiEvent], None]:
    def send(event: viser.GuiEvent) -> None:
        if event.client is not None:
            event.client.send_file_download(name, make(name), save_immediately=True)

    return send


def _picker(
    pick: Callable[[str, viser.ClientHandle | None], None], name: str
) -> Callable[[viser.SceneNodePointerEvent], None]:
    return lambda event: pick(name, event.client)
