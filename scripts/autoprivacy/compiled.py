"""Where compiled kernels are kept when neither the installation nor the home folder can be written."""

import os
import tempfile
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"


def choose_cache() -> None:
    """Name a folder for numba's cache in the environment where numba would find none; before numba is imported.

    numba takes the folder of the source file, else one in the home folder, and ends with an error where neither can be
    written. The folder named here is the user's own, so that nobody else can put code into it.
    """
    if cache_place() is not None:
        return
    place = Path(tempfile.gettempdir()) / f"autoprivacy-{os.getuid()}"
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        status = place.lstat()
    except OSError:
        return  # numba has its say
    if status.st_uid == os.getuid() and not status.st_mode & 0o022 and place.is_dir() and not place.is_symlink():
        os.environ[VARIABLE] = str(place)


def cache_place() -> Path | None:
    """Where numba keeps compiled code, as far as it can be written: what the environment names, else as it looks."""
    if VARIABLE in os.environ:
        return Path(os.environ[VARIABLE])
    sources = Path(__file__).parent / "__pycache__"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path(os.path.expanduser("~")) / ".cache")
    return next((place for place in (sources, home) if _writable(place)), None)


def _writable(place: Path) -> bool:
    """Whether files can be made in a folder, or the folder itself."""
    while not place.exists() and place != place.parent:
        place = place.parent
    return os.access(place, os.W_OK)
