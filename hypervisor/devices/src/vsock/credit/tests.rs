use proptest::prelude::*;

use super::*;

fn credit(window: u32, start: u32) -> Credit {
    // All counters near a place where they wrap.
    Credit {
        window,
        received: start,
        forwarded: start,
        reported: start,
        sent: start,
        peer_buffer: 0,
        peer_forwarded: start,
    }
}

#[test]
fn a_guest_that_shrinks_its_buffer_below_what_is_under_way_gets_nothing() {
    let mut credit = Credit::new(1000);
    credit.update_peer(1000, 0);
    credit.sent(900);
    credit.update_peer(100, 0);
    assert_eq!(credit.peer_free(), 0);
}

#[test]
fn a_guest_that_says_it_got_more_than_was_sent_gets_nothing() {
    let mut credit = Credit::new(1000);
    credit.update_peer(u32::MAX - 1, 5);
    assert_eq!(credit.peer_free(), 3);
    credit.update_peer(1000, 5);
    assert_eq!(credit.peer_free(), 0);
}

#[test]
fn a_guest_that_sends_more_than_its_window_is_caught() {
    let mut credit = Credit::new(1000);
    assert_eq!(credit.received(1000), Ok(()));
    assert_eq!(credit.received(1), Err(Overrun));
    credit.forwarded(400);
    assert_eq!(credit.received(401), Err(Overrun));
    assert_eq!(credit.received(400), Ok(()));
    assert_eq!(credit.held(), 1000);
}

proptest! {
    #[test]
    fn no_history_makes_the_window_larger(
        window in 1u32..1 << 21,
        start in any::<u32>(),
        steps in prop::collection::vec((any::<u32>(), any::<u32>(), 0u32..1 << 20, 0u32..1 << 20), 0..200),
    ) {
        let mut credit = credit(window, start);
        for (buffer, forwarded, received, delivered) in steps {
            credit.update_peer(buffer, forwarded);
            prop_assert!(credit.peer_free() <= buffer);
            let _ = credit.received(received);
            prop_assert!(credit.held() <= window);
            credit.forwarded(delivered);
            prop_assert!(credit.held() <= window);
            if credit.report_due() {
                credit.report();
            }
            prop_assert!(!credit.report_due());
        }
    }

    /// A sender may use less than our window: Linux goes by the smaller of that and its own buffer.
    #[test]
    fn a_sender_that_fills_what_it_may_is_always_told_of_room(
        window in prop::sample::select(vec![1u32 << 16, 1 << 20]),
        own_buffer in 1u32..1 << 21,
        start in any::<u32>(),
        portions in prop::collection::vec(1u32..1 << 18, 1..100),
    ) {
        let mut ours = credit(window, start);
        ours.update_peer(own_buffer, start);
        let (mut sent, mut told) = (start, start);
        for portion in portions {
            let limit = window.min(own_buffer);
            let free = limit - sent.wrapping_sub(told);
            // Everything was delivered and told as the rules say: the sender must not be stuck.
            prop_assert!(free > 0);
            let part = portion.min(free);
            prop_assert_eq!(ours.received(part), Ok(()));
            sent = sent.wrapping_add(part);
            ours.forwarded(part);
            if ours.report_due() {
                told = ours.report().1;
            }
        }
    }

    #[test]
    fn what_was_sent_comes_back_as_credit_across_the_wrap(
        buffer in 1u32..1 << 24,
        start in any::<u32>(),
        portions in prop::collection::vec(1u32..1 << 20, 1..100),
    ) {
        let mut credit = credit(1, start);
        credit.update_peer(buffer, start);
        let mut outstanding = 0;
        for portion in portions {
            let part = portion.min(credit.peer_free());
            credit.sent(part);
            outstanding += part;
            prop_assert_eq!(credit.peer_free(), buffer - outstanding);
            if credit.peer_free() == 0 {
                credit.update_peer(buffer, credit.sent);
                outstanding = 0;
            }
        }
    }
}
