"""The contract of every event stream, over Kinesis."""

from __future__ import annotations

from tests.contract.test_stream_ends import (  # noqa: F401 - collected here
    test_8_4_a_poll_that_was_cut_by_its_limit_leaves_its_partition_undrained,
    test_8_4_of_a_drained_partition_all_was_returned_that_was_there_before_the_poll,
    test_8_4_the_names_of_all_partitions_are_known_whoever_owns_them,
    test_8_4_where_nothing_waits_all_that_is_owned_is_drained,
)
from tests.contract.test_streams import (  # noqa: F401 - as above
    test_1_4_a_stream_that_was_deleted_and_made_again_is_another_life,
    test_4_2_reading_goes_on_where_the_log_ends_whatever_was_committed,
    test_a_broker_that_is_away_is_waited_for,
    test_a_message_without_a_body_is_none,
    test_a_worker_without_a_log_reads_from_the_oldest_message,
    test_about_so_many_messages_come_as_were_asked_for,
    test_an_owner_that_fails_to_take_a_partition_over_is_asked_again,
    test_bodies_are_binary_safe_and_may_be_empty_or_large,
    test_every_message_comes_once_and_those_of_a_key_in_their_order,
    test_groups_do_not_take_messages_from_each_other,
    test_lag_counts_down_as_messages_are_returned,
    test_members_share_the_partitions_and_nothing_is_lost_as_one_joins_and_leaves,
    test_messages_without_a_key_come_once_too,
    test_nothing_comes_from_an_empty_stream_and_nothing_is_sent_for_nothing,
    test_one_worker_owns_all_partitions_and_lets_them_go_when_it_closes,
    test_what_is_committed_is_kept_and_lag_is_what_was_not_returned,
)
