//! The contract of the store, sentence by sentence, for every side of it.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt as _;

use self::shape::{Shape, cluster, sentinels};
use crate::support::{Servers, run_for};

mod accepting;
mod attempting;
mod delivering;
mod keeping;
mod listing;
mod memory;
mod model;
mod observing;
mod owning;
mod postman;
mod reading;
mod redelivering;
mod redis;
mod shape;
mod telling;
mod writing;

/// Runs each sentence against each side. One Redis starts in no time, so each sentence has its own; sentinels and
/// clusters take seconds, so all sentences share one, each under a prefix of its own.
macro_rules! contract {
    ($($chapter:ident { $($sentence:ident)* })*) => {
        contract!(@each $($($chapter $sentence)*)*);
    };
    (@each $($chapter:ident $sentence:ident)*) => {
        mod on_memory {
            use super::shape::Shape;
            $(
                #[test]
                fn $sentence() {
                    crate::support::run(super::$chapter::$sentence(Shape::memory()));
                }
            )*
        }
        mod on_redis {
            use super::shape::{Shape, alone};
            $(
                #[test]
                fn $sentence() {
                    crate::support::run(async {
                        let servers = alone().await;
                        super::$chapter::$sentence(Shape::on(&servers)).await;
                    });
                }
            )*
        }
        /// All sentences on these servers; says which do not hold.
        async fn all_hold(servers: Rc<Servers>) {
            let mut false_ones: Vec<&str> = Vec::new();
            $(
                println!("{}: {}", stringify!($chapter), stringify!($sentence));
                let sentence = $chapter::$sentence(Shape::on(&servers));
                let guarded = tokio::time::timeout(SENTENCE, AssertUnwindSafe(sentence).catch_unwind());
                if !matches!(guarded.await, Ok(Ok(()))) {
                    false_ones.push(stringify!($sentence));
                }
            )*
            assert!(false_ones.is_empty(), "these do not hold: {false_ones:#?}");
        }
    };
}

/// The longest that one sentence may take.
const SENTENCE: Duration = Duration::from_secs(20);

#[test]
fn all_holds_under_sentinels() {
    run_for(SENTENCE * 6, async { all_hold(sentinels().await).await });
}

#[test]
fn all_holds_on_a_cluster() {
    run_for(SENTENCE * 6, async { all_hold(cluster().await).await });
}

