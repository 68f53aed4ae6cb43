"""A sweep file -> cells -> one result file a cell, by one process or many, on one machine or many."""
