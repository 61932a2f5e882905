"""What a model is asked: versioned files with front matter, or words of one's own."""

from vlmdata.captioning.prompts.files import load_prompt, shipped_prompts
from vlmdata.captioning.prompts.prompt import Form, Prompt, check_language

__all__ = ["Form", "Prompt", "check_language", "load_prompt", "shipped_prompts"]