contract! {
    accepting {
        an_accepted_message_is_queued_and_can_be_read_again_and_again
        client_message_ids_and_positions_rise
        an_accept_repeated_under_its_id_answers_as_the_first_did
        an_id_belongs_to_one_conversation
        a_key_used_again_replays_the_message_as_it_stands
        a_key_used_for_another_body_is_refused
        keys_of_other_callers_and_conversations_are_other_keys
        a_key_lives_as_long_as_its_message
        a_full_lane_takes_no_more_until_one_ends
        eight_at_once_with_one_key_make_one_message
        what_its_owner_takes_for_an_idle_lane_counts_as_sent
        what_another_takes_does_not_count_as_sent
    }
    owning {
        a_partition_has_one_owner
        a_lease_that_ran_out_is_free_and_the_old_owner_is_fenced
        a_released_partition_is_free_at_once
        claiming_again_fences_off_what_was_on_its_way
        a_lease_nobody_took_can_be_renewed_late
        every_operation_of_an_owner_is_fenced
        a_claim_of_what_is_free_takes_nothing_that_ran_out
        a_lease_that_the_store_lost_is_lost_and_not_anothers
    }
    writing {
        ready_is_what_has_open_messages
        the_next_message_is_head_since_the_end_before_it
        an_end_behind_the_head_leaves_the_head_alone
        the_first_sign_of_each_kind_counts
        a_message_ends_once
        an_end_of_something_else_changes_nothing
        a_repeated_write_changes_nothing
        a_write_out_of_order_is_refused
        replies_join_their_message_also_after_its_end
        replies_never_join_another_conversation
        the_record_is_what_was_written_last
        the_first_write_follows_none
        a_write_says_what_the_store_lost_and_says_it_again
        a_head_can_begin_anew
        warm_conversations_are_told_to_a_new_owner
    }
    keeping {
        journals_keep_a_thousand_entries
        journals_keep_four_mebibytes
        journals_are_gone_a_day_after_their_last_entry
        what_ended_expires_and_what_is_open_stays
        client_message_ids_rise_beyond_what_was_forgotten
    }
    reading {
        a_journal_is_read_page_by_page
        a_reader_may_begin_at_the_oldest_or_behind_the_newest
        where_there_is_nothing_to_read_the_place_stays
        what_was_trimmed_is_a_gap
        what_expired_is_a_gap_as_soon_as_there_is_something_to_read
        a_conversation_that_began_anew_is_a_gap
        what_the_store_lost_is_a_gap
        what_stands_where_another_entry_was_read_is_a_gap
        places_of_other_journals_and_beyond_the_end_are_a_gap
        a_hole_ends_a_page_and_is_a_gap_before_the_next
        an_end_comes_with_its_message_as_it_stands
        an_end_of_a_message_that_expired_comes_alone
        a_page_is_bounded_in_bytes
        a_conversation_is_told_as_it_stands
        an_owner_elsewhere_is_asked_for_the_rest
    }
    observing {
        who_observes_is_told_of_each_write_that_appends
        nobody_is_told_after_its_time
        observing_goes_on_while_it_is_renewed
        an_unknown_conversation_can_be_observed
        who_opens_a_conversation_is_told_who_observes_it
        observing_leaves_nothing_behind
        observing_shortens_no_life
        the_owner_is_told_who_observes
        pieces_and_answers_are_passed_on
    }
    telling {
        an_owner_elsewhere_is_told_what_is_accepted
        a_large_message_is_told_too
        who_watches_is_told_the_end_but_not_the_owner
        who_posts_again_is_told_the_end_too
        a_large_end_is_told_too
        heartbeats_tell_who_lives
        each_replica_says_itself_for_how_long_it_counts
        who_leaves_is_gone_at_once
        a_partition_that_is_given_back_is_told_to_all
        connects_are_counted_over_the_fleet
    }
    delivering {
        a_delivery_is_written_with_what_it_tells_of
        the_delivery_of_an_end_that_is_left_out_is_left_out
        what_is_written_again_is_delivered_once
        a_queue_is_of_one_conversation_and_target
        an_outbox_is_told_to_its_end
        only_the_first_of_a_queue_is_attempted
    }
    attempting {
        an_attempt_is_nobody_elses_while_its_window_lasts
        who_takes_over_waits_for_the_attempt_in_flight
        a_retry_waits_for_its_time
        what_is_buried_says_why
        the_end_of_an_attempt_told_again_changes_nothing
        the_end_of_an_attempt_is_no_other_ones
        an_end_without_a_beginning_changes_nothing
        the_newest_attempts_are_kept
        every_step_of_an_attempt_is_fenced
    }
    listing {
        deliveries_are_listed_newest_first
        deliveries_are_listed_page_by_page
        a_page_of_deliveries_is_bounded_in_bytes
        what_receivers_answered_counts_in_a_page
        deliveries_are_listed_by_what_is_asked_for
        what_is_settled_goes_in_its_time_and_what_is_pending_stays
        deliveries_leave_nothing_behind
    }
    redelivering {
        what_is_settled_is_delivered_again_outside_the_order
        what_is_pending_leaves_its_queue_to_be_delivered_again
        what_is_redelivered_twice_is_attempted_once
        what_is_in_flight_is_not_redelivered
        what_is_not_there_is_not_redelivered
        an_attempt_that_nobody_ended_can_be_redelivered
        the_owner_is_told_of_a_redelivery
    }
}
