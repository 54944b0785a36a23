"""The Feast source of a Kinesis stream, for definitions."""

from __future__ import annotations

import feast.data_source
from feast.data_format import StreamFormat
from feast.data_source import DataSource
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.repo_config import RepoConfig

_SHARED = ("name", "timestamp_field", "created_timestamp_column", "description", "owner")


class KinesisSource(feast.data_source.KinesisSource):
    """Feast's ``KinesisSource``, which its stream feature views do not accept: they accept custom sources."""

    def source_type(self) -> DataSourceProto.SourceType.ValueType:
        """Return Feast's number for custom sources."""
        return DataSourceProto.CUSTOM_SOURCE

    @staticmethod
    def from_proto(data_source: DataSourceProto) -> KinesisSource:
        """Return the source from its form in a registry."""
        options, has_batch = data_source.kinesis_options, data_source.HasField("batch_source")
        return KinesisSource(
            **{name: getattr(data_source, name) for name in _SHARED},
            field_mapping=dict(data_source.field_mapping),
            tags=dict(data_source.tags),
            record_format=StreamFormat.from_proto(options.record_format),  # type: ignore[no-untyped-call]
            region=options.region,
            stream_name=options.stream_name,
            batch_source=DataSource.from_proto(data_source.batch_source) if has_batch else None,
        )

    def _to_proto_impl(self) -> DataSourceProto:
        proto = super()._to_proto_impl()
        proto.type = DataSourceProto.CUSTOM_SOURCE
        proto.data_source_class_type = f"{KinesisSource.__module__}.{KinesisSource.__name__}"
        return proto

    def validate(self, config: RepoConfig) -> None:
        """Accept it: `skewless doctor --deep` asks AWS for the stream."""
