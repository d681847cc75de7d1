//! The contract of the store, sentence by sentence, for every kind of store.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;

use self::store_fixture::{StoreFixture, cluster, sentinels};
use crate::support::{Servers, run_for};

mod accepts;
mod conversation_index;
mod deliveries;
mod delivery_attempts;
mod delivery_lists;
mod delivery_worker;
mod endpoints;
mod erasure;
mod hints;
mod journal_pages;
mod leases;
mod memory;
mod model;
mod observers;
mod redelivery;
mod redis;
mod retention;
mod rhythms;
mod shared_callers;
mod store_fixture;
mod writes;

/// Runs each sentence against each kind of store. One Redis starts at once, so each sentence has its own. Sentinels
/// and clusters take seconds, so all sentences share one and use prefixes of their own.
macro_rules! contract {
    ($($chapter:ident { $($sentence:ident)* })*) => {
        contract!(@each $($($chapter $sentence)*)*);
    };
    (@each $($chapter:ident $sentence:ident)*) => {
        mod on_memory {
            use super::store_fixture::StoreFixture;
            $(
                #[test]
                fn $sentence() {
                    crate::support::run(super::$chapter::$sentence(StoreFixture::memory()));
                }
            )*
        }
        mod on_redis {
            use super::store_fixture::{StoreFixture, alone};
            $(
                #[test]
                fn $sentence() {
                    crate::support::run(async {
                        let servers = alone().await;
                        super::$chapter::$sentence(StoreFixture::on(&servers)).await;
                    });
                }
            )*
        }
        /// Runs all sentences on these servers and returns the failed ones.
        async fn all_hold(servers: Rc<Servers>) {
            let mut false_ones: Vec<&str> = Vec::new();
            $(
                println!("{}: {}", stringify!($chapter), stringify!($sentence));
                let sentence = boxed(|| $chapter::$sentence(StoreFixture::on(&servers)));
                let guarded = tokio::time::timeout(SENTENCE, AssertUnwindSafe(sentence).catch_unwind());
                if !matches!(guarded.await, Ok(Ok(()))) {
                    false_ones.push(stringify!($sentence));
                }
            )*
            assert!(false_ones.is_empty(), "these do not hold: {false_ones:#?}");
        }
    };
}

/// Boxes a sentence outside the frame of its caller, which would be too large with all of them.
fn boxed<F: Future<Output = ()> + 'static>(sentence: impl FnOnce() -> F) -> LocalBoxFuture<'static, ()> {
    sentence().boxed_local()
}

/// The timeout of one sentence.
const SENTENCE: Duration = Duration::from_secs(20);

#[test]
fn contract_holds_under_sentinels() {
    run_for(SENTENCE * 6, async { all_hold(sentinels().await).await });
}

#[test]
fn contract_holds_on_a_cluster() {
    run_for(SENTENCE * 6, async { all_hold(cluster().await).await });
}

