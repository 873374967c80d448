"""Whether the model hub can be reached."""

from __future__ import annotations

import time

_SECONDS = 30
_ATTEMPTS = 2


def reach_hub(name: str, file: str, *, revision: str | None = None, kind: str = "model") -> None:
    """Return if the hub answers, whatever it says of a file of a model or data set.

    Its library would try each file six times, which takes up to two minutes. This makes two
    attempts, and waits longer than the library for a slow network to answer.

    Parameters
    ----------
    kind : "model" or "dataset".

    Raises
    ------
    OSError : the hub cannot be reached.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    address = hf_hub_url(name, file, revision=revision, repo_type=kind)
    started = time.monotonic()
    for attempt in range(_ATTEMPTS):
        try:
            get_hf_file_metadata(address, timeout=_SECONDS)
        except HfHubHTTPError:  # fetching the file says what is wrong
            return
        except OfflineModeIsEnabled:
            raise OSError("HF_HUB_OFFLINE is set, and it is not in the cache.") from None
        except Exception as error:  # of the HTTP library, which differs between versions
            if attempt + 1 < _ATTEMPTS and time.monotonic() - started < _SECONDS / 2:
                time.sleep(1)
                continue
            reason = f"{error}".rstrip(".") or type(error).__name__
            raise OSError(f"{constants.ENDPOINT} cannot be reached ({reason}).") from error
        else:
            return
