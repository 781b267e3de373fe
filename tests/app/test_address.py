"""Where the page is served, and what is said where it cannot be; needs no Gradio."""

import sys

import pytest

from perco_lite.app.server import free_port, open_browser


def test_addresses_that_cannot_be_had():
    assert free_port("127.0.0.1", 0) > 0
    for host in ("192.0.2.1", "no such host"):
        with pytest.raises(OSError, match=f"cannot listen on {host}, port 7860"):
            free_port(host, 7860)


def test_no_browser_is_no_fault(monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("webbrowser.open", lambda address: pytest.fail("a browser in a terminal"))
    assert open_browser("http://127.0.0.1:1/") is False
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("webbrowser.open", lambda address: False)
    assert open_browser("http://127.0.0.1:1/") is False


def test_without_gradio_the_extra_is_named(perco, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, out, err = perco("app", "--no-browser")
    assert code == 2 and err == "error: the page needs gradio: pip install 'perco_lite[app]'\n"
