"""JSON, XML, lines and MATLAB arrays, read within limits: what the annotation formats are made of."""
