"""Exercises of notebooks 00 and 04 to 06: bytes, bits, words, priors.

Paper: nothing on this.
"""

import numpy as np

from perco_lite.course.rules import number, rule, several, tried, tried_for_number

number("00.1", "5ae2300d6967", 0, "bytes of header and grid")
number("00.2", "7ad129668811", 0, "bytes of the grid alone")


@rule("00.3")
def _message(answer: object) -> str | None:
    import base64
    import binascii

    for data in (bytes(range(200, 256)), b"\x00" * 74):
        found, off = tried(answer, data)
        if off:
            return off
        if not isinstance(found, str) or not found.isascii():
            return "expected a text of plain letters"
        if len(found) > 160:
            return f"{len(data)} bytes became {len(found)} characters, 160 fit into a message"
        try:
            back = base64.b64decode(found, validate=True)
        except binascii.Error as error:
            return f"what comes out is no base64: {error}"
        if back != data:
            return "at the other end, the bytes are not those that were sent"
    return None


number("04.1", "cb68473f0af0", 3, "bits a letter")
number("04.2", "472ad8fe34eb", 0, "how many bytes more")


@rule("04.3")
def _decode(answer: object) -> str | None:
    from fractions import Fraction

    shares = {"!": Fraction(1, 13), "a": Fraction(11, 13), "h": Fraction(1, 13)}
    for text in ("h", "aah!", "!haaa"):
        low, width = Fraction(0), Fraction(1)
        for letter in text:
            low += width * sum(p for other, p in shares.items() if other < letter)
            width *= shares[letter]
        for point in (low, low + width / 2):
            found, off = tried(answer, point, shares, len(text))
            if off:
                return off
            if not isinstance(found, str) or len(found) != len(text):
                return f"expected a text of {len(text)} letters, got {found!r}"
            if found != text:
                same = next(i for i, (a, b) in enumerate(zip(found, text, strict=True)) if a != b)
                return f"{point} should give {len(text)} letters, of which {same} are right"
    return None


@rule("05.1")
def _own_table(answer: object) -> str | None:
    from perco_lite.coding.caption_model import bundled

    for sentence in ("a red barn beside a pond", "A quokka runs."):
        if not hasattr(answer, "encode") or not hasattr(answer, "decode"):
            return f"got a {type(answer).__name__}, expected what build_caption_model gives"
        if answer.decode(answer.encode(sentence)) != sentence:
            return f"it does not give {sentence!r} back"
    if getattr(answer, "table_id", None) == bundled().table_id:
        return "that is the package's table; count one in captions of your choice"
    return None


number("05.2", "98e04d28f528", 3, "a share")


@rule("05.3")
def _drawn_sentence(answer: object) -> str | None:
    from perco_lite.coding.caption_model import bundled
    from perco_lite.coding.range_coder import RangeDecoder, RangeEncoder

    for data in (bytes(range(60, 120)), b"\x07" * 80):
        found, off = tried(answer, data)
        if off:
            return off
        if found != bundled().decode_from(RangeDecoder(data), RangeEncoder()):
            return "that is not the sentence that the table reads in these bytes"
    return None


@rule("06.1")
def _turned(answer: object) -> str | None:
    values, off = several(answer, 3, "bits an index: as it is, mirrored, upside down")
    if off:
        return off
    if not all(0 < value < 18.1 for value in values):
        return "an index costs between 0 bits and 18 and some"
    return None if values[0] == min(values) else "what was trained on should cost least"


number("06.2", "2f2dcf9ef4dc", 4, "bits an index")


@rule("06.3")
def _counted(answer: object) -> str | None:
    for grid, size in (([[0, 0], [0, 1]], 2), ([[3, 1, 2]], 4)):
        found, off = tried_for_number(answer, np.array(grid), size)
        if off:
            return off
        seen, bits = [1] * size, 0.0
        for index in np.array(grid).flatten():
            bits -= np.log2(seen[index] / sum(seen))
            seen[index] += 1
        if abs(found - bits) > 1e-6:
            fixed = np.size(grid) * np.log2(size)
            why = "they never learn" if found == fixed else "is each counted after it is paid?"
            return f"not the bits of {grid} with {size} codes; {why}"
    return None
