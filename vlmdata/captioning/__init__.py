"""`02_captioned`: captions from an API for the samples that want one."""
