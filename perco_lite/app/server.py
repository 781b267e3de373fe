"""One address on this machine that serves the page, and leaves no trace.

    codec ──► Painter ──► Answers ──► page ──launch──► http://127.0.0.1:7860

Nothing goes out: a Content-Security-Policy keeps the browser here, and Gradio's analytics and run
history are off. Uploads lie for seconds in a folder that ends with the server.
"""

import importlib.util
import os
import signal
import socket
import sys
import tempfile
import threading
import warnings
import webbrowser
from collections.abc import Callable
from contextlib import suppress

from perco_lite.app.answers import Answers
from perco_lite.app.intake import MAX_BYTES
from perco_lite.app.page import STYLE, build_page
from perco_lite.app.painting import Painter
from perco_lite.codec import PercoCodec

PORT = 7860  # Gradio's own, and a Space's
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' data: blob:"
)
SESSIONS = 100  # visitors that Gradio remembers; it keeps nothing of theirs


class OnlyHere:
    """ASGI middleware: the browser may load nothing from anywhere else."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def with_policy(message):
            if message["type"] == "http.response.start":
                policy = b"content-security-policy", POLICY.encode()
                message = message | {"headers": [*message["headers"], policy]}
            await send(message)

        await self.app(scope, receive, with_policy)


def serve(
    codec: PercoCodec,
    host: str = "127.0.0.1",
    port: int = PORT,
    max_pixels: int | None = None,
    describe: Callable | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the page until Ctrl-C or SIGTERM; calls ``ready`` with its address, or prints it.

    ``port`` 0: any that is free. ``max_pixels`` of what is painted. Raises ``ImportError`` without
    Gradio, ``OSError`` for an address that cannot be had, each in one line.
    """
    check_gradio()
    port = free_port(host, port)
    with tempfile.TemporaryDirectory(prefix="perco_app_") as folder, _terminated_as_interrupted():
        # read when Gradio is imported
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        os.environ |= {"GRADIO_RUN_HISTORY": "False", "DO_NOT_TRACK": "1"}
        warnings.simplefilter("ignore")  # they would quote captions of visitors
        painter = Painter(codec, **({} if max_pixels is None else {"max_pixels": max_pixels}))
        painter.warm_up()
        page = build_page(Answers(painter, describe))
        try:
            _, address, _ = page.launch(
                server_name=host,
                server_port=port,
                max_file_size=MAX_BYTES,
                css_paths=STYLE,
                prevent_thread_lock=True,
                show_error=True,
                footer_links=[],
                quiet=True,
                share=False,
                ssr_mode=False,
                inbrowser=False,
                state_session_capacity=SESSIONS,
                app_kwargs={"middleware": [(OnlyHere, (), {})]},  # as Starlette unpacks them
            )
            ready(address) if ready else print(address, flush=True)
            threading.Event().wait()
        except KeyboardInterrupt:
            pass
        finally:
            page.close(verbose=False)


def check_gradio() -> None:
    """Raise ``ImportError`` that names the extra, where there is no Gradio; does not import it."""
    if importlib.util.find_spec("gradio") is None:
        raise ImportError("the page needs gradio: pip install 'perco_lite[app]'")


def free_port(host: str, port: int) -> int:
    """The port itself, or for 0 one that is free; ``OSError`` says in one line why not."""
    try:
        family, *_, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            if os.name == "posix":  # else a server that just ended still holds it
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            return probe.getsockname()[1]
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(
            f"cannot listen on {host}, port {port} ({reason}); is a page open there already? Name "
            "another with --port, 0 for any that is free"
        ) from error


def open_browser(address: str) -> bool:
    """Show the page; False where there is no browser, and never one inside the terminal."""
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform.startswith("linux") and not screen:
        return False
    with suppress(Exception):  # of many kinds, by system
        return webbrowser.open(address)
    return False


class _terminated_as_interrupted:
    """SIGTERM ends the server as Ctrl-C does, so that its folder goes with it."""

    def __enter__(self):
        self.main = threading.current_thread() is threading.main_thread()
        if self.main:
            self.before = signal.signal(signal.SIGTERM, signal.default_int_handler)

    def __exit__(self, *error):
        if self.main:
            signal.signal(signal.SIGTERM, self.before)
