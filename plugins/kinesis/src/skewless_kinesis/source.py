"""The Feast source of a Kinesis stream, for definitions."""

from __future__ import annotations

import feast.data_source
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.repo_config import RepoConfig

_SHARED = ("name", "timestamp_field", "created_timestamp_column", "field_mapping", "description", "tags", "owner")


class KinesisSource(feast.data_source.KinesisSource):
    """Feast's ``KinesisSource``, which its stream feature views do not accept: they accept custom sources."""

    def source_type(self) -> DataSourceProto.SourceType.ValueType:
        """Return Feast's number for custom sources."""
        return DataSourceProto.CUSTOM_SOURCE

    @staticmethod
    def from_proto(data_source: DataSourceProto) -> KinesisSource:
        """Return the source from its form in a registry."""
        base = feast.data_source.KinesisSource.from_proto(data_source)
        options = base.kinesis_options
        place = {"region": options.region, "stream_name": options.stream_name, "record_format": options.record_format}
        return KinesisSource(**{name: getattr(base, name) for name in _SHARED}, **place, batch_source=base.batch_source)

    def _to_proto_impl(self) -> DataSourceProto:
        proto = super()._to_proto_impl()
        proto.type = DataSourceProto.CUSTOM_SOURCE
        proto.data_source_class_type = f"{KinesisSource.__module__}.{KinesisSource.__name__}"
        return proto

    def validate(self, config: RepoConfig) -> None:
        """Accept it: `skewless doctor --deep` asks AWS for the stream."""
