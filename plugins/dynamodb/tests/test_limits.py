"""What DynamoDB refuses, throttles or leaves undone: nothing is lost, and the error has its fix."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from skewless.contract.errors import StoreError
from skewless.infra.reads.online.port import Marker
from skewless.infra.reads.online.store import open_blocking_reader, open_online_store
from tests.contract.store import StorePlace, ranked
from tests.servers.aws import REGION, AwsServer, running_aws

ROWS = {b"sk:p:v:{%d}" % i: ranked(i, body=b"x" * i) for i in range(250)}


def fault(action: str, code: str, n: int, skip: int = 0) -> dict[str, Any]:
    return {"action": action, "code": code, "n": n, "skip": skip}


def test_a_value_of_more_than_an_item_is_refused_before_it_is_sent(aws: AwsServer, online_place: StorePlace) -> None:
    with online_place.store() as store:
        fits = ranked(1, body=b"x" * 300_000)  # moto counts the letters of base64, four for three bytes
        assert store.put([b"sk:p:v:{7}"], [fits]) == 1
        aws.fail()
        with pytest.raises(StoreError, match=r"of 410,0\d\d bytes of 'sk:p:v:': an item has at most 409,600"):
            store.put([b"sk:p:v:{7}"], [ranked(2, body=b"x" * 409_900)])
        assert "PutItem" not in aws.fail()
        assert store.get([b"sk:p:v:{7}"]) == [fits]


def test_keys_that_a_reply_leaves_out_are_asked_for_again(aws: AwsServer, online_place: StorePlace) -> None:
    with online_place.store() as store:
        store.put(list(ROWS), list(ROWS.values()))
        aws.fail(fault("BatchGetItem", "partly", 12))
        assert store.get(list(ROWS)) == list(ROWS.values())
        # Three calls of up to 100 keys, and one more for each reply that had one key of many.
        assert aws.fail()["BatchGetItem"] == 3 + 12


def test_calls_that_are_throttled_are_repeated(aws: AwsServer, online_place: StorePlace) -> None:
    throttled = "ProvisionedThroughputExceededException"
    with online_place.store() as store:
        aws.fail(*(fault(action, throttled, 3) for action in ("PutItem", "BatchGetItem", "TransactWriteItems")))
        assert store.put(list(ROWS)[:20], list(ROWS.values())[:20]) == 20
        assert store.get(list(ROWS)[:20]) == list(ROWS.values())[:20]
        store.set_markers({"m": Marker(7)})
        assert store.read_markers(["m"]) == [Marker(7)]


def test_a_table_that_throttles_for_long_says_so(aws: AwsServer, online_place: StorePlace) -> None:
    with online_place.store() as store:
        aws.fail(fault("PutItem", "ThrottlingException", 10_000))
        with pytest.raises(StoreError, match=r"throttles its callers\. Fix: raise its capacity"):
            store.put([b"k"], [ranked(1)])


def test_4_3_an_update_whose_reply_was_lost_is_applied_once(aws: AwsServer, online_place: StorePlace) -> None:
    with online_place.store() as store:
        aws.fail(fault("PutItem", "lost reply", 1), fault("TransactWriteItems", "lost reply", 1))
        store.put([b"k"], [ranked(1)])
        store.set_markers({"m": Marker(7, 70)})
        assert store.get([b"k"]) == [ranked(1)]
        assert store.read_markers(["m"]) == [Marker(7, 70)]


def test_4_5_rows_and_markers_of_many_calls_are_proven_by_the_oldest_marker(
    aws: AwsServer, online_place: StorePlace
) -> None:
    with online_place.store() as store:
        store.put(list(ROWS), list(ROWS.values()))
        store.set_markers({"m": Marker(7), "n": Marker(3)})
    with closing(open_blocking_reader(online_place.url)) as reader:
        aws.fail()
        assert reader.get_with_markers(list(ROWS), ["m", "n"]) == (list(ROWS.values()), [Marker(7), Marker(3)])
        # Moto refuses a snapshot of more than 25 items, as AWS one of more than 4 MB: it is read in halves.
        assert aws.fail()["TransactGetItems"] > 250 / 23
        with pytest.raises(StoreError, match="has 91 markers to read at one moment, and at most 90 are possible"):
            reader.get_with_markers([b"k"], [f"m{i}" for i in range(91)])


def test_a_table_that_is_missing_or_another_one_is_named(aws: AwsServer, dynamodb_client: Any) -> None:  # noqa: ANN401
    with pytest.raises(
        StoreError, match=r"'none' in eu-central-1: does not exist\. Fix: make it: aws dynamodb create-"
    ):
        open_online_store(f"dynamodb://{REGION}/none?endpoint={aws.endpoint}")
    dynamodb_client.create_table(
        TableName="other",
        AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    with pytest.raises(StoreError, match="has another key than a binary 'k'"):
        open_online_store(f"dynamodb://{REGION}/other?endpoint={aws.endpoint}")


@pytest.mark.parametrize("url", ["dynamodb://eu-central-1", "dynamodb://key:secret@r/t", "dynamodb://r/t?a=b"])
def test_a_url_of_another_form_is_refused_without_its_text(url: str) -> None:
    with pytest.raises(StoreError, match="is not the URL of a DynamoDB table") as caught:
        open_online_store(url)
    assert "secret" not in str(caught.value)


def test_a_caller_without_credentials_or_with_wrong_ones_is_told(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_aws(tmp_path_factory.mktemp("checked")) as server:
        url = f"dynamodb://{REGION}/features?endpoint={server.endpoint}"
        server.check_callers(0)
        with pytest.raises(StoreError, match=r"(?s)refuses this caller: 403: .*InvalidClientTokenId"):
            open_online_store(url)
        for code in ("AccessDeniedException", "UnrecognizedClientException"):
            server.fail(fault("DescribeTable", code, 1))
            with pytest.raises(StoreError, match=f"refuses this caller: {code}: .* Fix: check the credentials"):
                open_online_store(url)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with pytest.raises(StoreError, match="cannot be called without credentials"):
            open_online_store(url)
