"""What lies in an index folder: documents, vectors, the manifest, builds in progress."""
