"""The files of a source, downloaded: from the web, or from a Cytomine server."""
