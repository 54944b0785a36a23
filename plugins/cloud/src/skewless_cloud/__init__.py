"""The files of a project in a bucket of S3, Google Cloud Storage or Azure, for several machines."""
