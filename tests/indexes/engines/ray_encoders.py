"""Encoders that the workers of the Ray tests import and build; each has its way to fail."""

import time
from pathlib import Path

from tests.indexes.fakes import HashingEncoder, die


class Mortal(HashingEncoder):
    """Kills its worker when it meets a text, as often as ``flags`` has no such file yet."""

    def __init__(self, text, flags, deaths=1):
        super().__init__()
        self.text, self.flags, self.deaths = text, Path(flags), deaths

    def encode_documents(self, texts):
        met = len(list(self.flags.glob("*")))
        if self.text in texts and met < self.deaths:
            (self.flags / str(met)).touch()
            die()
        return super().encode_documents(texts)


class Choosy(HashingEncoder):
    """Cannot encode one text."""

    def __init__(self, text):
        super().__init__()
        self.text = text

    def encode_documents(self, texts):
        if self.text in texts:
            raise ValueError("this text is not for me")
        return super().encode_documents(texts)


class Uneven(HashingEncoder):
    """Takes longer for a chunk whose first text is longer, so that chunks overtake each other."""

    def encode_documents(self, texts):
        time.sleep(0.3 if "title 0 " in f"{texts[0]} " else 0.0)
        return super().encode_documents(texts)


class Stalled(HashingEncoder):
    """Takes ten minutes for one text, and leaves a file after them."""

    def __init__(self, text, flag):
        super().__init__()
        self.text, self.flag = text, Path(flag)

    def encode_documents(self, texts):
        if self.text in texts:
            time.sleep(600)
            self.flag.touch()
        return super().encode_documents(texts)


class Counting(HashingEncoder):
    """Leaves a file for each chunk that it encodes."""

    def __init__(self, folder):
        super().__init__()
        self.folder = Path(folder)

    def encode_documents(self, texts):
        (self.folder / f"{time.monotonic_ns()}-{id(self)}").touch()
        return super().encode_documents(texts)


def missing_weights():
    raise OSError("the weights are not on this node")
