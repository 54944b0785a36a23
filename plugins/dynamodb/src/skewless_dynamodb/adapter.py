"""The adapter of the online store for URLs ``dynamodb://REGION/TABLE``."""

from __future__ import annotations

from skewless.infra.reads.online.port import OnlineAdapter
from skewless_dynamodb.readers import DynamoBlockingReader, DynamoReader
from skewless_dynamodb.store import DynamoStore

DYNAMODB = OnlineAdapter(store=DynamoStore, reader=DynamoReader, blocking_reader=DynamoBlockingReader)
