"""Turn pictures, with or without captions, into a vision-language training set.

The library knows nothing of an orchestrator: every stage is a function from
checkpoints to a checkpoint, usable by itself from a notebook. Importing this
package loads no heavy library; the functions that need one import it.
"""

__version__ = "0.1.0"
