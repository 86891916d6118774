//! One connection against servers that say what a well-behaved one never says, and the list of what owning HTTP/2 obliges to.
//!
//! Whoever speaks to the `h2` crate directly takes over what hyper and tonic's transport did. Each obligation and the tests
//! that hold it:
//!
//! | obligation | tests |
//! |---|---|
//! | connect within a time, no Nagle, kernel keepalive, Unix sockets, own connectors | `a_connect_that_gets_nowhere_is_given_up_in_time`, `sockets_are_set_up_for_calls_and_for_peers_that_vanish`, `a_unix_socket_carries_calls_and_its_goodbye` (loopback) |
//! | TLS | not part of the data path yet: a [`Connector`](crate::Connector) may bring it |
//! | READY on the first PONG | `a_connection_is_ready_with_its_first_pong_and_knows_its_round_trip`, `an_endpoint_that_accepts_and_never_speaks_is_never_picked` |
//! | backoff: full jitter, one attempt at a time, reset when READY held and for a new incarnation | `pauses_stay_under_a_ceiling_that_doubles_to_five_seconds`, `a_connection_that_held_is_replaced_at_once`, `connections_that_end_young_are_replaced_slower_but_below_failfast`, `an_endpoint_has_one_attempt_at_a_time`, `a_new_incarnation_ends_the_backoff` |
//! | keepalive: silence with calls in flight, none without, doubled on complaint | `conn::silence`, `a_frozen_peer_is_dead_after_a_second_and_a_half`, `a_peer_with_idle_streams_is_asked_rarely`, `a_complaint_about_pings_is_remembered`, `nothing_is_asked_while_no_call_is_in_flight` |
//! | GOAWAY: drain, replacement at once, streams beyond the last one go elsewhere; REFUSED_STREAM | `a_goaway_ends_the_streams_beyond_its_last_one_and_no_other`, `a_goaway_with_a_stream_open_loses_nothing`, `a_replacement_is_dialled_before_anybody_calls`, `a_refused_stream_goes_to_another_endpoint` |
//! | dropping every handle ends the driver | `a_connection_ends_with_its_handle_and_its_last_stream`, `a_connection_ends_with_the_runtime_of_its_task`, `connections_end_with_the_last_channel_and_the_last_stream`, `a_stream_that_is_over_is_in_nobodys_way` |
//! | stream limits | `a_stream_limit_that_changes_is_followed`, `a_server_gets_no_more_streams_than_it_allows` |
//! | flow control | `an_answer_is_let_in_as_fast_as_it_is_read`, `an_answer_of_small_messages_outlasts_its_window`, `an_upload_waits_for_room`, `many_small_messages_unread_break_nothing`, `answers_that_nobody_reads_hold_up_no_other`, `a_stalled_upload_holds_one_piece_beyond_the_window`, `a_client_stream_longer_than_every_window` |
//! | header hygiene | `call::head`, `a_request_that_cannot_be_sent_fails_alone_and_its_connection_goes_on` |
//! | hostile answers | `a_hostile_server_breaks_nothing`, `a_server_that_leaves_with_many_words_is_cut_short`, `details_that_are_no_base64_are_left_out_and_the_status_stays` |
//! | errors as statuses | `http_2_errors_are_told_as_the_grpc_table_says`, `a_request_that_never_left_is_sent_elsewhere`, `a_request_that_left_is_lost` |
//! | streaming request bodies go on after the answer's head | `call::tests::streaming`, `a_stream_of_messages_starts_anew_elsewhere` |
//! | cancelling resets the stream | `a_call_that_is_dropped_is_reset_at_every_stage`, `a_call_without_an_answer_ends_at_its_deadline_and_is_reset`, `the_late_answers_of_many_cancelled_calls_break_nothing` |

mod errors;
mod flow;
mod fuzz;
mod lifetime;
mod liveness;

use std::sync::Arc;

use http::Request;

use super::{Calm, Conn, ConnSettings, ConnectError, H2Conn, StreamError, dial};
use crate::rig::{Net, Peer, address};

/// A connection and the other end of it.
struct Pair {
    conn: H2Conn,
    peer: Peer,
}

/// One connection that is READY.
async fn pair(settings: &[(u16, u32)]) -> Pair {
    pair_with(settings, Calm::default()).await
}

async fn pair_with(settings: &[(u16, u32)], calm: Calm) -> Pair {
    let net = Net::default();
    let mut connections = net.listen(&address(1));
    let (conn, peer) = tokio::join!(dial_to(&net, 1, calm), Peer::ready(&mut connections, settings));
    Pair { conn: conn.unwrap(), peer }
}

async fn dial_to(net: &Net, port: u16, calm: Calm) -> Result<H2Conn, ConnectError> {
    dial(Arc::new(net.clone()), &address(port), ConnSettings::default(), calm, Arc::default()).await
}

/// A stream on it, with a request that has not ended.
fn open(conn: &H2Conn) -> Result<(<H2Conn as Conn>::Answer, <H2Conn as Conn>::Upload), StreamError> {
    conn.open(Request::post("http://user-svc/shop.Users/Get").body(()).unwrap())
}
