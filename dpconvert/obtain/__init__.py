"""Downloads the files of a source from the web, or from a Cytomine server."""
