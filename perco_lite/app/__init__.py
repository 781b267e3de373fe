"""The codec in a browser: a page on this machine, or a Hugging Face Space.

    upload ──intake──► photo ──painting──► file, picture ──panels──► HTML ──page──► Gradio
                                  └── rivals of the same bytes        └── server: one address

Only ``page`` and ``server`` know Gradio, the extra ``app``.
"""
