"""`hyena compare`: runs on the same test records side by side."""
