"""A sweep without the cells that cannot change its outcome: combinations drop out rung by rung."""