contract! {
    accepts {
        accepted_message_is_queued_and_readable
        accepted_connect_keeps_its_context_and_details
        client_message_ids_and_positions_rise
        repeated_accept_returns_the_first_answer
        message_id_belongs_to_one_conversation
        repeated_key_replays_the_current_message
        key_of_open_messages_is_free_after_the_end
        call_shares_no_key_with_a_caller
        key_with_another_body_is_refused
        key_of_another_caller_or_conversation_is_independent
        key_lives_as_long_as_its_message
        full_lane_refuses_accepts_until_an_end
        eight_accepts_with_one_key_make_one_message
        owners_accept_in_an_idle_lane_counts_as_sent
        other_replicas_accept_does_not_count_as_sent
    }
    leases {
        partition_has_one_owner
        expired_lease_is_free_and_its_owner_fenced
        released_partition_is_free_at_once
        second_claim_fences_off_earlier_operations
        expired_lease_without_a_claim_is_renewed
        every_owner_operation_is_fenced
        claim_of_free_partitions_skips_expired_ones
        lost_lease_is_reported_as_lost
    }
    writes {
        ready_conversations_have_open_messages
        next_message_is_head_since_the_end_before_it
        end_behind_the_head_keeps_the_head
        first_sign_of_each_kind_counts
        message_ends_once
        end_of_an_unknown_message_changes_nothing
        repeated_write_changes_nothing
        write_out_of_order_is_refused
        replies_join_their_message_also_after_its_end
        replies_never_join_another_conversation
        open_has_the_ids_of_the_journals_replies
        record_is_the_last_written
        first_write_follows_zero
        write_reports_a_lost_message_also_to_a_repeat
        head_deadline_can_begin_anew
        warm_conversations_are_returned_to_a_new_owner
    }
    retention {
        journals_keep_a_thousand_entries
        journals_keep_four_mebibytes
        journals_expire_a_day_after_their_last_entry
        ended_message_expires_and_open_one_stays
        client_message_ids_rise_after_expiry
    }
    journal_pages {
        journal_is_read_page_by_page
        reader_begins_at_the_oldest_or_after_the_newest
        empty_read_keeps_the_place
        trimmed_entries_are_a_gap
        journal_stays_while_a_message_is_open
        lost_entries_are_a_gap_at_the_next_entry
        new_journal_is_a_gap
        lost_entries_are_a_gap
        replaced_entry_is_a_gap
        foreign_places_are_a_gap
        hole_ends_a_page_and_is_a_gap_before_the_next
        end_comes_with_its_current_message
        end_of_an_expired_message_comes_alone
        page_is_bounded_in_bytes
        state_reports_record_and_lane
        state_hints_the_question_to_the_owner
    }
    conversation_index {
        conversations_are_listed_newest_first
        conversations_are_listed_by_name
        conversations_are_listed_page_by_page
        conversations_are_listed_by_filter
        idle_conversation_leaves_the_index_after_a_day
        place_of_a_changed_conversation_stays_valid
    }
    erasure {
        erasure_leaves_nothing_of_the_conversation
        erasure_finds_the_names_of_expired_deliveries
        erasure_can_be_repeated
        erasure_is_fenced
        watchers_get_a_hint_at_an_erasure
        conversation_begins_anew_after_its_erasure
    }
    observers {
        observer_gets_a_hint_at_each_appending_write
        expired_observer_gets_no_hint
        renewed_observer_keeps_getting_hints
        unknown_conversation_can_be_observed
        open_returns_the_observers
        observer_note_leaves_nothing_behind
        observer_note_shortens_no_lifetime
        owner_gets_a_hint_at_an_observer
        chunks_and_answers_are_passed_on
    }
    hints {
        owner_gets_a_hint_at_an_accept_elsewhere
        large_message_is_hinted_too
        watcher_gets_a_hint_at_the_end_but_not_the_owner
        repeated_accept_notes_a_watcher_too
        large_end_is_hinted_too
        heartbeat_returns_the_live_replicas
        heartbeat_ttl_is_each_replicas_own
        leaving_replica_is_gone_at_once
        release_is_hinted_to_all_replicas
        connects_are_counted_over_the_fleet
        reserved_connect_is_granted_once
    }
    rhythms {
        rhythm_is_shared_by_all_replicas
        rhythm_of_another_writer_is_kept
        repeated_write_of_a_rhythm_changes_nothing
        forgotten_rhythm_is_learned_anew
        rhythm_expires_90_days_after_its_last_write
        too_large_rhythm_is_refused
    }
    shared_callers {
        first_secret_of_a_day_serves_all_replicas
        replicas_take_from_one_bucket
    }
    deliveries {
        delivery_is_written_with_its_entry
        delivery_of_a_skipped_end_is_skipped
        rewritten_delivery_is_delivered_once
        queue_belongs_to_one_conversation_and_target
        endpoints_with_one_url_have_queues_of_their_own
        outbox_is_read_to_its_end
        only_the_first_of_a_queue_is_attempted
    }
    delivery_attempts {
        attempt_is_exclusive_during_its_window
        new_owner_waits_for_the_attempt_in_flight
        retry_waits_for_its_time
        dead_delivery_has_a_reason
        repeated_end_of_an_attempt_changes_nothing
        attempt_ends_by_its_own_token_only
        end_without_a_begin_changes_nothing
        newest_attempts_are_stored
        every_step_of_an_attempt_is_fenced
    }
    endpoints {
        endpoint_state_is_shared_and_merged
        endpoint_is_switched_off_and_on
        backlog_counts_pending_deliveries_by_endpoint
        early_begin_takes_a_retry_but_no_attempt_in_flight
        dead_letter_is_written_with_its_reports
        queue_of_an_endpoint_is_read_with_its_name
    }
    delivery_lists {
        deliveries_are_listed_newest_first
        deliveries_are_listed_page_by_page
        page_of_deliveries_is_bounded_in_bytes
        receivers_answers_count_in_a_page
        deliveries_are_listed_by_filter
        deliveries_of_a_message_are_listed
        deliveries_of_an_endpoint_are_listed
        settled_delivery_expires_and_pending_one_stays
        deliveries_leave_nothing_behind
    }
    redelivery {
        settled_delivery_is_redelivered_outside_the_order
        pending_delivery_is_redelivered_from_its_queue
        twice_redelivered_delivery_is_attempted_once
        delivery_in_flight_is_not_redelivered
        unknown_delivery_is_not_redelivered
        unfinished_attempt_can_be_redelivered
        owner_gets_a_hint_at_a_redelivery
    }
}
