"""Somebody withdraws consent: a picture and all that was made of it leaves the store, and does not come back."""
