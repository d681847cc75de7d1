//! The contract of the store, sentence by sentence, for every side of it.

mod accepting;
mod keeping;
mod memory;
mod model;
mod owning;
mod shape;
mod writing;

/// Runs each sentence against each side; another side is another line here.
macro_rules! contract {
    ($($chapter:ident { $($sentence:ident)* })*) => {
        contract!(@side on_memory Shape::memory, $($($chapter $sentence)*)*);
    };
    (@side $side:ident $shape:path, $($chapter:ident $sentence:ident)*) => {
        mod $side {
            use super::shape::Shape;
            $(
                #[tokio::test]
                async fn $sentence() {
                    super::$chapter::$sentence($shape()).await;
                }
            )*
        }
    };
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
    }
    owning {
        a_partition_has_one_owner
        a_lease_that_ran_out_is_free_and_the_old_owner_is_fenced
        a_released_partition_is_free_at_once
        claiming_again_fences_off_what_was_on_its_way
        a_lease_nobody_took_can_be_renewed_late
        every_operation_of_an_owner_is_fenced
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
    }
    keeping {
        journals_are_read_from_a_place_on
        journals_keep_a_thousand_entries
        journals_keep_four_mebibytes
        journals_are_gone_a_day_after_their_last_entry
        what_ended_expires_and_what_is_open_stays
        client_message_ids_rise_beyond_what_was_forgotten
    }
}
