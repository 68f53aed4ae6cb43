"""Labels and decision values in, scores with confidence intervals out."""
