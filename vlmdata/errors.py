"""Every error this library raises on purpose, as one tree.

    VlmdataError                  1   anything else
    ├── UserError                 2   a config, argument or input that cannot be used
    │   ├── ConfigError               a key, a value, a model name, a missing secret
    │   ├── SourceError               pictures or captions that cannot be read as asked
    │   └── StoreError                the object store refuses, or is not there
    ├── GateFailed                3   a quality gate said no
    │   └── NeedsCleaning             images do not find their captions
    ├── BuildIncomplete           4   done in part: a rerun does what is left
    │   ├── Overtaken                 another run published meanwhile
    │   └── HeldByOther               another night is under way
    ├── DoesNotHold               1   an export is not what was written, or a picture that was forgotten is in the store
    ├── Diverged                  1   a training's loss is no number any more
    └── BrokenInvariant           1   the accounts do not add up: a defect of ours

The number is the exit code of the command line. A message is one line that
names the thing, its value, what was expected and what to change.
"""

from __future__ import annotations

from collections.abc import Sequence


class VlmdataError(Exception):
    """The root; caught at the front door, never inside."""

    exit_code = 1


class UserError(VlmdataError):
    """Something the person who started the run can put right."""

    exit_code = 2


class ConfigError(UserError):
    """A config key or value, a command argument, or an environment variable."""


class SourceError(UserError):
    """A source of pictures or captions that cannot be used."""


class StoreError(UserError):
    """An object store that is missing, refuses the credentials or the write."""


class GateFailed(VlmdataError):
    """A health rule of a stage did not hold; nothing after that stage was made."""

    exit_code = 3


class NeedsCleaning(GateFailed):
    """The retrieval check: too many images do not find their captions; nothing was exported."""


class BuildIncomplete(VlmdataError):
    """Shards were lost, or samples failed in a way that a rerun may mend."""

    exit_code = 4


class Overtaken(BuildIncomplete):
    """Another run published the next version first; a rerun goes on from that one."""


class HeldByOther(BuildIncomplete):
    """Another run holds the dataset for the night; a rerun after it has something to do, or nothing."""


class DoesNotHold(VlmdataError):
    """What was to be proven is not so: an export is damaged or not all there, or something forgotten is still kept."""


class Diverged(VlmdataError):
    """A training's loss is NaN or infinite; its last checkpoint is from before.

    Attributes:
        samples: ids of the batch's samples.
    """

    def __init__(self, message: str, samples: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.samples = list(samples)


class BrokenInvariant(VlmdataError):
    """Samples went missing between two stages; the manifest is not written."""
