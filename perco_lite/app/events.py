"""What happens on the page: which event asks for which answer, and which parts it fills.

    event ──inputs──► Answers ──{part: value}──► outputs
                         └── whatever goes wrong ──► one sentence, and the server goes on

What was uploaded is read at once, since it is swept seconds later. Painting waits for one of a few
painters; rivals, which take as long, have a queue of their own.
"""

import contextlib
import inspect
from collections.abc import Callable
from functools import wraps
from types import SimpleNamespace

from perco_lite.app.answers import Answers
from perco_lite.app.intake import Photo, samples, shrink
from perco_lite.app.painting import AT_ONCE
from perco_lite.files import explain

QUEUES = {"painting": AT_ONCE, "rivals": AT_ONCE, "none": None}  # visitors served at once
TAKEN = "photo about caption result details rivals seeds damage file"
OPENED = "file about_file result details rivals seeds damage"
MADE = "status file rates result details"


def connect_events(gr, box: SimpleNamespace, answers: Answers) -> None:
    """Connect the parts of the page in ``box`` with answers."""
    connect = _Connector(gr, box)
    knobs = [box.steps, box.guidance, box.seed]

    def compress(photo, caption, rate, *knobs):
        yield from answers.compress(photo, caption, answers.rates[int(rate)], *knobs)

    def compress_taken(photo, *options):
        if photo is None:  # taken away, maybe while it was painted: nothing of it stays
            yield dict.fromkeys(("status", "file", "result", "details"), "")
        else:
            yield from compress(photo, *options)

    def paint_photo(start, compress=compress_taken, **options) -> None:
        """Then AVIF and WebP, for a photo whose file was made."""
        inputs = [box.photo, box.caption, box.rate, *knobs]
        painted = connect(start, compress, inputs, MADE, **options)
        connect([painted.success], answers.rivals, [box.photo, box.file], "rivals", queue="rivals")

    photo = [box.photo, box.full_size]
    take = connect([box.photo.input], answers.take_photo, photo, TAKEN, queue="none")
    pick = connect([box.tray.click], _picker(gr, answers), [], TAKEN, queue="none")
    paint_photo([take.success])
    paint_photo([pick.success])
    pressed = [box.compress.click, box.caption.submit, box.rate.release]
    paint_photo(pressed, compress, name="compress")

    file = [box.file, *knobs]
    take = connect([box.upload.upload], answers.take_file, [box.upload], OPENED, queue="none")
    connect([take.success], answers.paint, file, "status result details")
    connect([box.paint.click], answers.paint, file, "status result details", name="paint")
    connect([box.more.click], answers.seeds, [*file, box.count], "seeds", name="seeds")
    flip = [box.file, box.bits, box.which]
    connect([box.flip.click], answers.damage, flip, "damage", queue="none", name="damage")


class _Connector:
    """Connects events with one answer; of the page, only what the answer changed is sent."""

    def __init__(self, gr, box: SimpleNamespace):
        self.gr, self.box = gr, box

    def __call__(
        self,
        events: list,
        answer: Callable,
        inputs: list,
        outputs: str,
        queue: str = "painting",
        name: str | None = None,
    ):
        """``outputs``: names of parts, progress is shown on the first; ``queue``: one of QUEUES.

        ``name``: of the answer in the page's API; by default it has none.
        """
        parts = outputs.split()
        filled = [getattr(self.box, part) for part in parts]
        # a private answer takes no public one's name
        options = {"api_name": name or f"page_{answer.__name__}"}
        options |= {"api_visibility": "public" if name else "private"}
        options |= {"concurrency_id": queue, "concurrency_limit": QUEUES[queue]}
        options |= {"show_progress": "minimal" if QUEUES[queue] else "hidden"}
        options |= {"show_progress_on": filled[0], "trigger_mode": "always_last"}
        told = self._told(answer, parts)
        if len(events) == 1:  # gr.on knows no success of another event
            return events[0](told, inputs, filled, **options)
        return self.gr.on(events, told, inputs, filled, **options)

    def _told(self, answer: Callable, parts: list[str]) -> Callable:
        def values(changed: dict) -> list:
            return [changed.get(part, self.gr.skip()) for part in parts]

        @wraps(answer)
        def at_once(*inputs):
            with self._one_sentence():
                return values(answer(*inputs))

        @wraps(answer)
        def in_pieces(*inputs):
            with self._one_sentence():
                for changed in answer(*inputs):
                    yield values(changed)

        return in_pieces if inspect.isgeneratorfunction(answer) else at_once

    @contextlib.contextmanager
    def _one_sentence(self):
        try:
            yield
        except Exception as error:  # whatever it is, the visitor is told and the server goes on
            message = explain(error)
            raise self.gr.Error(message, print_exception=False, duration=None) from None


def _picker(gr, answers: Answers) -> Callable:
    photos = samples()

    def pick(event: gr.EventData) -> dict:
        sample = photos[int(event.number)]
        photo = Photo(shrink(sample.image), sample.image.size)
        return answers.show_photo(photo, sample.caption)

    return pick
