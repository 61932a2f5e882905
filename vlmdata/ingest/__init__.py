"""`00_raw`: what people have becomes shards of original bytes, captions and provenance."""
