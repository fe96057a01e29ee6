"""The vault: blobs by digest."""
