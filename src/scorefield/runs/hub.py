"""Models on the Hugging Face hub: ``hub:owner/name``, or ``hub:owner/name@revision``.

Only JSON, YAML and safetensors files are downloaded, into the cache of huggingface_hub, where they
are read the next time without a network. None of them is executed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scorefield.errors import RunError

PREFIX = "hub:"
_PATTERNS = ["*.json", "*.yaml", "*.safetensors"]


def fetched(name: str) -> Path:
    """The folder of a repository, downloaded unless it is there.

    Raises:
        RunError: If huggingface_hub is not installed, there is no such repository or revision, one
            has to ask for access, the hub cannot be reached, or the files cannot be written.
    """
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError as error:
        raise RunError(
            f"{name} is read by huggingface_hub, which is not installed: "
            "pip install huggingface_hub"
        ) from error
    # Of the library that makes the requests, whichever it is, the base of its errors.
    client: Any = errors
    repository, _, revision = name.removeprefix(PREFIX).partition("@")
    try:
        return Path(
            snapshot_download(repository, revision=revision or None, allow_patterns=_PATTERNS)
        )
    except errors.GatedRepoError as error:
        why = "its owner grants access on request: ask on its page, and log in (hf auth login)"
        raise RunError(f"{name} is gated: {why}") from error
    except errors.RepositoryNotFoundError as error:
        why = "or it is private and you are not logged in (hf auth login)"
        raise RunError(f"the hub has no repository {repository!r}, {why}") from error
    except errors.RevisionNotFoundError as error:
        raise RunError(f"{repository!r} has no revision {revision or 'main'!r}") from error
    except errors.LocalEntryNotFoundError as error:
        why = "the hub cannot be reached, and there is no whole copy in the cache of this machine"
        raise RunError(f"{name}: {why}") from error
    except errors.HFValidationError as error:
        raise RunError(f"{name!r} must be as in hub:owner/name or hub:owner/name@main") from error
    except (client.HTTPError, OSError) as error:
        raise RunError(f"{name} cannot be downloaded: {type(error).__name__}: {error}") from error
