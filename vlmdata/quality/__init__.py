"""`03_quality_checked`: CLIPScore and its bands."""
