"""`perco app` as a Hugging Face Space on a free CPU; started anywhere else, it is the page here."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: visitors share two cores

from perco_lite.app.intake import find_captioner  # noqa: E402
from perco_lite.app.server import PORT, serve  # noqa: E402
from perco_lite.loading import load_codec  # noqa: E402

MAX_PIXELS = 2_000_000  # of a picture: a minute of two cores that others wait for

if __name__ == "__main__":
    everybody = "0.0.0.0" if os.environ.get("SYSTEM") == "spaces" else "127.0.0.1"
    serve(
        load_codec(),
        os.environ.get("GRADIO_SERVER_NAME", everybody),
        int(os.environ.get("GRADIO_SERVER_PORT", PORT)),
        MAX_PIXELS,
        find_captioner(),
    )
