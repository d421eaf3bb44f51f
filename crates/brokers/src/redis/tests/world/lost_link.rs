//! What a node does by itself when its connection is lost.
//!
//! Invariant: orders take effect once, and in the order in which they were submitted.

use std::sync::Arc;

use engine::broker::{BrokerEvent, Control, NodeBusRequest, Order, Target};

use super::pair::Pair;
use crate::redis::resp::Frame;
use crate::redis::settings::RedisParts;

fn order(channel: &str) -> Arc<Control> {
    let target = Target { user: "ann".to_owned(), ..Target::default() };
    Arc::new(Control { target, order: Order::Unsubscribe { channel: channel.to_owned() } })
}

/// The channels of the orders that the endpoints have received.
fn received(pair: &mut Pair) -> Vec<String> {
    let channel = |event| match event {
        BrokerEvent::Control(control) => match &control.order {
            Order::Unsubscribe { channel } => Some(channel.clone()),
            order => panic!("unexpected: {order:?}"),
        },
        _ => None,
    };
    pair.events().into_iter().filter_map(channel).collect()
}

#[test]
fn orders_that_were_not_sent_take_effect_here_in_their_order() {
    let mut pair = Pair::new(RedisParts::All);
    for channel in ["a", "b", "c"] {
        pair.submit(NodeBusRequest::Control(order(channel)));
    }
    pair.core.flush(pair.now().time, |_, bytes| bytes.clear());
    pair.lose();
    assert_eq!(received(&mut pair), ["a", "b", "c"]);
}

#[test]
fn an_order_that_came_back_before_the_connection_was_lost_takes_effect_once() {
    let mut pair = Pair::new(RedisParts::All);
    for channel in ["a", "b"] {
        pair.submit(NodeBusRequest::Control(order(channel)));
    }
    // The messages arrive, their replies do not.
    pair.turn_with(|frame| matches!(frame, Frame::Push(_)));
    assert_eq!(received(&mut pair), ["a", "b"]);
    pair.submit(NodeBusRequest::Control(order("c")));
    pair.lose();
    assert_eq!(received(&mut pair), ["c"]);
}

#[test]
fn an_acknowledged_order_is_not_given_again() {
    let mut pair = Pair::new(RedisParts::All);
    pair.submit(NodeBusRequest::Control(order("a")));
    pair.turn();
    pair.lose();
    assert_eq!(received(&mut pair), ["a"]);
}
