"""`perco app`: the codec in a browser, on this machine alone unless a host is named."""

from typing import Annotated

import typer

from perco_lite.cli.options import Device, Dtype, MaxPixels, Weights, note, say
from perco_lite.files import MAX_PAINTED


def app_command(
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for everybody who reaches you.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 = any that is free.", min=0, max=65535)] = 7860,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
    max_pixels: MaxPixels = MAX_PAINTED,
    weights: Weights = None,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Compress and paint photos on a page in the browser."""
    import os

    # threads that wait in a loop slow each other down where two visitors share the cores
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from perco_lite.app.intake import find_captioner
    from perco_lite.app.server import check_gradio, free_port, open_browser, serve
    from perco_lite.loading import load_codec

    check_gradio()
    port = free_port(host, port)  # before the weights are loaded

    def ready(address: str) -> None:
        say(f"perco app: {address}  (Ctrl-C ends it)")
        if browser and not open_browser(address):
            note("no browser could be opened; open that address in one")

    codec = load_codec(weights, device, dtype)
    serve(codec, host, port, max_pixels, find_captioner(), ready)
