"""Estimates what each source task did to a target, without retraining; and compares the estimate with retraining."""
