"""Pictures from the web: whom we may ask, what we may take, and how it is fetched."""
