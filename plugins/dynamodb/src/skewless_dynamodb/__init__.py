"""The online store in a DynamoDB table: a plug-in of skewless, found by its entry point."""
