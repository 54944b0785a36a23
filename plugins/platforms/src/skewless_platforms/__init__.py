"""The container contracts of KServe, SageMaker, Vertex AI and Azure ML, over the routes of the server."""
