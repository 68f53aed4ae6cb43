"""How many cells of a sweep run at once on one GPU: measured, decided and kept."""
